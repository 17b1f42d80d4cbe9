"""Visits whose whole course is known when they begin: private links of constant rate, and windows alone decide who is online.

Such a visit needs no process and no event but that of its end. Its phases come at the same times, to the bit, as those of
`fedsim.clock.visit.Visit._course`, which goes through them one by one; and of visits that end in the same instant that is
first whose process would have come first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

import simpy

from fedsim.clock.device_training import Machines
from fedsim.clock.online.attendance import Closure, Windowed
from fedsim.cost.work import Work
from fedsim.devices.compute import Training
from fedsim.devices.population import Profile
from fedsim.instants import Clock, Due, Instant, in_time
from fedsim.network.base import Network
from fedsim.network.build import Foresight, foresight_of
from fedsim.network.private import KnownTransfer

SMALLEST_REFUSAL_S = 1e-3
"""A refusal takes at least this long, or a server that asks again at once would stop time."""

End = Literal["landed", "memory", "offline"]
"""How a visit ends that nobody stops."""
Place = tuple[float, float, float]
"""The place of a visit's end among all in its instant: one of the numbers below, then what has come first there."""
_End = tuple[float, Place, int, Callable[[], None]]
_AT_CLOSURE, _REFUSED, _LANDED, _AFTER_CLOSURE = 0.0, 0.0, 1.0, 2.0
"""A landing takes one event more than a refusal, and a loss to a window that was over before the phase began yet more."""


@dataclass(slots=True)
class Course:
    """How a visit goes if nobody stops it; times of phases that it does not get to are where they would end, or inf.

    Attributes:
        down, up: its transfers.
        dispatched_s, downloaded_s, trained_s, landed_s: when its phases end [virtual s].
        training: on its device; None: it is refused.
        end, ended_s: how and when it ends.
        place: of its end among all that happens in that instant.
    """

    dispatched_s: float
    down: KnownTransfer
    downloaded_s: float
    training: Training | None = None
    trained_s: float = math.inf
    up: KnownTransfer | None = None
    landed_s: float = math.inf
    end: End = "offline"
    ended_s: float = math.inf
    place: Place = (0.0, 0.0, 0.0)

    def finish(self, end: End, at_s: float, place: Place) -> None:
        """Note how, when and in which place it ends."""
        self.end, self.ended_s, self.place = end, at_s, place

    def lose(self, closure: Closure, begun_s: float) -> None:
        """Note that its device goes offline in the phase that begins then, or has gone by then."""
        if closure.at_s >= begun_s:
            self.finish("offline", closure.at_s, (_AT_CLOSURE, float(closure.order), 0.0))
        else:
            self.finish("offline", begun_s, (_AFTER_CLOSURE, begun_s, 0.0))

    def is_lost(self, closure: Closure, begun_s: float, due_s: float) -> bool:
        """Tell whether its device goes offline in a phase, and note its end then."""
        if due_s <= closure.at_s or in_time(due_s, max(closure.at_s, begun_s)):
            return False
        self.lose(closure, begun_s)
        return True

    def lands_s(self, now_s: float, *, uploads: bool) -> float:
        """Return when its update lands if nothing happens on the way [virtual s]; inf: it is not at its last phase."""
        if self.trained_s <= now_s:
            return self.landed_s
        return self.trained_s if self.downloaded_s <= now_s and not uploads else math.inf

    def at_words(self, now_s: float) -> str:
        """Return what it is at, in a word."""
        if self.trained_s <= now_s:
            return "upload"
        return "training" if self.downloaded_s <= now_s and self.training is not None else "download"

    def left_bytes(self, now_s: float) -> tuple[int, int]:
        """Return the payload that has left the sender by now, down and up, of transfers that are not over."""
        down = 0 if self.downloaded_s <= now_s else self.down.sent_bytes(now_s - self.dispatched_s)
        up = self.up is not None and self.trained_s <= now_s
        return down, self.up.sent_bytes(now_s - self.trained_s) if up and self.up is not None else 0


class Agenda:
    """The ends of visits that are known, on the clock."""

    def __init__(self, clock: Clock, windows: Windowed, links: Foresight, machines: Machines) -> None:
        """Take what the visits' courses follow from."""
        self._clock, self._windows, self._links, self._machines = clock, windows, links, machines
        self._landings: list[_End] = []
        self._closures: list[_End] = []

    def note(self, course: Course, order: int, act: Callable[[], None]) -> None:
        """Have `act` called when a visit of this number ends."""
        entry = (course.ended_s, course.place, order, act)
        if course.end == "offline" and course.place[0] == _AT_CLOSURE:
            heappush(self._closures, entry)
            Due(self._clock, Instant.OFFLINE, course.ended_s, self._close)
        else:
            heappush(self._landings, entry)
            Due(self._clock, Instant.LANDING, course.ended_s, self._land)

    def _land(self, _event: simpy.Event) -> None:
        heappop(self._landings)[-1]()

    def _close(self, _event: simpy.Event) -> None:
        heappop(self._closures)[-1]()

    def course(self, profile: Profile, work: Work, visit: int, now_s: float, *, waits: bool) -> Course | None:
        """Return how a visit will go that begins now.

        Args:
            profile: the device and its link.
            work: what is to be done.
            visit: number of the client's visit.
            now_s: the time now.
            waits: whether it goes on in some way if its device goes offline: then that is not known, and None.
        """
        if waits:
            self._windows.goes_offline(profile.client)  # a process may need that event, as it would be now
        closure = self._windows.closure(profile.client)
        down = self._links["down"].foreseen("down", profile, work.down_bytes)
        course = Course(now_s, down, now_s + down.seconds)
        closes_s = closure.at_s
        if course.downloaded_s > closes_s and course.is_lost(closure, now_s, course.downloaded_s):
            return None if waits else course
        if work.memory_bytes > profile.usable_memory_bytes:
            refusal_s = course.downloaded_s + max(profile.rtt_s / 2, SMALLEST_REFUSAL_S)
            if refusal_s > closes_s:
                course.lose(closure, course.downloaded_s)
            else:
                course.finish("memory", refusal_s, (_REFUSED, course.downloaded_s, 0.0))
            return course
        course.training = self._machines.begin_training(profile, work, visit, course.downloaded_s)
        course.trained_s = course.downloaded_s + course.training.duration_s
        if course.trained_s > closes_s and course.is_lost(closure, course.downloaded_s, course.trained_s):
            return None if waits else course
        course.up = self._links["up"].foreseen("up", profile, work.up_bytes)
        course.landed_s = course.trained_s + course.up.seconds
        if course.landed_s > closes_s and course.is_lost(closure, course.trained_s, course.landed_s):
            return None if waits else course
        course.finish("landed", course.landed_s, (_LANDED, course.trained_s, course.downloaded_s))
        return course


def agenda_of(
    env: simpy.Environment, attendance: object, network: Network, machines: Machines
) -> Agenda | None:
    """Return where known visits are noted; None: how a visit will go is never known when it begins."""
    links = foresight_of(network)
    if links is None or not isinstance(env, Clock) or not isinstance(attendance, Windowed):
        return None
    return Agenda(env, attendance, links, machines)
