"""Estimate each stack's share of peak, launch cost and cost of quantised weights from the points, and how well they are known.

A grid, twice: the sum of squared logarithms of predicted over measured, no random starts, the same result at each call. Where
nothing tells the launch cost (passes of one or two lengths) there is none; elsewhere a weak prior holds it near 1.7 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.measured import Point

Floats = NDArray[np.float64]

BANDWIDTH_SHARE = 0.7
"""Share of memory bandwidth at which weights are read: assumed; no measured pass is short enough to tell it."""
PRIOR_S, PRIOR_WEIGHT = 1.7e-3, 0.05
"""A layer pass of an interpreted stack, and how much that says beside a point."""
FEW_DEVICES = 3
"""A stack that was measured on fewer chips is taken to be no better known on others than the rest."""
SHARES = np.geomspace(1e-3, 1.2, 320)
LAUNCHES = np.geomspace(1e-5, 3e-2, 40)
EXPANSIONS = np.geomspace(0.01, 1.0, 24)
UNIT = {"cpp": "cpu", "cpp-2026-04-08": "cpu", "pytorch-cpu": "cpu", "torchtune": "matrix"}
"""Stack -> the peak that it reaches a share of."""


@dataclass(frozen=True)
class Parameters:
    """What is estimated of a stack: share of peak, seconds of a layer pass, share of bandwidth of an expansion (0: none)."""

    share: float
    launch_s: float
    expand_share: float


@dataclass(frozen=True)
class Errors:
    """Predicted over measured of each point: fitted to all, and from the others; NaN where nothing is left."""

    fitted: Floats
    row_out: Floats
    set_up_out: Floats
    device_out: Floats


def peak_of(stack: str) -> str:
    """Return the peak that a stack reaches a share of."""
    if stack in UNIT:
        return UNIT[stack]
    return "matrix" if stack in ("pytorch-cuda", "pytorch-cuda-4bit", "pytorch-cuda-jetson") else "gpu"


def fit(points: Sequence[Point], *, launches: bool = True) -> tuple[Parameters, Errors]:
    """Return the estimate from all points of one stack, and the errors when points are left out."""
    grid = _Grid(points, launches=launches)
    coarse = grid.best(np.ones(len(points), dtype=np.bool_))
    return grid.finer(coarse), Errors(
        fitted=np.exp(grid.log_errors[(slice(None), *coarse)]),
        row_out=grid.without(id),
        set_up_out=grid.without(lambda point: point.set_up),
        device_out=grid.without(lambda point: point.hardware),
    )


class _Grid:
    """Log errors of all points, (points, shares, launches, expansions)."""

    def __init__(self, points: Sequence[Point], *, launches: bool) -> None:
        self.points = points
        self.peak = np.array([point.peaks[peak_of(points[0].stack)] for point in points])
        told = launches and len({point.tokens for point in points}) > 2
        self.shares = SHARES
        self.launches = LAUNCHES if told else np.zeros(1)
        expands = any(point.work.expanded_bytes for point in points) and _expands(points[0].stack)
        self.expansions = EXPANSIONS if expands else np.zeros(1)
        self.log_errors = self._log_errors(self.shares, self.launches, self.expansions)
        self.prior = self._prior(self.launches)

    def _log_errors(self, shares: Floats, launches: Floats, expansions: Floats) -> Floats:
        def of(values: list[float]) -> Floats:
            return np.array(values)[:, None, None, None]

        arithmetic = of([p.work.flops for p in self.points]) / (
            shares[None, :, None, None] * of(self.peak.tolist())
        )
        moved = of([p.work.moved_bytes / (BANDWIDTH_SHARE * p.bandwidth) for p in self.points])
        floor = of([p.work.layer_passes for p in self.points]) * launches[None, None, :, None]
        body = (np.maximum(arithmetic, moved) ** 4 + floor**4) ** 0.25
        per_share = of([p.work.expanded_bytes / p.bandwidth for p in self.points])
        with np.errstate(divide="ignore"):
            rate = np.where(expansions > 0, 1.0 / np.where(expansions > 0, expansions, 1.0), 0.0)
        seconds = body + per_share * rate[None, None, None, :]
        return np.asarray(np.log(seconds / of([p.measured_s for p in self.points])))

    def _prior(self, launches: Floats) -> Floats:
        if launches[0] == 0:
            return np.zeros((1, len(launches), 1))
        return PRIOR_WEIGHT * np.log(launches / PRIOR_S)[None, :, None] ** 2

    def best(self, kept: NDArray[np.bool_]) -> tuple[int, int, int]:
        """Return where the squares of the kept points are least."""
        total = (self.log_errors[kept] ** 2).sum(axis=0) + self.prior
        i, j, k = np.unravel_index(int(total.argmin()), total.shape)
        return int(i), int(j), int(k)

    def finer(self, at: tuple[int, int, int]) -> Parameters:
        """Return the least squares on a grid eight times as fine around a place."""
        shares, launches, expansions = (
            _around(values, index)
            for values, index in zip((self.shares, self.launches, self.expansions), at, strict=True)
        )
        total = (self._log_errors(shares, launches, expansions) ** 2).sum(axis=0) + self._prior(launches)
        i, j, k = np.unravel_index(int(total.argmin()), total.shape)
        return Parameters(float(shares[i]), float(launches[j]), float(expansions[k]))

    def without(self, key: Callable[[Point], Hashable]) -> Floats:
        """Return predicted over measured of each point, from those with another key; NaN where there are none."""
        keys = [key(point) for point in self.points]
        at: dict[Hashable, tuple[int, int, int] | None] = {}
        for one in dict.fromkeys(keys):
            kept = np.array([other != one for other in keys])
            at[one] = self.best(kept) if kept.any() else None
        errors = [np.nan if at[one] is None else self.log_errors[(k, *at[one])] for k, one in enumerate(keys)]
        return np.exp(np.array(errors, dtype=np.float64))


def _expands(stack: str) -> bool:
    """Tell whether a stack unpacks quantised weights in memory; MLX and llama.cpp do so on the way into the product."""
    return stack in ("pytorch-cuda-4bit", "torchtune")


def _around(values: Floats, index: int) -> Floats:
    if len(values) == 1:
        return values
    low, high = values[max(index - 1, 0)], values[min(index + 1, len(values) - 1)]
    return np.geomspace(low, high, 17)


def spread(errors: Errors) -> float:
    """Return the root mean square of the logarithms with the device left out; NaN for a single device."""
    logs = np.log(errors.device_out[np.isfinite(errors.device_out)])
    return float(np.sqrt(np.mean(logs**2))) if len(logs) else float("nan")
