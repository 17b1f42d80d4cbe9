"""A device's battery over time: what charges it, what drains it, when its level crosses a limit; pure.

Powers are constant between the times at which a plug goes in or out, its user wakes or goes to sleep, or our
work begins or ends. The level is then a straight line, and every crossing is solved, not looked for. A device
is *low* from when its level falls to `stop_below` until it is back at `start_at`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from fedsim.config.fields import DAY_S
from fedsim.cost.energy import BatteryState
from fedsim.devices.availability import Availability


class Power(NamedTuple):
    """Powers until a time: what the device draws, and what the charger gives."""

    load_w: float
    charge_w: float
    until_s: float


@dataclass(frozen=True)
class Supply:
    """What feeds and drains one battery whatever we do, as a step function of time.

    Attributes:
        plugged: when the charger is in.
        client: whose windows of these.
        idle_w, use_w, charge_w: powers: at rest, of its user while awake, of the charger.
        awake: hours of local time.
        ahead_s: local time less virtual time.
    """

    plugged: Availability
    client: int
    idle_w: float
    use_w: float
    charge_w: float
    awake: tuple[float, float] = (9.0, 24.0)
    ahead_s: float = 0.0

    def at(self, now_s: float) -> Power:
        """Return the powers from `now_s` on, until a later time."""
        start_s, stop_s = self.plugged.window(self.client, now_s)
        plugged = start_s <= now_s
        awake, until_s = self._awake(now_s) if self.use_w else (False, math.inf)
        load_w = self.idle_w + (self.use_w if awake else 0.0)
        return Power(load_w, self.charge_w if plugged else 0.0, min(stop_s if plugged else start_s, until_s))

    def _awake(self, now_s: float) -> tuple[bool, float]:
        """Return whether the user is awake, and until when that is so."""
        wakes_s, sleeps_s = (3600.0 * hour for hour in self.awake)
        midnight_s = math.floor((now_s + self.ahead_s) / DAY_S) * DAY_S - self.ahead_s
        if now_s < midnight_s + wakes_s:
            return False, midnight_s + wakes_s
        if now_s < midnight_s + sleeps_s:
            return True, midnight_s + sleeps_s
        until_s = midnight_s + DAY_S + wakes_s
        return (False, until_s) if until_s > now_s else (True, until_s - wakes_s + sleeps_s)


@dataclass(frozen=True)
class Draw:
    """What our work draws on top, as powers one after the other, and nothing after the last.

    Attributes:
        steps: (until_s, watts above idle), ascending.
    """

    steps: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, begin_s: float, powers: tuple[tuple[float, float], ...]) -> Draw:
        """Return powers that hold for so many seconds each, from `begin_s` on."""
        steps, until_s = [], begin_s
        for seconds, watts in powers:
            until_s += seconds
            steps.append((until_s, watts))
        return cls(tuple(steps))

    def at(self, now_s: float) -> tuple[float, float]:
        """Return the power from `now_s` on, and until when."""
        for until_s, watts in self.steps:
            if now_s < until_s:
                return watts, until_s
        return 0.0, math.inf


NOTHING = Draw()


@dataclass(frozen=True)
class Charge:
    """A battery at a time, and the limits between which it hesitates; every change gives a new value.

    Attributes:
        time_s: when.
        battery: what it holds.
        low: whether it is low.
        start_at, stop_below: levels at which that changes.
        received_j, supplied_j: what has come from the charger and gone to the device; a full battery takes what
            the device draws, an empty one gives what the charger gives. received - supplied is the change.
        worked_j: what our work asked for, since this was last set to 0.
    """

    time_s: float
    battery: BatteryState
    low: bool
    start_at: float
    stop_below: float
    received_j: float = 0.0
    supplied_j: float = 0.0
    worked_j: float = 0.0

    def until(self, to_s: float, supply: Supply, draw: Draw = NOTHING) -> Charge:
        """Return it at a later time; it turns low and recovers on the way."""
        return self._walk(to_s, supply, draw, first=False)[0]

    def turns_s(self, to_s: float, supply: Supply, draw: Draw = NOTHING) -> float:
        """Return when it next turns low, or recovers if it is low; inf: not before `to_s`."""
        at, turned = self._walk(to_s, supply, draw, first=True)
        return at.time_s if turned else math.inf

    def spend(self, joules: float) -> Charge:
        """Return it after our work drew so much at once; a battery gives no more than it has."""
        battery = replace(self.battery, level=max(0.0, self.battery.level - joules / self.battery.capacity_j))
        gone_j = self.battery.stored_j - battery.stored_j
        return replace(
            self, battery=battery, supplied_j=self.supplied_j + gone_j, worked_j=self.worked_j + joules
        )

    def _walk(self, to_s: float, supply: Supply, draw: Draw, *, first: bool) -> tuple[Charge, bool]:
        """Return it at `to_s`, or where it first turns, and whether it turned; from one change of power to the next.

        Written out in plain numbers: a run asks for millions of these steps.
        """
        if self.time_s >= to_s:
            return self, False
        capacity_j, now_s, low, turned = self.battery.capacity_j, self.time_s, self.low, False
        level, received_j, supplied_j, worked_j = self.battery.level, 0.0, 0.0, 0.0
        while now_s < to_s and not (first and turned):
            load_w, charge_w, until_s = supply.at(now_s)
            work_w, done_s = draw.at(now_s)
            load_w += work_w
            until_s = min(until_s, done_s, to_s)
            limit_s = self._limit_s(level, charge_w - load_w, low=low)
            turned = now_s + limit_s <= until_s
            seconds = limit_s if turned else until_s - now_s
            before, load_j, charge_j = level, load_w * seconds, charge_w * seconds
            level = min(max(level + (charge_j - load_j) / capacity_j, 0.0), 1.0)
            gained_j = (level - before) * capacity_j
            received_j += load_j + gained_j if charge_j > load_j else charge_j
            supplied_j += load_j if charge_j > load_j else charge_j - gained_j
            worked_j += work_w * seconds
            now_s = now_s + limit_s if turned else until_s
            low = low != turned
        return (
            replace(
                self,
                time_s=now_s,
                battery=BatteryState(capacity_j, level),
                low=low,
                received_j=self.received_j + received_j,
                supplied_j=self.supplied_j + supplied_j,
                worked_j=self.worked_j + worked_j,
            ),
            turned,
        )

    def _limit_s(self, level: float, net_w: float, *, low: bool) -> float:
        """Return how long with so much net power until it turns; 0 if it is beyond the limit already."""
        missing_j = ((self.start_at if low else self.stop_below) - level) * self.battery.capacity_j
        if missing_j <= 0 if low else missing_j >= 0:
            return 0.0
        return missing_j / net_w if missing_j * net_w > 0 else math.inf
