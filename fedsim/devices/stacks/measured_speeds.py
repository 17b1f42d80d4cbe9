"""The speed of each client's device for one model: measured where it was, else drawn; and unit noise.

`lora_speeds.csv` has tokens per second of (device, model, stack) as published; a row replaces the
speed that was drawn for that device, whose spread covers models and stacks too. What is left between
units of the same device is `compute.unit_sigma`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import hetero_profiles
from fedsim.arrays import Floats
from fedsim.config.devices import ComputeConfig
from fedsim.devices.availability import BLOCK
from fedsim.devices.population import Population, with_software
from fedsim.devices.table_checks import speed_problems
from fedsim.elementary import exp
from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import numbers, read_rows
from fedsim.rng import stream


@dataclass(frozen=True)
class Speed:
    """One measured speed of training [FLOP/s]."""

    device: str
    model: str
    stack: str
    flops_per_s: float


def read_speeds(path: Path) -> list[Speed]:
    """Return the rows of a calibration table.

    Speed is tokens_per_s x gflop_per_token, so that the measured work takes the measured time.

    Raises:
        ProfileError: the first problem, with its row and column.
    """
    rows = read_rows(path)
    problem = next(speed_problems(rows), None)
    if problem is not None:
        raise ProfileError(problem)
    speed = 1e9 * numbers(rows, "tokens_per_s") * numbers(rows, "gflop_per_token")
    names = (map(str, rows.cells[name]) for name in ("device", "model", "stack"))
    return [Speed(*row) for row in zip(*names, speed.tolist(), strict=True)]


def with_speeds(population: Population, compute: ComputeConfig, model: str, seed: int) -> Population:
    """Return the population with the speeds of its devices for this model.

    Args:
        population: as drawn.
        compute: which calibration, which stack, how much unit noise.
        model: name of the model that the clock charges.
        seed: address of the unit noise.

    Raises:
        ProfileError: a broken table, no row for the model, several stacks and none chosen, or a stack that a device
            cannot run.
    """
    population = with_software(population, compute, seed)
    speed, sources = population.flops_per_s, population.sources
    if compute.calibration != "none":
        known = _chosen(compute, model)
        speed = np.array([known.get(d, s) for d, s in zip(population.device, speed, strict=True)])
        met = sorted(set(population.device) & set(known))
        sources = sources | {"calibration": compute.calibration, "calibrated": ", ".join(met) or "no device"}
    tiers = {tier: compute.unit_sigma_of(tier) for tier in set(population.tier)}
    if any(tiers.values()):
        sigma = np.array([tiers[tier] for tier in population.tier])
        speed = speed * exp(sigma * unit_normals(len(population), seed))
    return replace(population, flops_per_s=speed, sources=sources)


def unit_normals(n: int, seed: int) -> Floats:
    """Return one standard normal a client; client i of a seed has the same in a population of any size."""
    z = np.empty(n)
    for block, first in enumerate(range(0, n, BLOCK)):
        size = min(BLOCK, n - first)
        z[first : first + size] = stream(seed, "unit", block).standard_normal(BLOCK)[:size]
    return z


def _chosen(compute: ComputeConfig, model: str) -> dict[str, float]:
    builtin = compute.calibration == "measured"
    path = hetero_profiles.locate("lora_speeds.csv") if builtin else Path(compute.calibration)
    table = read_speeds(path)
    rows = [row for row in table if row.model == model]
    if not rows:
        fix = f"charge one of {', '.join(sorted({row.model for row in table}))}, or set calibration: none"
        raise ProfileError(message("compute.calibration", "has no speed for this model", got=model, fix=fix))
    stacks = sorted({row.stack for row in rows})
    if compute.stack is not None and compute.stack not in stacks:
        fix = f"choose one of: {', '.join(stacks)}"
        raise ProfileError(message("compute.stack", f"has no speed of {model}", got=compute.stack, fix=fix))
    speeds: dict[str, float] = {}
    for row in rows:
        if compute.stack not in (None, row.stack):
            continue
        if row.device in speeds:
            fix = f"set compute.stack to one of: {', '.join(stacks)}"
            what = f"has several speeds of {model} on this device"
            raise ProfileError(message("compute.calibration", what, got=row.device, fix=fix))
        speeds[row.device] = row.flops_per_s
    return speeds
