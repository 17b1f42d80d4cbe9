"""The quadratic task with clients that now and then send numbers which are not finite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedsim.tasks.quadratic import Quadratic, QuadraticTask


class Faulty(Quadratic):
    """Every third client is at fault in every second visit."""

    kind: Literal["worlds.kills.clients:Faulty"] = "worlds.kills.clients:Faulty"

    def build(self, context):
        seeds = context.seed, context.first_seed
        return FaultyTask(self, context.clients, seeds, context.lora, context.local.batch)


@dataclass(frozen=True)
class FaultyTask(QuadraticTask):
    """Its updates are refused at the commit."""

    def _train(self, job):
        update = super()._train(job)
        if job.client % 3 or job.visit % 2:
            return update
        return replace(update, end=np.full_like(update.end, np.nan))
