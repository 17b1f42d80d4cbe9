"""The windows of all clients as one sequence in time: whose opens or closes next.

It is laid out for a stretch of time at once, so that memory does not grow with the number of windows: for each stretch
all of them are looked at once.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from fedsim.arrays import Bools, Floats, Ints
from fedsim.devices.availability import Availability

AT_ONCE = 500_000
"""Openings and closings that are laid out at once, about."""
LEAP = 2
"""Stretches without a question from which on everybody is looked at instead."""


class Openings:
    """Openings and closings, each at the very time from which on `Availability.online` has it.

    Windows that are open from the start and never close are no part of it.
    """

    def __init__(self, windows: Availability) -> None:
        """Stand at time 0: what is open then is open."""
        self._windows, self._period_s = windows, windows.period_s
        self._around = np.flatnonzero((windows.stops_s > self._period_s) & np.isfinite(windows.stops_s))
        self._endless = bool(np.isinf(windows.stops_s).any())
        span_s = _span_s(windows)
        self._stretch_s = span_s / max(1, -(-2 * len(windows.starts_s) // AT_ONCE))
        self._last_s = math.inf if math.isfinite(self._period_s) else span_s
        self._open = bytearray(windows.n)
        self._times: list[float] = []
        self._changes: list[int] = []
        self._next, self._asked_s, self._until_s = 0, 0.0, 0.0
        self._look(0.0)

    def online(self) -> Bools:
        """Return who is online, (n,), as of the last question."""
        return np.frombuffer(self._open, dtype=np.uint8) > 0

    @property
    def counts(self) -> bytearray:
        """How many windows of each client are open as of the last question, (n,); it goes on changing."""
        return self._open

    def due(self, to_s: float) -> list[int] | None:
        """Return the clients whose windows open or close by `to_s`, since the last question; None: it may be anybody.

        Args:
            to_s: not before that of the last question, or everybody is looked at.
        """
        if to_s < self._asked_s or to_s > self._until_s + LEAP * self._stretch_s < self._last_s:
            self._look(to_s)
            return None
        self._asked_s = to_s
        clients: list[int] = []
        while True:
            first, end = self._next, bisect_right(self._times, to_s, self._next)
            if end > first:
                clients += self._happen(self._changes[first:end])
                self._next = end
            if end < len(self._times) or self._until_s > to_s or self._until_s >= self._last_s:
                return clients
            self._lay_out(self._until_s)

    def _look(self, now_s: float) -> None:
        """Look at everybody."""
        self._open[:] = self._windows.online(now_s).astype(np.uint8).tobytes()
        self._asked_s = now_s
        self._lay_out(now_s)

    def _happen(self, changes: list[int]) -> list[int]:
        """Count windows that open (client) and close (~client); returns the clients."""
        open_, clients = self._open, []
        for change in changes:
            if change >= 0:
                open_[change] += 1
                clients.append(change)
            else:
                open_[~change] -= 1
                clients.append(~change)
        return clients

    # the next stretch ---------------------------------------------------------------------------

    def _lay_out(self, from_s: float) -> None:
        """Put what happens in (from, from + stretch] in order; at one time openings come first."""
        until_s = from_s + self._stretch_s
        stretch = [*self._starts(from_s, until_s), *self._stops(from_s, until_s)]
        at_s = np.concatenate([np.zeros(0), *(times for times, _ in stretch)])
        changes = np.concatenate([np.zeros(0, dtype=np.int64), *(changes for _, changes in stretch)])
        order = np.argsort(at_s, kind="stable")
        self._times, self._changes = at_s[order].tolist(), changes[order].tolist()
        self._next, self._until_s = 0, until_s

    def _starts(self, from_s: float, until_s: float) -> Iterator[tuple[Floats, Ints]]:
        """Yield times and clients of windows that open in (from, until]."""
        starts_s = self._windows.starts_s
        for base_s in self._bases_s(from_s, until_s):
            places = np.flatnonzero(_in_reach(starts_s, from_s - base_s, until_s - base_s))
            if base_s >= 0:  # what began before time 0 is open
                yield self._exactly(base_s + starts_s[places], places, from_s, until_s)

    def _stops(self, from_s: float, until_s: float) -> Iterator[tuple[Floats, Ints]]:
        """Yield times and clients (as ~client) of windows that close in (from, until]."""
        stops_s, around = self._windows.stops_s, self._around
        for base_s in self._bases_s(from_s, until_s):
            reach = _in_reach(stops_s, from_s - base_s, until_s - base_s)
            places = np.flatnonzero(reach & (stops_s <= self._period_s) if len(around) else reach)
            at_s, clients = self._exactly(base_s + stops_s[places], places, from_s, until_s)
            yield at_s, ~clients
        for base_s in self._bases_s(from_s - self._period_s, until_s - self._period_s) if len(around) else ():
            at_s, clients = self._exactly(base_s + stops_s[around], around, from_s, until_s)
            yield at_s, ~clients

    def _exactly(self, at_s: Floats, places: Ints, from_s: float, until_s: float) -> tuple[Floats, Ints]:
        """Return the times in (from, until], and whose windows these are."""
        mine = (at_s > from_s) & (at_s <= until_s)
        if self._endless and math.isfinite(self._period_s):
            mine &= np.isfinite(self._windows.stops_s[places])
        owners = np.searchsorted(self._windows.offsets, places[mine], side="right") - 1
        return at_s[mine], owners.astype(np.int64)

    def _bases_s(self, from_s: float, until_s: float) -> list[float]:
        """Return when the periods begin that [from, until] touches, from the one before time 0 on."""
        period_s = self._period_s
        if math.isinf(period_s):
            return [0.0]
        first = math.floor((from_s - _slack_s(from_s)) / period_s)
        last = math.floor((until_s + _slack_s(until_s)) / period_s)
        return [k * period_s for k in range(max(first, -1), last + 1)]


def _in_reach(at_s: Floats, from_s: float, until_s: float) -> Bools:
    """Return which times are in [from, until], or so near that it takes the exact sum to tell."""
    near: Bools = at_s >= from_s - _slack_s(from_s)
    near &= at_s <= until_s + _slack_s(until_s)
    return near


def _slack_s(at_s: float) -> float:
    return 1e-6 + 1e-9 * abs(at_s)


def _span_s(windows: Availability) -> float:
    """Return how much time the windows are about: their period, or until the last of them opens or closes."""
    if math.isfinite(windows.period_s):
        return windows.period_s
    finite = windows.stops_s[np.isfinite(windows.stops_s)]
    last_s = max(float(windows.starts_s.max(initial=0.0)), float(finite.max(initial=0.0)))
    return last_s or 1.0
