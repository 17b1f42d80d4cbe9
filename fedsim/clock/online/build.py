"""From an experiment to what is followed of its devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from fedsim.arrays import Floats, Ints
from fedsim.clock.device_training import Machines
from fedsim.clock.online.attendance import Attendance, Windowed
from fedsim.clock.online.device_states import Batteries, DeviceStates, Model
from fedsim.clock.online.watched import Watched
from fedsim.config.devices import Battery
from fedsim.config.experiment import Experiment
from fedsim.cost.energy import BatteryState
from fedsim.devices.availability import BLOCK
from fedsim.devices.online import windows_in_zones, zones_of
from fedsim.devices.population import Population, Profile
from fedsim.devices.thermal import settled_k, thermal_of
from fedsim.errors import ExperimentError, message
from fedsim.rng import stream

if TYPE_CHECKING:
    from simpy import Environment


def attendance_of(
    env: Environment, experiment: Experiment, population: Population, machines: Machines
) -> Attendance:
    """Return what an experiment asks to be followed; devices that cannot be are refused with the plan (`refuse_devices`).

    Raises:
        ExperimentError: a device whose battery is not known, or that is never cool enough, or too warm at rest.
        ProfileError: no table of plugs, or a broken one.
    """
    if experiment.energy.battery is None and not _thermal_gates(experiment):
        return Windowed(env, population)
    windows = population.availability
    return Watched(env, windows, devices_of(experiment, population, machines))


def refuse_devices(experiment: Experiment, population: Population) -> None:
    """Refuse devices that cannot be followed as an experiment asks, before anything starts.

    Raises:
        ExperimentError: a device whose battery is not known, or that is never cool enough, or too warm at rest.
    """
    if experiment.energy.battery is not None or not isinstance(experiment.compute.thermal, str):
        _models_of(experiment, map(population.profile, _firsts_of_a_model(population)[0]))


def _thermal_gates(experiment: Experiment) -> bool:
    thermal = experiment.compute.thermal
    return not isinstance(thermal, str) and thermal.gates


def devices_of(experiment: Experiment, population: Population, machines: Machines) -> DeviceStates:
    """Return every client's device at the start of a run, by client.

    Raises:
        ExperimentError: a device whose battery is not known, or that is never cool enough, or too warm at rest.
        ProfileError: no table of plugs, or a broken one.
    """
    firsts, model_of = _firsts_of_a_model(population)
    models = _models_of(experiment, map(population.profile, firsts))
    return DeviceStates(population, machines, models, model_of, _batteries(experiment, population))


def _models_of(experiment: Experiment, profiles: Iterable[Profile]) -> list[Model]:
    """Return what devices of each model have in common.

    Raises:
        ExperimentError: as `devices_of`.
    """
    listed, config = list(profiles), experiment.energy.battery
    if not isinstance(experiment.compute.thermal, str):
        _refuse_warm(experiment, listed)
    gates = [_heat_gates(experiment, profile) for profile in listed]
    return [_model(p, config, heat_gates=g) for p, g in zip(listed, gates, strict=True)]


def _firsts_of_a_model(population: Population) -> tuple[list[int], Ints]:
    """Return the first client of each model of devices, ascending, and the place of each client's among these, (n,).

    Devices of one model have their row, class, idle power and battery in common.
    """
    columns = population.columns()
    names = ("device", "tier", "idle_w", "battery_wh")
    known: dict[tuple[object, ...], int] = {}
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    model_of = np.fromiter((known.setdefault(row, len(known)) for row in rows), np.int64, len(population))
    return np.unique(model_of, return_index=True)[1].tolist(), model_of


def _model(profile: Profile, config: Battery | None, *, heat_gates: bool) -> Model:
    """Return what devices like this one have in common.

    Raises:
        ExperimentError: their battery is not known.
    """
    if config is None:
        return Model(None, 0.0, 0.0, heat_gates)
    capacity_wh = config.capacity_of(profile.tier, profile.device, profile.battery_wh)
    battery_j = None if capacity_wh is None else BatteryState.of_wh(capacity_wh, 1.0).capacity_j
    return Model(battery_j, config.use_w_of(profile.tier), config.charge_w_of(profile.tier), heat_gates)


def _batteries(experiment: Experiment, population: Population) -> Batteries | None:
    """Return what feeds and drains the clients' batteries, and their levels at the start; None: they are not followed.

    Raises:
        ProfileError: no table of plugs, or a broken one.
    """
    n, seed, zones_h = len(population), experiment.population_seed, experiment.population.time_zones
    config = experiment.energy.battery
    if config is None:
        return None
    if config.plugged == experiment.population.availability == "charging":  # the same windows, and many
        plugged = population.availability.plain
    else:
        plugged, _ = windows_in_zones("energy.battery.plugged", config.plugged, n, zones_h, seed)
    levels, ahead_s = _levels_at_start(n, seed, config.initial), 3600.0 * zones_of(n, zones_h, seed)
    return Batteries(config, plugged, levels, ahead_s)


def _levels_at_start(n: int, seed: int, bounds: tuple[float, float]) -> Floats:
    """Return what share of each client's battery is there at the start, (n,), uniform and drawn by address."""
    blocks = range(-(-n // BLOCK))
    uniform = np.concatenate([stream(seed, "battery", block).random(BLOCK) for block in blocks])
    low, high = bounds
    levels: Floats = low + (high - low) * uniform[:n]
    return levels


def _refuse_warm(experiment: Experiment, profiles: Iterable[Profile]) -> None:
    """Check that devices at rest are cooler than the cap of their class: else no power is left to train with.

    Raises:
        ExperimentError: one is not.
    """
    for profile in profiles:
        thermal = thermal_of(experiment.compute, profile.tier)
        if thermal is None or settled_k(thermal, profile.idle_w) < thermal.cap_k:
            continue
        rest_c = thermal.ambient_c + thermal.resistance_k_per_w * profile.idle_w
        what = f"{profile.device} is as warm as that at rest, at {rest_c:.1f} degrees, and has no power left to train"
        fix = f"set it above {rest_c:.1f}, or leave {profile.tier} out of compute.thermal.tiers"
        raise ExperimentError(message("compute.thermal.cap_c", what, got=thermal.cap_c, fix=fix))


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
