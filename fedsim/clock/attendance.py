"""Whose device is there now, and the events of one that goes away and comes back.

`Windowed` knows windows and outages, which are functions of time alone. `Watched` also follows batteries and
heat, which depend on what our own work has done to a device. Every client has one *next turn*, solved in
closed form: when it goes away if it is there, when it comes if it is away. A heap holds these turns; those of
idle clients happen when somebody looks, those of working ones are on the clock: O(log n) a turn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fedsim.devices.availability import There
from fedsim.devices.compute import Training
from fedsim.devices.population import Population
from fedsim.instants import At, Instant

if TYPE_CHECKING:
    from simpy import Environment, Event

Cause = Literal["window", "outage", "battery", "heat"]
"""Why a device is away."""
CAUSES: tuple[Cause, ...] = ("window", "outage", "battery", "heat")


class Attendance(There, Protocol):
    """What a visit and the roster ask of the devices."""

    def goes_offline(self, client: int) -> Event:
        """Return the event that the device goes away; it has happened if the device is away."""
        ...

    def online_again(self, client: int) -> Event | None:
        """Return the event that a device which has gone away is back; None if it will never be."""
        ...

    def why_offline(self, client: int) -> Cause:
        """Return why the device that has gone away is away."""
        ...

    def begin_load(self, client: int, watts: float = 0.0, training: Training | None = None) -> None:
        """Our work begins to draw so much above idle, or to train."""
        ...

    def follows_battery(self, client: int) -> bool:
        """Return whether the device has a battery that is followed: then `end_load` needs the joules."""
        ...

    def end_load(self, client: int, used_j: float, *, over: bool = False) -> None:
        """Our work draws nothing more for now; the visit has used so much above idle until now.

        What its powers do not account for (a price a byte, a radio's tail) is taken from the battery at once.

        Args:
            client: whose device.
            used_j: joules of the whole visit so far; anything where no battery is followed.
            over: whether the visit has ended.
        """
        ...

    def battery_level(self, client: int, now_s: float) -> float:
        """Return what share of the battery is there, if nothing changes until `now_s`; NaN without one."""
        ...

    def facts(self, now_s: float) -> dict[str, Any]:
        """Return what is known of all devices until now, for the record of a run; empty if none is watched."""
        ...


class Windowed:
    """Clients that are there by windows and outages alone."""

    def __init__(self, env: Environment, population: Population) -> None:
        """Take the clock and the clients."""
        self._env, self._there = env, population.availability
        self._closing: dict[int, tuple[float, Event]] = {}
        self.n, self.constant = self._there.n, self._there.constant
        self.online, self.next_start_s = self._there.online, self._there.next_start_s
        self.share = self._there.share

    def goes_offline(self, client: int) -> Event:
        """Return the end of the client's window: one event for all of its visits in that window."""
        _, until_s = self._there.window(client, self._env.now)
        known = self._closing.get(client)
        if known is not None and known[0] == until_s:
            return known[1]
        finite = math.isfinite(until_s)
        env = self._env
        event = At(env, until_s - env.now, Instant.OFFLINE) if finite else env.event()
        self._closing[client] = (until_s, event)
        return event

    def online_again(self, client: int) -> Event | None:
        """Return the start of the client's next window (it may come a rounding early, which changes nothing)."""
        start_s, _ = self._there.window(client, self._gone_s(client))
        if math.isinf(start_s):
            return None
        return At(self._env, start_s - self._env.now, Instant.LANDING)

    def _gone_s(self, client: int) -> float:
        """Return when the client went away: the clock may be a rounding short of it."""
        return max(self._closing[client][0], float(self._env.now))

    def why_offline(self, client: int) -> Cause:
        """Return why the client is away."""
        return self._there.reason(client, self._gone_s(client))

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

    def facts(self, now_s: float) -> dict[str, Any]:
        """Return nothing."""
        return {}
