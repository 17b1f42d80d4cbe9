"""A chain of two states, one step a second, known at any second from addressed draws alone.

One uniform u a second: u < `begins` ends up in the second state and u >= 1 - `ends` in the first, whatever was before;
any other u changes nothing. So the last decisive second tells the state, and blocks of seconds can be asked for in
any order. Spells in the second state last 1 / `ends` seconds on average, and hold begins / (begins + ends) of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedsim.arrays import Bools, Floats

Draws = Callable[[int], Floats]
"""Block of seconds -> its uniforms."""


class Chances(NamedTuple):
    """Chances a second.

    Attributes:
        begins: that the second state begins, where it does not hold.
        ends: that it ends, where it does.
    """

    begins: float
    ends: float


def chances(share: float, mean_s: float) -> Chances:
    """Return the chances of spells that hold a share of the time and last so long on average [s]."""
    return Chances(share / (mean_s * (1 - share)), 1 / mean_s)


def second_state(at: Chances, draws: Draws, block: int) -> Bools:
    """Return which seconds of a block are in the second state, (seconds of a block,)."""
    u = draws(block)
    last = np.maximum.accumulate(np.where(_decisive(at, u), np.arange(len(u)), -1))
    second = u[last] < at.begins
    if last[0] < 0:
        second[last < 0] = _at_the_end(at, draws, block - 1)
    return second


def _at_the_end(at: Chances, draws: Draws, block: int) -> bool:
    while True:
        u = draws(block)
        decisive = np.flatnonzero(_decisive(at, u))
        if len(decisive):
            return bool(u[decisive[-1]] < at.begins)
        block -= 1


def _decisive(at: Chances, u: Floats) -> Bools:
    return (u < at.begins) | (u >= 1 - at.ends)
