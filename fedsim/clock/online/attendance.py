"""What a visit and the roster ask of the clients' devices, and the answers where windows alone decide.

`Windowed` knows windows and outages, which are functions of time alone. `fedsim.clock.online.watched` also follows
batteries and heat, which depend on what our own work has done to a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedsim.devices.availability import OnlineTimes, WhoIsOnline
from fedsim.devices.compute import Training
from fedsim.devices.population import Population
from fedsim.instants import At, Clock, Due, Instant, in_time
from fedsim.records.info import Batteries
from fedsim.records.rows import Cause

if TYPE_CHECKING:
    from simpy import Environment, Event


class Attendance(WhoIsOnline, Protocol):
    """What a visit and the roster ask of the devices.

    `online` and `next_start_s` are questions for which time goes on: what was due by then has happened when they
    are answered, and events of the clock may have been triggered.
    """

    def is_online(self, client: int, now_s: float) -> bool:
        """Return whether a client is online now; as for `online`, time goes on until then."""
        ...

    def goes_offline(self, client: int) -> Event:
        """Return the event that the device goes offline; it has happened if the device is offline."""
        ...

    def online_again(self, client: int, *, to_train: bool = True) -> Event | None:
        """Return the event that the device is online again, at once if it is online; None if it will never be.

        Heat stops trainings alone: a device that is not wanted for one (`to_train`) need not cool down.
        """
        ...

    def why_offline(self, client: int) -> Cause:
        """Return why the device that has gone offline is offline."""
        ...

    def begin_load(self, client: int, watts: float = 0.0, training: Training | None = None) -> None:
        """Our work begins to draw so much above idle [W], or to train."""
        ...

    def follows_battery(self, client: int) -> bool:
        """Return whether the device has a battery that is followed: then `end_load` needs the joules."""
        ...

    def end_load(self, client: int, used_j: float, *, over: bool = False) -> None:
        """Our work draws nothing more for now; the visit has used so much above idle until now.

        What its powers do not account for (a price a byte, a radio's tail) is taken from the battery at once.

        Args:
            client: whose device.
            used_j: joules of the whole visit so far; not read where no battery is followed.
            over: whether the visit has ended.
        """
        ...

    def battery_level(self, client: int, now_s: float) -> float:
        """Return what share of the battery is there, if nothing changes until `now_s`; NaN without one."""
        ...

    def facts(self, now_s: float) -> tuple[dict[Cause, float] | None, Batteries | None]:
        """Return why devices were offline until now, as shares of their time, and what their batteries took and gave.

        None of what is not watched.
        """
        ...


MOST_CLOSURES, FORGOTTEN_S = 10_000, 1.0
"""Ends of windows that are remembered in any case, and how long they are after that [s]: the clock may be a rounding behind."""


@dataclass(slots=True)
class Closure:
    """The end of a window in which a client has been asked.

    Attributes:
        until_s: the end of the window [virtual s].
        at_s: the clock's time at which it ends.
        order: its place among all that were noted.
        event: happens then; None: nobody waits for it.
    """

    until_s: float
    at_s: float
    order: int
    event: Event | None = None


class Windowed:
    """Clients that are online by windows and outages alone."""

    def __init__(self, env: Environment, population: Population) -> None:
        """Take the clock and the clients."""
        self._env, self._windows = env, population.availability
        self._closures, self._most_closures = 0, MOST_CLOSURES
        self._closing: dict[int, Closure] = {}
        self.n, self.constant = self._windows.n, self._windows.constant
        self.online, self.next_start_s = self._windows.online, self._windows.next_start_s
        self.share = self._windows.share

    @property
    def windows(self) -> OnlineTimes:
        """When owners and outages let the clients be online."""
        return self._windows

    def is_online(self, client: int, now_s: float) -> bool:
        """Return whether a client is online now."""
        return self._windows.window(client, now_s)[0] <= now_s

    def goes_offline(self, client: int) -> Event:
        """Return the end of the client's window: one event for all of its visits in that window."""
        closure, env = self.closure(client), self._env
        if closure.event is None and math.isinf(closure.until_s):
            closure.event = env.event()
        elif closure.event is None and isinstance(env, Clock):
            closure.event = Due(env, Instant.OFFLINE, closure.at_s)
        elif closure.event is None:
            closure.event = At(env, closure.until_s - env.now, Instant.OFFLINE)
        return closure.event

    def closure(self, client: int) -> Closure:
        """Return the end of the client's window: one for all of its visits in that window."""
        now_s = float(self._env.now)
        start_s, until_s = self._windows.window(client, now_s)
        if not in_time(start_s, now_s):  # it is offline: its window is over
            until_s = now_s
        closure = self._closing.get(client)
        if closure is None or closure.until_s != until_s:
            at_s = now_s + max(0.0, until_s - now_s)  # where the clock will be: a rounding away from it
            self._closing[client] = closure = Closure(until_s, at_s, self._closures)
            self._closures += 1
            if len(self._closing) > self._most_closures:
                self._forget(now_s - FORGOTTEN_S)
        return closure

    def _forget(self, before_s: float) -> None:
        """Forget windows that are long over; half as many have to come again before this is done again."""
        self._closing = {client: c for client, c in self._closing.items() if c.until_s >= before_s}
        self._most_closures = max(MOST_CLOSURES, 2 * len(self._closing))

    def online_again(self, client: int, *, to_train: bool = True) -> Event | None:
        """Return the start of the client's next window (it may come a rounding early, which changes nothing)."""
        start_s, _ = self._windows.window(client, self._offline_since_s(client))
        if math.isinf(start_s):
            return None
        return At(self._env, start_s - self._env.now, Instant.LANDING)

    def _offline_since_s(self, client: int) -> float:
        """Return when the client went offline: the clock may be a rounding short of it."""
        now_s = float(self._env.now)
        return max(self._closing[client].until_s, now_s) if client in self._closing else now_s

    def why_offline(self, client: int) -> Cause:
        """Return why the client is offline."""
        return self._windows.reason(client, self._offline_since_s(client))

    def begin_load(self, client: int, watts: float = 0.0, training: Training | None = None) -> None:
        """Windows do not depend on work."""

    def follows_battery(self, client: int) -> bool:
        """Return False."""
        return False

    def end_load(self, client: int, used_j: float, *, over: bool = False) -> None:
        """Windows do not depend on work."""

    def battery_level(self, client: int, now_s: float) -> float:
        """Return NaN."""
        return math.nan

    def facts(self, now_s: float) -> tuple[None, None]:
        """Return nothing."""
        return None, None
