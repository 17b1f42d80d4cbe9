"""An adapter folded into the frozen weights, so that another one can be trained over both."""

from __future__ import annotations

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.moved_base import dense_shape, dense_size, split
from fedsim.errors import ExperimentError, message
from fedsim.jobs import Job

REMEMBERED = 6
"""Folded bases that are kept: clients that start from one array share one, those of a few ranks too."""


def folded(layout: Layout, vector: Vector, scale: float, base: Vector | None = None) -> Vector:
    """Return the change of the frozen weights that has the effect of an adapter: base + scale B A.

    Args:
        layout: adapted modules only.
        vector: the adapter, (layout.size,).
        scale: what B A is multiplied with in every module.
        base: the change there is already, as `fedsim.adapters.moved_base.Base.vector`; None: none.

    Returns:
        As `Base.vector`: float32, each module's (out, in kh kw) after the other, read-only; summed in float64.
    """
    found = np.zeros(dense_size(layout), np.float32)
    arrays = layout.arrays(vector)
    before = None if base is None else split(layout, base)
    for module, change in split(layout, found):
        out, width = dense_shape(module)
        b = arrays[f"{module.name}.lora_B"].reshape(out, module.rank).astype(np.float64)
        a = arrays[f"{module.name}.lora_A"].reshape(module.rank, width).astype(np.float64)
        moved = scale * (b @ a)
        if before is not None:
            moved += next(before)[1]
        change[...] = moved
    found.flags.writeable = False
    return found


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
    found = np.array(vector, dtype=np.float32)
    arrays = layout.arrays(found)
    for module in layout.modules:
        arrays[f"{module.name}.lora_B"] *= np.float32(weight)
    found.flags.writeable = False
    return found


class Fold:
    """`folded`, which gives the same array for the same arrays: workers then get it once."""

    def __init__(self) -> None:
        self._last: list[tuple[Vector, Vector | None, float, Vector]] = []

    def __call__(self, layout: Layout, vector: Vector, scale: float, base: Vector | None = None) -> Vector:
        """Return `folded(...)`; compares arrays by identity."""
        for held, under, by, found in self._last:
            if held is vector and under is base and by == scale:
                return found
        made = folded(layout, vector, scale, base)
        self._last = [*self._last[1 - REMEMBERED :], (vector, base, scale, made)]
        return made
