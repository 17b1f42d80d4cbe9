"""An adapter folded into the frozen weights, so that another one can be trained over both."""

from __future__ import annotations

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.folding import adapter_into_base
from fedsim.errors import ExperimentError, message
from fedsim.jobs import Job

REMEMBERED = 6
"""Folded bases that are kept: clients that start from one array share one, those of a few ranks too."""


def scale_of(layout: Layout, job: Job) -> float:
    """Return what a job multiplies B A with.

    Raises:
        ExperimentError: the modules differ in it.
    """
    if job.scale is not None:
        return job.scale
    scales = {m.scale * m.rank / (m.rank if job.rank is None else job.rank) for m in layout.modules}
    if len(scales) != 1:
        what = "needs modules of one scale"
        raise ExperimentError(
            message("personal", what, got=sorted(scales), fix="choose another personal.kind")
        )
    return scales.pop()


def weighted(layout: Layout, vector: Vector, weight: float) -> Vector:
    """Return the adapter with weight times its effect: B times `weight`."""
    changed = np.array(vector, dtype=np.float32)
    arrays = layout.arrays(changed)
    for module in layout.modules:
        arrays[f"{module.name}.lora_B"] *= np.float32(weight)
    changed.flags.writeable = False
    return changed


class Fold:
    """`adapter_into_base`, which gives the same array for the same arrays: workers then get it once."""

    def __init__(self) -> None:
        self._last: list[tuple[Vector, Vector | None, float, Vector]] = []

    def __call__(self, layout: Layout, vector: Vector, scale: float, base: Vector | None = None) -> Vector:
        """Return `adapter_into_base(...)`; compares arrays by identity."""
        for held, under, by, change in self._last:
            if held is vector and under is base and by == scale:
                return change
        made = adapter_into_base(layout, vector, scale, base)
        self._last = [*self._last[1 - REMEMBERED :], (vector, base, scale, made)]
        return made
