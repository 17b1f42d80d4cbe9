"""Do the devices fit the settings about them? Classes, stacks and effects that the tables of a population know, or do not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fedsim.config.classes import CLASSES
from fedsim.config.devices import ComputeConfig
from fedsim.config.experiment import Experiment
from fedsim.config.problem import Problem
from fedsim.config.thermal import Thermal
from fedsim.config.words import no_such_file
from fedsim.devices.presets import says_what_devices_are
from fedsim.devices.stacks.table import OS
from fedsim.devices.tables import read_networks
from fedsim.errors import ProfileError, nearest
from fedsim.files.disk import no_file


def _stacks(experiment: Experiment) -> list[Problem]:
    """Return what has no effect where devices are, or are not, told apart from the software that they run."""
    compute, problems = experiment.compute, list[Problem]()
    if says_what_devices_are(experiment.population):
        if compute.calibration != "none":
            what = "has no effect: the speeds of this population follow from hardware and software"
            fix = "remove it, or name the software in compute.stack"
            problems.append(Problem(("compute", "calibration"), what, fix, compute.calibration))
        if compute.bandwidth_floor:
            what, fix = "has no effect: the law of stacks has the memory's bandwidth in it", "remove it"
            problems.append(Problem(("compute", "bandwidth_floor"), what, fix, got=True))
        if compute.uncertainty == "none" and compute.uncertainty_draw:
            what, fix = "has no effect without uncertainty", "set compute.uncertainty: stacks, or remove it"
            problems.append(Problem(("compute", "uncertainty_draw"), what, fix, compute.uncertainty_draw))
        return problems
    if isinstance(compute.stack, dict) or (compute.stack is not None and compute.calibration == "none"):
        fix = "remove it, or set compute.calibration: measured, or population.preset: mixed_edge_2026"
        what = "has no effect without a calibration, where the table of devices has speeds"
        problems.append(Problem(("compute", "stack"), what, fix, compute.stack))
    for name in ("stacks", "uncertainty", "uncertainty_draw", "app"):
        value = getattr(compute, name)
        if value != ComputeConfig.model_fields[name].default:
            what = "has no effect: the table of devices has speeds, and not what devices are"
            fix = f"remove compute.{name}, or set population.preset: mixed_edge_2026"
            problems.append(Problem(("compute", name), what, fix, value))
    return problems


def problems(experiment: Experiment) -> list[Problem]:
    """Return what is wrong with `compute` and `energy` beside the tables of the population, and settings that have no effect."""
    return [*_compute(experiment), *_by_class(experiment), *_energy(experiment)]


def _compute(experiment: Experiment) -> list[Problem]:
    compute, problems = experiment.compute, list[Problem]()
    absent = no_such_file("compute.calibration", compute.calibration)
    if absent is not None:
        problems.append(absent)
    if compute.stacks is not None and not compute.stacks.is_file():
        fix = "check the path; it is taken from the YAML file's folder"
        problems.append(Problem(("compute", "stacks"), no_file(compute.stacks), fix, str(compute.stacks)))
    problems += _stacks(experiment)
    if compute.dequantisation == "copy":
        problems += _dequantisation(experiment)
    return problems


def _dequantisation(experiment: Experiment) -> list[Problem]:
    """Return what is wrong with weights that are said to be unpacked in memory."""
    at, compute = ("compute", "dequantisation"), experiment.compute
    if says_what_devices_are(experiment.population):
        what = "is not asked here: expand_share of a stack's row says how it unpacks weights"
        return [Problem(at, what, "remove it, or name a stack that unpacks in compute.stack", "copy")]
    if compute.bandwidth_floor:
        return []
    fix = "remove it, or set compute.bandwidth_floor: true"
    return [Problem(at, "has no effect without the bandwidth floor", fix, "copy")]


def _by_class(experiment: Experiment) -> list[Problem]:
    """Return the classes of devices that there are not, in settings that are said by class."""
    compute, problems = experiment.compute, list[Problem]()
    named: list[tuple[tuple[str, ...], Iterable[str]]] = [
        (("compute", name), getattr(compute, name))
        for name in ("unit_sigma", "step_sigma", "stack")
        if isinstance(getattr(compute, name), dict)
    ]
    if isinstance(compute.thermal, Thermal):
        named.append((("compute", "thermal", "tiers"), compute.thermal.tiers))
    for name in ("capacity_wh", "charge_w", "use_w"):
        by_tier = getattr(experiment.energy.battery, name, None)
        if isinstance(by_tier, dict):
            named.append((("energy", "battery", name), by_tier))
    for path, tiers in named:
        known = (*CLASSES, *OS) if path == ("compute", "stack") else tuple(CLASSES)
        for tier in set(tiers) - set(known):
            problems.append(Problem(path, "no such class of devices", nearest(tier, known), tier))
    return problems


def _energy(experiment: Experiment) -> list[Problem]:
    """Return a tail of radios of which the table of networks says nothing."""
    if not experiment.energy.tail or experiment.population.networks is None:
        return []
    try:
        networks = read_networks(experiment.population.networks)
    except ProfileError:
        return []  # said when the population is drawn
    if np.any(networks.tail_s * networks.tail_w > 0):
        return []
    what = f"has no effect: {experiment.population.networks} does not say how long radios stay up after a transfer"
    fix = "add columns tail_s and tail_w (LTE: 11.6 s and 1.06 W, Wi-Fi: 0.238 s and 0.119 W), or remove it"
    return [Problem(("energy", "tail"), what, fix, got=True)]
