"""The engine before it counted clients and foresaw visits: everybody is looked at, and every visit is a process."""

from __future__ import annotations

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import yaml

import hetero_profiles
from fedsim.devices.availability import BLOCK, Availability
from fedsim.devices.charging import _sessions
from fedsim.instants import Instant, tie_s
from fedsim.protocols.buffered import Buffered
from fedsim.server import idle_clients
from fedsim.server.requests import Desk


class SlowRoster:
    """Who is idle and online, worked out anew for all clients whenever it is asked for."""

    def __init__(self, availability):
        self.availability = availability
        self._busy = np.zeros(availability.n, dtype=np.bool_)
        self._excluded = np.zeros(availability.n, dtype=np.bool_)

    def idle(self, now_s):
        free = ~(self._busy | self._excluded)
        if not self.availability.constant:
            free &= self.availability.online(now_s + tie_s(now_s))
        return np.flatnonzero(free)

    def reserve(self, clients):
        self._busy[clients] = True

    def release(self, client):
        self._busy[client] = False

    def exclude(self, client):
        self._excluded[client] = True

    def able(self, among=None):
        return int((~self._excluded if among is None else ~self._excluded[among]).sum())

    @property
    def excluded(self):
        return int(self._excluded.sum())

    @property
    def busy(self):
        return int(self._busy.sum())


class Listed:
    """A request's clients as an array, whatever the roster."""

    def __init__(self, roster):
        self.roster = roster

    def look(self, now_s):
        return ListedIdle(self.roster.idle(now_s), self.roster)

    def __getattr__(self, name):
        return getattr(self.roster, name)


class ListedIdle:
    """The idle clients of one service of the desk, those who are chosen taken out one request after the other."""

    def __init__(self, idle, roster):
        self.idle, self.roster = idle, roster

    def left(self):
        return self.idle[~self.roster._busy[self.idle]]

    def __len__(self):
        return len(self.left())

    def those_of(self, clients):
        return np.intersect1d(self.left(), clients, assume_unique=True)


def sorted_buffer(protocol, server):
    """FedBuff that looks at its whole buffer and sorts it at every landing."""
    waiting = []

    def slot():
        while True:
            (client,) = yield from server.sample(1)
            visit = server.dispatch(client)
            yield visit.process
            if visit.outcome == "landed":
                waiting.append(visit)
                if protocol.once_per_buffer:
                    server.hold(client)
                yield server.turn(Instant.COMMIT)
                empty()

    def empty():
        while True:
            fresh = server.fresh(waiting, protocol.max_staleness)
            left = [visit for visit in waiting if visit.outcome != "landed"]
            waiting[:] = sorted(fresh, key=lambda v: (v.landed_s, v.order))
            full = waiting[: protocol.buffer] if len(waiting) >= protocol.buffer else []
            del waiting[: len(full)]
            if full:
                server.commit(full)
            if protocol.once_per_buffer and (left or full):
                server.free([visit.client for visit in [*left, *full]])
            if not full:
                return

    yield server.all_of([server.process(slot()) for _ in range(protocol.concurrency)])


def _chosen(desk, request, fit, now_s):
    idle = fit.left() if isinstance(fit, ListedIdle) else fit
    return CHOSEN(desk, request, idle, now_s)


CHOSEN = Desk._chosen


@contextmanager
def slow_engine():
    """Have runs that begin meanwhile look at everybody, and make a process of every visit."""
    with (
        patch.object(idle_clients, "agenda_of", lambda *_: None),
        patch.object(idle_clients, "Roster", lambda availability: Listed(SlowRoster(availability))),
        patch.object(Desk, "_chosen", _chosen),
        patch.object(Buffered, "run", sorted_buffer),
    ):
        yield


def whole_charging(n, seed, days):
    """Charging windows of all clients put in their normal form at once."""
    figures = yaml.safe_load(hetero_profiles.locate("charging.yaml").read_text("utf-8"))
    period_s = days * 86_400.0
    blocks = [_sessions(figures, seed, block, days) for block in range(-(-n // BLOCK))]
    owner = np.concatenate([block * BLOCK + parts[0] for block, parts in enumerate(blocks)])
    start_s, length_s = (np.concatenate([parts[k] for parts in blocks]) for k in (1, 2))
    mine = owner < n
    start_s = np.mod(start_s[mine], period_s)
    gap_s = figures["merge_gap_s"]
    return Availability.from_windows(
        owner[mine], start_s, start_s + length_s[mine], n=n, period_s=period_s, gap_s=gap_s
    )


def whole_shift(times, shift_s):
    """The same windows, those of each client later by its own shift, all at once."""
    owner = np.repeat(np.arange(times.n), np.diff(times.offsets))
    start_s = np.mod(times.starts_s + shift_s[owner], times.period_s)
    stop_s = start_s + (times.stops_s - times.starts_s)
    return Availability.from_windows(owner, start_s, stop_s, n=times.n, period_s=times.period_s)


def whole_share(times):
    """Each client's share of time online, all at once; of windows that repeat."""
    owner = np.repeat(np.arange(times.n), np.diff(times.offsets))
    return np.bincount(owner, weights=times.stops_s - times.starts_s, minlength=times.n) / times.period_s
