"""A rate that changes in steps. Written apart from `fedsim.network.traces`: the ruler must not be the thing measured."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class Steps:
    """A piecewise-constant rate that holds its last value; the first one counts before `times_s[0]` too.

    Attributes:
        times_s: increasing times of change [s].
        bytes_per_s: the rate from each of them on.
    """

    times_s: tuple[float, ...]
    bytes_per_s: tuple[float, ...]

    @classmethod
    def constant(cls, bytes_per_s: float) -> Steps:
        """Return a rate that never changes."""
        return cls((0.0,), (bytes_per_s,))

    @property
    def is_constant(self) -> bool:
        """Whether it never changes."""
        return len(set(self.bytes_per_s)) == 1

    def rate(self, t_s: float) -> float:
        """Return the rate at and after `t_s` [bytes/s]."""
        return self.bytes_per_s[max(0, bisect_right(self.times_s, t_s) - 1)]

    def finish_s(self, start_s: float, n_bytes: float) -> float:
        """Return when `n_bytes` sent from `start_s` on are through; infinity if never."""
        now, left = start_s, n_bytes
        for at, change_s in enumerate((*self.times_s[1:], math.inf)):
            rate = self.bytes_per_s[at]
            if change_s <= now:
                continue
            if rate * (change_s - now) >= left:
                return now + left / rate
            left -= rate * (change_s - now) if rate else 0.0
            now = change_s
        return math.inf
