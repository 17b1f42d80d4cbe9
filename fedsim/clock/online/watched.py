"""Who is online where batteries and heat decide: each device's next transition is solved, not looked for.

Every client has one next transition: when it goes offline if it is online, when it is online again if it is not. They
are kept in their order; those of idle clients happen when somebody looks, those of working ones are on the clock: O(log n) a
transition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsim.clock.online.alarms import Alarms
from fedsim.clock.online.device import Transition, WatchedDevice
from fedsim.clock.online.facts import balance_of, offline_shares, stored_j
from fedsim.devices.availability import WhoIsOnline
from fedsim.devices.compute import Training
from fedsim.instants import At, Instant
from fedsim.records.info import Batteries
from fedsim.records.rows import CAUSES, Cause

if TYPE_CHECKING:
    from simpy import Environment, Event


class Watched:
    """Clients whose batteries and heat are followed.

    Who asks for a time makes everybody live until then: `online`, `next_start_s` and `facts` first let all transitions
    happen that are due, each at its own time, and these trigger the events that visits wait for. A server that looks
    who is online may thus wake a visit. That is the instant at which the visit's own alarm would have woken it, but
    for a rounding, and the alarm then finds another stamp and does nothing.
    """

    constant = False

    def __init__(self, env: Environment, windows: WhoIsOnline, devices: Sequence[WatchedDevice]) -> None:
        """Take the clock and the clients, and work out everybody's first transition.

        Args:
            env: the clock.
            windows: when owners and outages let the clients be online.
            devices: of all clients, by client.
        """
        self._env, self._devices = env, devices
        self.n, self.share = len(devices), windows.share
        self._stored_at_start_j = stored_j(devices)
        self._online = np.ones(self.n, dtype=np.bool_)
        self._changed: set[int] = set()
        self._offline_s: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
        self._alarms = Alarms(self.n)
        for client in range(self.n):
            self._schedule_next(client)

    # who is online ------------------------------------------------------------------------------

    def online(self, now_s: float) -> NDArray[np.bool_]:
        """Return who is online now, (n,)."""
        self._advance_to(now_s)
        return self._online.copy()

    def present(self) -> NDArray[np.bool_]:
        """Return who is online as of now, (n,), and begin to note who changes; no time goes on."""
        self._changed.clear()
        return self._online.copy()

    def changes(self, now_s: float) -> list[tuple[int, bool]]:
        """Return who has gone offline or come online until now, and whether each is online, since it was last asked."""
        self._advance_to(now_s)
        if not self._changed:
            return []
        clients = sorted(self._changed)
        self._changed.clear()
        return [(client, self._online.item(client)) for client in clients]

    def is_online(self, client: int, now_s: float) -> bool:
        """Return whether a client is online now."""
        self._advance_to(now_s)
        return bool(self._online[client])

    def next_start_s(self, now_s: float) -> float:
        """Return the next transition of anybody, before which nobody is online again; inf if there is none."""
        self._advance_to(now_s)
        alarm = self._alarms.first()
        return math.inf if alarm is None else alarm[0]

    def facts(self, now_s: float) -> tuple[dict[Cause, float], Batteries | None]:
        """Return why devices were offline, as shares of their time, and what the batteries took and gave."""
        self._advance_to(now_s)
        shares = offline_shares(self._devices, self._offline_s, now_s)
        return shares, balance_of(self._devices, self._stored_at_start_j, now_s)

    def _advance_to(self, now_s: float) -> None:
        """Let everybody's transitions happen until now, each at its own time."""
        alarms = self._alarms
        while (alarm := alarms.first()) is not None:
            at_s, stamp, client = alarm
            if at_s > now_s and alarms.stamps[client] == stamp:
                return
            alarms.pop()
            self._on_alarm(client, stamp, at_s)

    # what a visit asks and does -----------------------------------------------------------------

    def goes_offline(self, client: int) -> Event:
        """Return the event that the device goes offline; it has happened if the device is offline."""
        device = self._devices[client]
        device.went_offline = event = self._env.event()
        if device.online:
            self._set_alarm(client)
        else:
            event.succeed()
        return event

    def online_again(self, client: int, *, to_train: bool = True) -> Event | None:
        """Return the event that the device is online again; None if no window will open any more."""
        device = self._devices[client]
        if device.waits_to_cool != to_train:
            device.waits_to_cool = to_train
            self._schedule_next(client)
        if not device.online and math.isinf(device.transition.at_s):
            return None
        device.came_online = event = self._env.event()
        if device.online:
            event.succeed()
        else:
            self._set_alarm(client)
        return event

    def why_offline(self, client: int) -> Cause:
        """Return why the device went offline last."""
        return self._devices[client].cause

    def begin_load(self, client: int, watts: float = 0.0, training: Training | None = None) -> None:
        """Our work begins to draw so much above idle [W], or to train."""
        self._devices[client].begin_load(float(self._env.now), watts, training)
        self._schedule_next(client)

    def follows_battery(self, client: int) -> bool:
        """Return whether the device has a battery."""
        return self._devices[client].charge is not None

    def end_load(self, client: int, used_j: float, *, over: bool = False) -> None:
        """Our work draws nothing more for now; the visit has used so much above idle until now [J]."""
        self._devices[client].end_load(float(self._env.now), used_j, over=over)
        self._schedule_next(client)

    def battery_level(self, client: int, now_s: float) -> float:
        """Return what share of the battery is there, if nothing changes until `now_s`; NaN without one."""
        return self._devices[client].level(now_s)

    # transitions --------------------------------------------------------------------------------

    def _schedule_next(self, client: int) -> None:
        """Work out a device's next transition; what is due already happens at once."""
        device = self._devices[client]
        while (transition := device.next_transition()).at_s <= device.time_s:
            self._apply(client, transition)
            if _stops_training(device, transition):
                return
        device.transition = transition
        self._alarms.stamps[client] += 1
        if transition.at_s < math.inf:
            self._alarms.set(client, transition.at_s)
        if device.went_offline is not None:
            self._set_alarm(client)

    def _set_alarm(self, client: int) -> None:
        """Put the next transition of a working client on the clock."""
        device = self._devices[client]
        at_s, stamp = device.transition.at_s, self._alarms.stamps[client]
        if at_s < math.inf:
            place = Instant.LANDING if device.transition.kind == "online" else Instant.OFFLINE
            alarm = At(self._env, at_s - self._env.now, place)
            alarm.callbacks.append(lambda _: self._on_alarm(client, stamp, at_s))

    def _on_alarm(self, client: int, stamp: int, at_s: float) -> None:
        """A transition is due, unless another has taken its place."""
        if self._alarms.stamps[client] != stamp:
            return
        device = self._devices[client]
        device.settle(at_s)
        self._alarms.stamps[client] += 1
        self._apply(client, device.transition)
        if not _stops_training(device, device.transition):
            self._schedule_next(client)

    def _apply(self, client: int, transition: Transition) -> None:
        """The device goes offline, or is online again."""
        device = self._devices[client]
        if transition.kind == "look":
            return
        if transition.kind == "online":
            self._offline_s[device.cause] += device.time_s - device.offline_since_s
            device.come_online()
        else:
            device.go_offline(transition.kind)
        self._online[client] = device.online
        self._changed.add(client)


def _stops_training(device: WatchedDevice, transition: Transition) -> bool:
    """Return whether heat stops a training: how warm it is, and so what comes next, is known at `end_load`."""
    return transition.kind == "heat" and device.working
