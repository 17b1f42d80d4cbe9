"""What keeps the set of idle clients up to date with who is online, by telling apart what has changed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Protocol

import numpy as np

from fedsim.arrays import Ints
from fedsim.clock.online.attendance import Windowed
from fedsim.clock.online.idle_set import OUTAGE, WINDOW, IdleSet
from fedsim.clock.online.openings import Openings
from fedsim.clock.online.watched import Watched
from fedsim.devices.availability import Availability, WhoIsOnline
from fedsim.devices.outages import Interrupted, Line

MANY = 20_000
"""Clients that come and go between two questions from which on everybody is written down anew."""


class Follower(Protocol):
    """Keeps a set of clients."""

    def advance(self, to_s: float) -> None:
        """Have in the set who is online at a time, and nobody else, as far as that is what decides."""
        ...


def follower_of(times: WhoIsOnline, idle: IdleSet) -> Follower:
    """Return what keeps a set up to date; of what it does not know how it changes it asks everybody, every time."""
    if times.constant:
        return _Nothing()
    if isinstance(times, Watched):
        return _Devices(times, idle)
    windows: object = times.windows if isinstance(times, Windowed) else times
    if isinstance(windows, Availability):
        return _Windows(windows, idle)
    if isinstance(windows, Interrupted) and isinstance(windows.windows, Availability):
        return _Outages(windows, windows.windows, idle)
    return _Everybody(times, idle)


class _Nothing:
    """Everybody is always online."""

    def advance(self, to_s: float) -> None:
        """Nothing changes."""


class _Everybody:
    """Asks about everybody."""

    def __init__(self, times: WhoIsOnline, idle: IdleSet) -> None:
        self._times, self._idle = times, idle

    def advance(self, to_s: float) -> None:
        """Ask."""
        self._idle.set_reason(~self._times.online(to_s), WINDOW)


class _Windows:
    """Follows windows."""

    def __init__(self, windows: Availability, idle: IdleSet) -> None:
        self._idle, self._openings = idle, Openings(windows)
        idle.set_reason(~self._openings.online(), WINDOW)

    def advance(self, to_s: float) -> None:
        """Let windows open and close."""
        idle, openings = self._idle, self._openings
        clients = openings.due(to_s)
        if clients is None or len(clients) > MANY:
            idle.set_reason(~openings.online(), WINDOW)
            return
        idle.follow(clients, openings.counts, WINDOW)


class _Outages:
    """Follows windows, and the outages of groups."""

    def __init__(self, times: Interrupted, windows: Availability, idle: IdleSet) -> None:
        self._windows, self._idle, self._lines = _Windows(windows, idle), idle, times.lines
        order = np.argsort(times.group, kind="stable")
        bounds = np.searchsorted(times.group[order], np.arange(len(times.lines) + 1))
        self._members = [order[begin:end] for begin, end in pairwise(bounds.tolist())]
        self._turns_s = [-math.inf] * len(times.lines)
        self._next_s = self._asked_s = -math.inf

    def advance(self, to_s: float) -> None:
        """Let windows open and close, and groups go down and come up."""
        self._windows.advance(to_s)
        if to_s < self._asked_s:
            self._turns_s = [-math.inf] * len(self._lines)
            self._next_s = -math.inf
        self._asked_s = to_s
        if to_s < self._next_s:
            return
        for place, line in enumerate(self._lines):
            if self._turns_s[place] <= to_s:
                self._turns_s[place] = self._turn(line, self._members[place], to_s)
        self._next_s = min(self._turns_s, default=math.inf)

    def _turn(self, line: Line, members: Ints, now_s: float) -> float:
        """Have a group as it is now; returns when it turns next."""
        up_s, until_s = line.stretch(now_s)
        if up_s <= now_s:
            self._idle.drop_reasons(members, OUTAGE)
            return until_s
        self._idle.add_reasons(members, OUTAGE)
        return up_s


class _Devices:
    """Follows devices whose batteries and heat are followed: they tell who has changed."""

    def __init__(self, devices: Watched, idle: IdleSet) -> None:
        self._devices, self._idle = devices, idle
        idle.set_reason(~devices.present(), WINDOW)

    def advance(self, to_s: float) -> None:
        """Let devices go offline and come online."""
        for client, online in self._devices.changes(to_s):
            if online:
                self._idle.drop_reason(client, WINDOW)
            else:
                self._idle.add_reason(client, WINDOW)
