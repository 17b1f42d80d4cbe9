"""The quadratic task with clients whose training raises, dies, hangs or finds no memory, in this process or in a worker's."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fedsim.config.experiment import Experiment
from fedsim.tasks.quadratic import Quadratic, QuadraticTask

KIND = "worlds.faulty:Faulty"


class Faulty(Quadratic):
    """`behave`: client -> what its training does; `marks`: a folder, where it happens so often only (`once`, `twice`)."""

    kind: Literal["worlds.faulty:Faulty"] = "worlds.faulty:Faulty"
    behave: dict[str, str] = {}  # noqa: RUF012  # pydantic copies it
    marks: str = ""
    nap_s: float = 0.0

    def build(self, context):
        seeds = context.seed, context.first_seed
        return FaultyTask(self, context.clients, seeds, context.lora, context.local.batch)


@dataclass(frozen=True)
class FaultyTask(QuadraticTask):
    """The quadratic task, but for what is asked of it."""

    def train(self, jobs):
        for job in jobs:
            time.sleep(self.config.nap_s)
            what, _, often = self.config.behave.get(str(job.client), "").rpartition(" ")
            times = {"once": 1, "twice": 2, "thrice": 3}.get(often)
            what = what if times else f"{what} {often}".strip()
            if what and self._is_due(job.client, times):
                misbehave(what)
        return super().train(jobs)

    def _is_due(self, client, times):
        if times is None:
            return True
        for number in range(times):
            try:
                (Path(self.config.marks) / f"{client}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False


def misbehave(what):
    """Do what is asked for."""
    if what.startswith("enter "):  # a group of processes whose memory is limited
        _, group, _, what = what.split(" ", 3)
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    match what:
        case "raise":
            raise KeyError("boom")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            threading.Event().wait()
        case "starve":
            np.empty(2**50)
        case "fill":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "swallow":  # takes more and more of the memory, slowly enough to be seen
            hoard = []
            while True:
                hoard.append(np.ones(2**25))
                time.sleep(0.02)


def faulty(behave, *, executor="inline", workers=1, nap_s=0.0, marks="", protocol=None, **blocks):
    """An experiment with clients of which some misbehave."""
    settings = {
        "name": "faulty",
        "task": {
            "kind": KIND,
            "behave": {str(k): what for k, what in behave.items()},
            "nap_s": nap_s,
            "marks": str(marks),
        },
        "population": {"preset": "homogeneous", "clients": 12},
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 3},
        "protocol": protocol or {"kind": "synchronous", "cohort": 12},
        "numerics": {"client_batch": 4},
        "budget": {"commits": 3},
        "runtime": {"executor": executor, "workers": workers},
    }
    for block, values in blocks.items():
        settings[block] = {**settings.get(block, {}), **values} if isinstance(values, dict) else values
    return Experiment.model_validate(settings)
