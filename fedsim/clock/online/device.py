"""One device whose battery and heat are followed: its state, and its next transition, solved in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from operator import attrgetter
from typing import Literal, NamedTuple, get_args

from simpy import Event

from fedsim.clock.device_training import Machines
from fedsim.devices.availability import OnlineTimes
from fedsim.devices.battery import NOTHING, Charge, Draw, Supply
from fedsim.devices.compute import Training
from fedsim.devices.population import Profile
from fedsim.records.rows import Cause

LOOK_S = 86_400.0
"""How far ahead a transition of a battery is looked for; if there is none, one looks again then."""
SOON_S = 1e-3
"""A device that is cool enough within this time is cool."""


Kind = Cause | Literal["online", "look"]
"""Why a device goes offline, or `online`: it is online again, or `look`: nothing is known beyond this time."""
KINDS: tuple[Kind, ...] = (*get_args(Cause), "online", "look")


class Transition(NamedTuple):
    """What a device does next.

    Attributes:
        at_s: when; inf: never.
        kind: of what.
    """

    at_s: float
    kind: Kind


_AT_S = attrgetter("at_s")


class WatchedDevice:
    """One client's device, and its next transition.

    Attributes:
        profile: what it is.
        charge: its battery as of `time_s`; None: on the mains.
        supply: what feeds and drains it besides our work.
        time_s: of its last transition or change of work.
        draw: what our work draws.
        working: whether it is in a visit.
        waits_to_cool: whether a device that is too warm is offline until it has cooled: it is, but for one whose visit
            has trained and only has to upload.
        hot_s: when heat will stop the training under way.
        online: whether it is online.
        cause, offline_since_s: why and when it went offline last.
        transition: its next transition.
        went_offline, came_online: events that a visit waits for.
    """

    __slots__ = (
        *("_heat_gates", "_machines", "_windows", "came_online", "cause", "charge", "draw", "hot_s"),
        *("offline_since_s", "online", "profile", "supply", "time_s", "transition"),
        *("waits_to_cool", "went_offline", "working"),
    )

    def __init__(
        self,
        profile: Profile,
        windows: OnlineTimes,
        machines: Machines,
        *,
        battery: tuple[Charge, Supply] | None = None,
        heat_gates: bool = False,
    ) -> None:
        """Take a device at rest, at the start of a run.

        Args:
            profile: what it is.
            windows: when its owner and outages let it be online.
            machines: how warm it is.
            battery: what it holds, and what feeds and drains it besides our work; None: it is on the mains.
            heat_gates: whether heat may keep it offline.
        """
        self.profile, self._windows, self._machines = profile, windows, machines
        self.charge: Charge | None = None
        self.supply: Supply | None = None
        if battery is not None:
            self.charge, self.supply = battery
        self._heat_gates = heat_gates
        self.draw: Draw = NOTHING
        self.time_s, self.offline_since_s, self.hot_s = 0.0, 0.0, math.inf
        self.online, self.working, self.waits_to_cool = True, False, True
        self.cause: Cause = "window"
        self.transition = Transition(math.inf, "look")
        self.went_offline: Event | None = None
        self.came_online: Event | None = None

    @property
    def rests(self) -> bool:
        """Whether nothing is known of it but its state: it is in no visit, and nobody waits for it."""
        waited_for = self.went_offline is not None or self.came_online is not None
        return self.waits_to_cool and not self.working and not waited_for and self.draw is NOTHING

    def settle(self, now_s: float) -> None:
        """Let it catch up with the clock; transitions are exact, the clock may be a rounding behind them."""
        self.time_s = max(self.time_s, now_s)
        if self.charge is not None and self.supply is not None:
            self.charge = self.charge.until(self.time_s, self.supply, self.draw)

    def begin_load(self, now_s: float, watts: float, training: Training | None) -> None:
        """Our work begins to draw so much above idle [W], or to train."""
        self.settle(now_s)
        self.working, self.hot_s = True, math.inf
        powers: tuple[tuple[float, float], ...] = ((math.inf, watts),)
        if training is not None:
            powers = tuple((seconds, w - self.profile.idle_w) for seconds, w in training.powers)
            if training.stops_s < training.duration_s:
                self.hot_s = self.time_s + training.stops_s
        self.draw = Draw.of(self.time_s, powers)

    def end_load(self, now_s: float, used_j: float, *, over: bool) -> None:
        """Our work draws nothing more for now; the visit has used so much above idle until now [J]."""
        self.settle(now_s)
        self.draw, self.hot_s, self.working = NOTHING, math.inf, not over
        if self.charge is not None:
            charge = self.charge.spend(max(0.0, used_j - self.charge.worked_j))
            self.charge = replace(charge, worked_j=0.0) if over else charge
        if over:
            self.went_offline = self.came_online = None
            self.waits_to_cool = True

    def level(self, now_s: float) -> float:
        """Return what share of the battery is there, if nothing changes until `now_s`; NaN without one."""
        if self.charge is None or self.supply is None:
            return math.nan
        return self.charge.until(now_s, self.supply, self.draw).battery.level

    def go_offline(self, cause: Cause) -> None:
        """It goes offline now."""
        self.online, self.cause, self.offline_since_s = False, cause, self.time_s
        if cause == "battery":
            self._set_low(low=True)
        _succeed(self.went_offline)

    def come_online(self) -> None:
        """It is online again."""
        self.online = True
        self._set_low(low=False)
        _succeed(self.came_online)

    def _set_low(self, *, low: bool) -> None:
        """The battery has just turned, to the bit, whatever rounding says."""
        if self.charge is not None:
            self.charge = replace(self.charge, low=low)

    # its next transition ------------------------------------------------------------------------

    def next_transition(self) -> Transition:
        """Return what it does next if its work goes on as now; what it should have done already is at `time_s`."""
        return self._next_departure() if self.online else self._next_arrival()

    def _next_departure(self) -> Transition:
        """Return when it goes offline, and why.

        Of transitions at the same time the first in this order is taken: look again, window or outage, heat, battery.
        """
        client, now_s = self.profile.client, self.time_s
        opens_s, closes_s = self._windows.window(client, now_s)
        cause = self._cause_now(opens_s)
        if cause is not None:
            return Transition(now_s, cause)
        closing = Transition(closes_s, "window")
        transitions = [closing, Transition(self.hot_s, "heat")]
        if self.charge is not None and self.supply is not None:
            look = Transition(now_s + LOOK_S, "look")
            first_s = min(look.at_s, closes_s, self.hot_s)
            low = Transition(self.charge.turns_s(first_s, self.supply, self.draw), "battery")
            transitions = [look, *transitions, low]
        first = min(transitions, key=_AT_S)
        if first is closing and closes_s < math.inf:
            return Transition(closes_s, self._windows.reason(client, closes_s))
        return first

    def _cause_now(self, opens_s: float) -> Cause | None:
        """Return what keeps it offline now, its window being open from `opens_s`; None: nothing does."""
        if self.charge is not None and self.charge.low:
            return "battery"
        if not self.working and self._cool_s() > 0:
            return "heat"
        if opens_s > self.time_s:
            return self._windows.reason(self.profile.client, self.time_s)
        return None

    def _next_arrival(self) -> Transition:
        """Return when it is online again: its window open, its battery recovered, and cool."""
        look = Transition(self.time_s + LOOK_S, "look")
        at_s, charge = self.time_s + self._cool_s(), self.charge
        while True:
            opens_s, _ = self._windows.window(self.profile.client, at_s)
            at_s = max(at_s, opens_s)
            if charge is None or self.supply is None or math.isinf(at_s):
                return Transition(at_s, "online")
            if at_s > look.at_s:
                return look
            charge = charge.until(at_s, self.supply)
            if not charge.low:
                return Transition(at_s, "online")
            at_s = charge.turns_s(look.at_s, self.supply)
            if math.isinf(at_s):
                return look

    def _cool_s(self) -> float:
        """Return how long until a device that rests is cool enough; less than a millisecond is nothing."""
        if not (self._heat_gates and self.waits_to_cool):
            return 0.0
        cool_s = self._machines.cool_s(self.profile, self.time_s)
        return cool_s if cool_s > SOON_S else 0.0


def _succeed(event: Event | None) -> None:
    if event is not None and not event.triggered:
        event.succeed()
