"""From an experiment to what is followed of its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedsim.arrays import Floats
from fedsim.clock.device_training import Machines
from fedsim.clock.online.attendance import Attendance, Windowed
from fedsim.clock.online.device import WatchedDevice
from fedsim.clock.online.watched import Watched
from fedsim.config.devices import Battery
from fedsim.config.experiment import Experiment
from fedsim.cost.energy import BatteryState
from fedsim.devices.availability import BLOCK, Availability
from fedsim.devices.battery import Charge, Supply
from fedsim.devices.online import windows_in_zones, zones_of
from fedsim.devices.population import Population, Profile
from fedsim.devices.thermal import settled_k, thermal_of
from fedsim.errors import ExperimentError, message
from fedsim.rng import stream

if TYPE_CHECKING:
    from simpy import Environment

BatteryAtStart = tuple[Charge, Supply]
"""What a battery holds, and what feeds and drains it besides our work."""


def attendance_of(
    env: Environment, experiment: Experiment, population: Population, machines: Machines
) -> Attendance:
    """Return what an experiment asks to be followed.

    Raises:
        ExperimentError: a device whose battery is not known, or that is never cool enough.
        ProfileError: no table of plugs, or a broken one.
    """
    thermal = experiment.compute.thermal
    heat_gates = not isinstance(thermal, str) and thermal.gates
    if experiment.energy.battery is None and not heat_gates:
        return Windowed(env, population)
    windows = population.availability
    return Watched(env, windows, devices_of(experiment, population, machines))


def devices_of(experiment: Experiment, population: Population, machines: Machines) -> list[WatchedDevice]:
    """Return every client's device at the start of a run, by client.

    Raises:
        ExperimentError: a device whose battery is not known, or that is never cool enough.
        ProfileError: no table of plugs, or a broken one.
    """
    profiles = [population.profile(client) for client in range(len(population))]
    gates = [_heat_gates(experiment, profile) for profile in profiles]
    return [
        WatchedDevice(p, population.availability, machines, battery=battery, heat_gates=heat_gates)
        for p, battery, heat_gates in zip(profiles, _batteries(experiment, profiles), gates, strict=True)
    ]


def _batteries(experiment: Experiment, profiles: list[Profile]) -> list[BatteryAtStart | None]:
    """Return every client's battery at the start of a run; None: it is on the mains.

    Raises:
        ExperimentError: a device whose battery is not known.
        ProfileError: no table of plugs, or a broken one.
    """
    n, seed, zones_h = len(profiles), experiment.population_seed, experiment.population.time_zones
    config = experiment.energy.battery
    if config is None:
        return [None] * n
    plugged, _ = windows_in_zones("energy.battery.plugged", config.plugged, n, zones_h, seed)
    levels, ahead_s = _levels_at_start(n, seed, config.initial), 3600.0 * zones_of(n, zones_h, seed)
    return [
        _battery_of(p, config, float(levels[p.client]), plugged, float(ahead_s[p.client])) for p in profiles
    ]


def _battery_of(
    profile: Profile, config: Battery, level: float, plugged: Availability, ahead_s: float
) -> BatteryAtStart | None:
    """Return a client's battery at this level at the start of a run; None: it is on the mains.

    Raises:
        ExperimentError: it is not known.
    """
    capacity_wh = config.capacity_of(profile.tier, profile.device, profile.battery_wh)
    if capacity_wh is None:
        return None
    charge = Charge(
        time_s=0.0,
        battery=BatteryState.of_wh(capacity_wh, level),
        low=level < config.start_at,
        start_at=config.start_at,
        stop_below=config.stop_below,
    )
    supply = Supply(
        plugged,
        profile.client,
        idle_w=profile.idle_w,
        use_w=config.use_w_of(profile.tier),
        charge_w=config.charge_w_of(profile.tier),
        awake=config.awake,
        ahead_s=ahead_s,
    )
    return charge, supply


def _levels_at_start(n: int, seed: int, bounds: tuple[float, float]) -> Floats:
    """Return what share of each client's battery is there at the start, (n,), uniform and drawn by address."""
    blocks = range(-(-n // BLOCK))
    uniform = np.concatenate([stream(seed, "battery", block).random(BLOCK) for block in blocks])
    low, high = bounds
    levels: Floats = low + (high - low) * uniform[:n]
    return levels


def _heat_gates(experiment: Experiment, profile: Profile) -> bool:
    """Return whether heat may keep a device offline.

    Raises:
        ExperimentError: it is too warm at rest.
    """
    thermal = thermal_of(experiment.compute, profile.tier)
    if thermal is None or not thermal.gates:
        return False
    if settled_k(thermal, profile.idle_w) >= thermal.start_k:
        rest_c = thermal.ambient_c + settled_k(thermal, profile.idle_w)
        what = f"{profile.device} is never that cool: at rest it has {rest_c:.1f} degrees"
        fix = f"set it above {rest_c:.1f}, or leave {profile.tier} out of compute.thermal.tiers"
        raise ExperimentError(
            message("compute.thermal.start_below_c", what, got=thermal.start_below_c, fix=fix)
        )
    return True
