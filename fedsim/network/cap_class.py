"""Flows of one cap on a shared link: what each has been given so far, and when the next one has all it wants."""

from __future__ import annotations

import math

UNITS = 2.0**100
"""Caps are summed as whole numbers of 2^-100 bytes/s: exactly, so that no order and no past shows."""


class CapClass:
    """Flows with one cap.

    Its clock counts the bytes that each of its flows has been given: `base + cap * (now - since)` when
    capped, `base + virtual time` when fair. A flow finishes when the clock reaches its key.

    Attributes:
        cap, units: bytes/s, and the same in whole `UNITS`.
        fair: whether the link holds its flows back, and not their cap.
        base, since: of the clock.
        keys: heap of (key, flow); some are of flows that have left.
        n: flows that are there.
        stamp: of the finish that is noted for it.
    """

    __slots__ = ("base", "cap", "fair", "keys", "n", "since", "stamp", "units")

    def __init__(self, cap: float, *, fair: bool, base: float, since: float) -> None:
        """Nobody is in it yet."""
        self.cap, self.fair, self.base, self.since = cap, fair, base, since
        self.units = int(cap * UNITS)
        self.keys: list[tuple[float, int]] = []
        self.n = self.stamp = 0

    def clock(self, now_s: float, virtual: float) -> float:
        """Return the bytes that each flow has been given by now, at this virtual time."""
        if self.fair:
            return self.base + virtual
        return self.base + self.cap * (now_s - self.since)

    def due(self, key: float) -> float:
        """Return when the clock reaches a key: in virtual time if fair, else in s; inf if never."""
        if self.fair:
            return key - self.base
        if self.cap > 0:
            return self.since + (key - self.base) / self.cap
        return math.inf if key > self.base else self.since
