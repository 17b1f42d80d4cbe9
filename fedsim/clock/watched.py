"""Who is there where batteries and heat decide: each device's next transition is solved, not looked for."""

from __future__ import annotations

import math
from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.clock.attendance import CAUSES, Attendance, Cause, Windowed
from fedsim.clock.device_training import Machines
from fedsim.config.experiment import Experiment
from fedsim.cost.energy import BatteryState
from fedsim.devices.availability import BLOCK
from fedsim.devices.battery import NOTHING, Charge, Draw, Supply
from fedsim.devices.compute import Training, thermal_of
from fedsim.devices.population import Population, Profile
from fedsim.devices.presence import windows_in_zones, zones_of
from fedsim.errors import ExperimentError, message
from fedsim.instants import At, Instant
from fedsim.rng import stream

if TYPE_CHECKING:
    from simpy import Environment, Event


Turn = Literal["window", "outage", "battery", "heat", "comes", "look"]
LOOK_S = 86_400.0
"""How far ahead a turn of a battery is looked for; if there is none, one looks again then."""
SOON_S = 1e-3
"""A device that is cool enough within this time is cool."""


def attendance(
    env: Environment, experiment: Experiment, population: Population, machines: Machines
) -> Attendance:
    """Return what an experiment asks to be followed.

    Raises:
        ExperimentError: a device whose battery is not known.
    """
    thermal = experiment.compute.thermal
    heat = not isinstance(thermal, str) and thermal.gates
    if experiment.energy.battery is None and not heat:
        return Windowed(env, population)
    return Watched(env, experiment, population, machines)


class _Device:
    """One client's device, and its next turn.

    Attributes:
        profile: what it is.
        charge: its battery as of `time_s`; None: on the mains.
        supply: what feeds and drains it besides our work.
        gated: whether heat may keep it away.
        time_s: of its last turn or change of work.
        draw: what our work draws.
        working: whether it is in a visit.
        hot_s: when heat will stop the training under way.
        there, cause, left_s: whether it is there; why and when it went away last.
        turn_s, turn: its next turn: why it goes away, or `comes`, or `look`: nothing is known beyond this time.
        stamp: of that turn; a turn with another stamp is void.
        gone, came: events that a visit waits for.
    """

    __slots__ = (
        *("came", "cause", "charge", "draw", "gated", "gone", "hot_s", "left_s", "profile", "stamp"),
        *("supply", "there", "time_s", "turn", "turn_s", "working"),
    )

    def __init__(
        self, profile: Profile, charge: Charge | None, supply: Supply | None, *, gated: bool
    ) -> None:
        """Take a device at rest, at the start of a run."""
        self.profile, self.charge, self.supply, self.gated = profile, charge, supply, gated
        self.draw: Draw = NOTHING
        self.time_s, self.left_s, self.hot_s, self.turn_s = 0.0, 0.0, math.inf, math.inf
        self.there, self.working = True, False
        self.cause: Cause = "window"
        self.turn: Turn = "look"
        self.stamp = 0
        self.gone: Event | None = None
        self.came: Event | None = None

    def settle(self, now_s: float) -> None:
        """Let it catch up with the clock; turns are exact, the clock may be a rounding behind them."""
        self.time_s = max(self.time_s, now_s)
        if self.charge is not None and self.supply is not None:
            self.charge = self.charge.until(self.time_s, self.supply, self.draw)


class Watched:
    """Clients whose batteries and heat are followed."""

    constant = False

    def __init__(
        self, env: Environment, experiment: Experiment, population: Population, machines: Machines
    ) -> None:
        """Take the clock and the clients, and work out everybody's first turn.

        Raises:
            ExperimentError: a device whose battery is not known, or that is never cool enough.
            ProfileError: no table of plugs, or a broken one.
        """
        self._env, self._machines, self._windows = env, machines, population.availability
        self._devices = _devices(experiment, population)
        self.n, self.share = len(self._devices), self._windows.share
        self._began_j = math.fsum(d.charge.battery.stored_j for d in self._devices if d.charge is not None)
        self._there = np.ones(self.n, dtype=np.bool_)
        self._away_s: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
        self._turns: list[tuple[float, int, int]] = []
        for client in range(self.n):
            self._foresee(client)

    # who is there -------------------------------------------------------------------------------

    def online(self, now_s: float) -> NDArray[np.bool_]:
        """Return who is there now, (n,)."""
        self._run(now_s)
        return self._there.copy()

    def next_start_s(self, now_s: float) -> float:
        """Return the next turn of anybody, before which nobody comes; inf if there is none."""
        self._run(now_s)
        return self._turns[0][0] if self._turns else math.inf

    def _run(self, now_s: float) -> None:
        """Let everybody's turns happen until now, each at its own time."""
        while self._turns:
            at_s, stamp, client = self._turns[0]
            if at_s > now_s and self._devices[client].stamp == stamp:
                return
            heappop(self._turns)
            self._turn(client, stamp, at_s)

    # what a visit asks and does -----------------------------------------------------------------

    def goes_offline(self, client: int) -> Event:
        """Return the event that the device goes away; it has happened if the device is away."""
        device = self._devices[client]
        device.gone = event = self._env.event()
        if device.there:
            self._arm(client)
        else:
            event.succeed()
        return event

    def online_again(self, client: int) -> Event | None:
        """Return the event that the device is back; None if no window will open any more."""
        device = self._devices[client]
        if not device.there and math.isinf(device.turn_s):
            return None
        device.came = event = self._env.event()
        if device.there:
            event.succeed()
        else:
            self._arm(client)
        return event

    def why_offline(self, client: int) -> Cause:
        """Return why the device went away last."""
        return self._devices[client].cause

    def begin_load(self, client: int, watts: float = 0.0, training: Training | None = None) -> None:
        """Our work begins to draw so much above idle, or to train."""
        device = self._devices[client]
        device.settle(float(self._env.now))
        device.working, device.hot_s = True, math.inf
        powers: tuple[tuple[float, float], ...] = ((math.inf, watts),)
        if training is not None:
            powers = tuple((seconds, w - device.profile.idle_w) for seconds, w in training.powers)
            if training.stops_s < training.duration_s:
                device.hot_s = device.time_s + training.stops_s
        device.draw = Draw.of(device.time_s, powers)
        self._foresee(client)

    def follows_battery(self, client: int) -> bool:
        """Return whether the device has a battery."""
        return self._devices[client].charge is not None

    def end_load(self, client: int, used_j: float, *, over: bool = False) -> None:
        """Our work draws nothing more for now; the visit has used so much above idle until now."""
        device = self._devices[client]
        device.settle(float(self._env.now))
        device.draw, device.hot_s, device.working = NOTHING, math.inf, not over
        if device.charge is not None:
            charge = device.charge.spend(max(0.0, used_j - device.charge.worked_j))
            device.charge = replace(charge, worked_j=0.0) if over else charge
        if over:
            device.gone = device.came = None
        self._foresee(client)

    def battery_level(self, client: int, now_s: float) -> float:
        """Return what share of the battery is there, if nothing changes until `now_s`; NaN without one."""
        device = self._devices[client]
        if device.charge is None or device.supply is None:
            return math.nan
        return device.charge.until(now_s, device.supply, device.draw).battery.level

    def facts(self, now_s: float) -> dict[str, Any]:
        """Return the share of time that devices were away, by why they went, and what the batteries took and gave."""
        self._run(now_s)
        away_s = dict(self._away_s)
        for device in self._devices:
            device.settle(now_s)
            if not device.there:
                away_s[device.cause] += now_s - device.left_s
        whole_s = self.n * now_s or 1.0
        found: dict[str, Any] = {"away_share": {cause: s / whole_s for cause, s in away_s.items() if s}}
        charges = [d.charge for d in self._devices if d.charge is not None]
        if charges:
            found["batteries"] = {
                "devices": len(charges),
                "start_j": self._began_j,
                "received_j": math.fsum(c.received_j for c in charges),
                "supplied_j": math.fsum(c.supplied_j for c in charges),
                "end_j": math.fsum(c.battery.stored_j for c in charges),
                "mean_level": float(np.mean([c.battery.level for c in charges])),
            }
        return found

    # turns --------------------------------------------------------------------------------------

    def _foresee(self, client: int) -> None:
        """Work out a device's next turn; what is due already happens at once."""
        device = self._devices[client]
        while True:
            turn_s, turn = self._goes(client) if device.there else self._comes(client)
            if turn_s > device.time_s:
                break
            self._take(client, turn)
            if turn == "heat" and device.working:
                return
        device.turn_s, device.turn = turn_s, turn
        device.stamp += 1
        if turn_s < math.inf:
            heappush(self._turns, (turn_s, device.stamp, client))
        if device.gone is not None:
            self._arm(client)

    def _arm(self, client: int) -> None:
        """Put the next turn of a working client on the clock."""
        device = self._devices[client]
        at_s, stamp = device.turn_s, device.stamp
        if at_s < math.inf:
            place = Instant.LANDING if device.turn == "comes" else Instant.OFFLINE
            alarm = At(self._env, at_s - self._env.now, place)
            alarm.callbacks.append(lambda _: self._turn(client, stamp, at_s))

    def _turn(self, client: int, stamp: int, at_s: float) -> None:
        """A turn is due, unless another has taken its place."""
        device = self._devices[client]
        if device.stamp != stamp:
            return
        device.settle(at_s)
        device.stamp += 1
        self._take(client, device.turn)
        if device.turn != "heat" or not device.working:  # else how warm it is is known when its visit relaxes
            self._foresee(client)

    def _take(self, client: int, turn: Turn) -> None:
        """The device goes away, or comes."""
        device = self._devices[client]
        if turn == "look":
            return
        self._there[client] = device.there = turn == "comes"
        if turn == "comes":
            self._away_s[device.cause] += device.time_s - device.left_s
        else:
            device.cause, device.left_s = turn, device.time_s
        if device.charge is not None and turn in ("comes", "battery"):  # to the bit, whatever rounding says
            device.charge = replace(device.charge, low=turn == "battery")
        event = device.came if device.there else device.gone
        if event is not None and not event.triggered:
            event.succeed()

    def _goes(self, client: int) -> tuple[float, Turn]:
        """Return when a device that is there goes away if its work goes on as now, and why."""
        device = self._devices[client]
        now_s = device.time_s
        if device.charge is not None and device.charge.low:
            return now_s, "battery"
        if not device.working and self._cool_s(device) > 0:
            return now_s, "heat"
        start_s, until_s = self._windows.window(client, now_s)
        if start_s > now_s:
            return now_s, self._windows.reason(client, now_s)
        look_s = min(until_s, device.hot_s, now_s + LOOK_S)
        if device.charge is not None and device.supply is not None:
            low_s = device.charge.turns_s(look_s, device.supply, device.draw)
            if low_s < look_s:
                return low_s, "battery"
            if now_s + LOOK_S == look_s:
                return look_s, "look"
        if device.hot_s < until_s:
            return device.hot_s, "heat"
        return until_s, self._windows.reason(client, until_s) if until_s < math.inf else "look"

    def _comes(self, client: int) -> tuple[float, Turn]:
        """Return when a device that is away comes: its window open, its battery recovered, and cool."""
        device = self._devices[client]
        look_s, charge = device.time_s + LOOK_S, device.charge
        at_s = device.time_s + self._cool_s(device)
        while True:
            start_s, _ = self._windows.window(client, at_s)
            at_s = max(at_s, start_s)
            if charge is None or device.supply is None or math.isinf(at_s):
                return at_s, "comes"
            if at_s > look_s:
                return look_s, "look"
            charge = charge.until(at_s, device.supply)
            if not charge.low:
                return at_s, "comes"
            at_s = charge.turns_s(look_s, device.supply)
            if math.isinf(at_s):
                return look_s, "look"

    def _cool_s(self, device: _Device) -> float:
        """Return how long until a device that rests is cool enough; less than a millisecond is nothing."""
        if not device.gated:
            return 0.0
        cool_s = self._machines.cool_s(device.profile, device.time_s)
        return cool_s if cool_s > SOON_S else 0.0


def _devices(experiment: Experiment, population: Population) -> list[_Device]:
    """Return every client's device at the start of a run."""
    n, seed, zones_h = len(population), experiment.seed, experiment.population.time_zones
    profiles = [population.profile(client) for client in range(n)]
    gated = [_gated(experiment, profile) for profile in profiles]
    battery = experiment.energy.battery
    if battery is None:
        return [_Device(p, None, None, gated=hot) for p, hot in zip(profiles, gated, strict=True)]
    plugged, _ = windows_in_zones("energy.battery.plugged", battery.plugged, n, zones_h, seed)
    blocks = range(-(-n // BLOCK))
    drawn = np.concatenate([stream(seed, "battery", block).random(BLOCK) for block in blocks])
    low, high = battery.initial
    ahead_s = 3600.0 * zones_of(n, zones_h, seed)
    found = []
    for p, hot in zip(profiles, gated, strict=True):
        capacity_wh = battery.capacity_of(p)
        if capacity_wh is None:
            found.append(_Device(p, None, None, gated=hot))
            continue
        level = float(low + (high - low) * drawn[p.client])
        charge = Charge(
            0.0,
            BatteryState.of_wh(capacity_wh, level),
            level < battery.start_at,
            battery.start_at,
            battery.stop_below,
        )
        supply = Supply(
            plugged,
            p.client,
            idle_w=p.idle_w,
            use_w=battery.watts("use_w", p.tier),
            charge_w=battery.watts("charge_w", p.tier),
            awake=battery.awake,
            ahead_s=float(ahead_s[p.client]),
        )
        found.append(_Device(p, charge, supply, gated=hot))
    return found


def _gated(experiment: Experiment, profile: Profile) -> bool:
    """Return whether heat may keep a device away.

    Raises:
        ExperimentError: it is too warm at rest.
    """
    thermal = thermal_of(experiment.compute, profile.tier)
    if thermal is None or not thermal.gates:
        return False
    if thermal.settled_k(profile.idle_w) >= thermal.start_k:
        rest_c = thermal.ambient_c + thermal.settled_k(profile.idle_w)
        what = f"{profile.device} is never that cool: at rest it has {rest_c:.1f} degrees"
        fix = f"set it above {rest_c:.1f}, or leave {profile.tier} out of compute.thermal.tiers"
        raise ExperimentError(
            message("compute.thermal.start_below_c", what, got=thermal.start_below_c, fix=fix)
        )
    return True
