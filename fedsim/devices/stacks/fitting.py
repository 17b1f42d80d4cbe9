"""The law of a machine from a few passes that were timed on it: its speed with many tokens, and its launch cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.devices.stacks.law import soft_maximum
from fedsim.errors import ProfileError, message

FINENESS = 24
"""Points of the grid in each direction; it is narrowed around the best one until it moves by less than a millionth."""
ROUNDS = 14


@dataclass(frozen=True)
class TimedPass:
    """A forward and backward pass: its work [FLOP], layers times how often each is passed, and its time [s]."""

    flops: float
    layer_passes: float
    seconds: float


@dataclass(frozen=True)
class MachineLaw:
    """What was fitted.

    Attributes:
        flops_per_s: with many tokens a pass.
        launch_s: floor of a layer pass [s].
        worst: largest factor between a time that was measured and the law's.
    """

    flops_per_s: float
    launch_s: float
    worst: float


def law_of(passes: Sequence[TimedPass]) -> MachineLaw:
    """Return the law with the least squares of ln(predicted / measured).

    Args:
        passes: of one machine, of at least two sizes.

    Raises:
        ProfileError: passes of one size, which do not tell speed from launches.
    """
    if len({timed.flops for timed in passes}) < 2:
        fix = "time passes of at least two sizes"
        raise ProfileError(message("law", "cannot be told from passes of one size", got=len(passes), fix=fix))
    fastest = max(timed.flops / timed.seconds for timed in passes)
    longest_s = max(timed.seconds / timed.layer_passes for timed in passes)
    speeds, launches = (0.5 * fastest, 8.0 * fastest), (1e-4 * longest_s, 2.0 * longest_s)
    for _ in range(ROUNDS):
        grid = [
            (_squares(passes, speed, launch), speed, launch)
            for speed in np.geomspace(*speeds, FINENESS).tolist()
            for launch in np.geomspace(*launches, FINENESS).tolist()
        ]
        _, speed, launch = min(grid)
        speeds, launches = _around(speeds, speed), _around(launches, launch)
    worst = max(max(ratio, 1 / ratio) for ratio in _ratios(passes, speed, launch))
    return MachineLaw(speed, launch, worst)


def _ratios(passes: Sequence[TimedPass], speed: float, launch_s: float) -> list[float]:
    return [soft_maximum(p.flops / speed, p.layer_passes * launch_s) / p.seconds for p in passes]


def _squares(passes: Sequence[TimedPass], speed: float, launch_s: float) -> float:
    return float(sum((ratio - 1) * (1 - 1 / ratio) for ratio in _ratios(passes, speed, launch_s)))


def _around(span: tuple[float, float], at: float) -> tuple[float, float]:
    """Return a span that is a third as wide, in ratio, around a place."""
    half = (span[1] / span[0]) ** (1 / 6)
    return at / half, at * half
