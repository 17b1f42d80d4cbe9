"""Presets of populations: which tables, with which shares, drawn by which law.

A preset is a YAML file in `hetero_profiles/presets`; adding a file adds a preset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError, model_validator

import hetero_profiles
from fedsim.arrays import Floats, Ints, Names
from fedsim.component import Config
from fedsim.config.fields import NonNegative, Positive
from fedsim.config.population import PopulationConfig
from fedsim.devices.people.regions import Region, read_region
from fedsim.devices.schemas.versions import versions
from fedsim.devices.stacks.hardware import is_hardware
from fedsim.devices.tables import DeviceTable, NetworkTable, read_devices, read_networks
from fedsim.elementary import exp
from fedsim.errors import ProfileError, invalid, message, nearest
from fedsim.files.user_tables import read_rows

Choice = str | dict[str, NonNegative]


class Latency(Config):
    """Speeds from a law instead of device rows: a constant over a lognormal latency cut to a range.

    Memory, power and battery are those of the row, among `nearest`, whose speed is nearest.
    """

    median_ms: Positive
    sigma_ln: Positive
    low_ms: Positive
    high_ms: Positive
    gflop_per_sample: Positive
    nearest: tuple[str, ...]

    def flops_per_s(self, chance: Floats) -> Floats:
        """Return the speeds at these points of the distribution (uniform in [0, 1)), by inversion."""
        law = NormalDist(math.log(self.median_ms), self.sigma_ln)
        grid = np.linspace(math.log(self.low_ms), math.log(self.high_ms), 2049)
        below = np.array([law.cdf(x) for x in grid])
        latency_ms = exp(np.interp(below[0] + chance * (below[-1] - below[0]), below, grid))
        return np.asarray(1e9 * self.gflop_per_sample / (1e-3 * latency_ms), dtype=np.float64)


class Preset(Config):
    """What a preset file holds; `device_share`, `latency` or a region picks the devices, `caution` says what is wrong with an old one.

    `region` is one of the table `regions`: the shares of devices and networks are then those of its figures.
    """

    about: str
    caution: str = ""
    source: str
    licence: str
    devices: str
    device_share: Choice | None = None
    latency: Latency | None = None
    region: str | None = None
    regions: str = "regions_2026.csv"
    networks: str
    network_share: Choice | None = None
    spread: bool = True

    @model_validator(mode="after")
    def _one_law(self) -> Preset:
        if sum(law is not None for law in (self.device_share, self.latency, self.region)) != 1:
            raise invalid("give exactly one of `device_share`, `latency` and `region`")
        if (self.network_share is None) == (self.region is None):
            raise invalid("give `network_share`, or a `region`, which has it")
        return self


@dataclass(frozen=True)
class Recipe:
    """All that a population is drawn from.

    Attributes:
        device_weight, network_weight: one weight a row of the tables; only ratios matter.
        spread: 1, or 0 for devices and links that are exactly the medians of their rows.
        latency: law of the speeds, where the device rows do not give it.
        sources: what was used, with the SHA-256 of each table, for the record of a run.
        device_groups: of a region: the group of every device row, from the widest groups to the narrowest.
    """

    devices: DeviceTable
    device_weight: Floats
    networks: NetworkTable
    network_weight: Floats
    sources: dict[str, str]
    spread: float = 1.0
    latency: Latency | None = None
    device_groups: tuple[Names, ...] = ()

    @property
    def nearest(self) -> Ints:
        """Rows of the device table that a latency law chooses among."""
        assert self.latency is not None
        wanted = self.latency.nearest
        return np.flatnonzero(np.isin(self.devices.device.astype(str), wanted))


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    names = (name for name in hetero_profiles.names() if name.startswith("presets/"))
    return sorted(Path(name).stem for name in names)


def preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        ProfileError: there is none of that name, or its file is not a preset.
    """
    if name not in preset_names():
        raise ProfileError(message("preset", "no such preset", got=name, fix=nearest(name, preset_names())))
    path = hetero_profiles.locate(f"presets/{name}.yaml")
    try:
        values: Any = yaml.safe_load(path.read_text("utf-8"))
        return Preset.model_validate(values)
    except (yaml.YAMLError, ValidationError) as problem:
        fix = "compare it with the other presets"
        raise ProfileError(message(str(path), f"is not a preset ({problem})", fix=fix)) from problem


def recipe_of(population: PopulationConfig) -> Recipe:
    """Return the recipe of a configuration: of its preset or its own tables, with the shares of its own regions.

    Raises:
        ProfileError: as `recipe_of_preset`, `recipe_of_files`, or regions for a preset that has none.
    """
    if population.preset is not None:
        return recipe_of_preset(population.preset, population.regions, population.region)
    assert population.devices is not None and population.networks is not None  # noqa: PT018
    recipe = recipe_of_files(population.devices, population.networks)
    if population.regions is None:
        return recipe
    return _of_region(recipe, read_region(population.regions, population.region), str(population.regions))


def recipe_of_preset(name: str, regions: Path | None = None, region: str | None = None) -> Recipe:
    """Return the recipe of a preset.

    Args:
        name: of the preset.
        regions: a table of shares instead of the preset's.
        region: which of them; None: that of the preset.

    Raises:
        ProfileError: unknown preset, one without a region where there is a table of them, or it names a table, column or
            row that does not exist.
    """
    chosen = preset(name)
    devices, networks = (
        read_devices(_table(name, chosen.devices)),
        read_networks(_table(name, chosen.networks)),
    )
    sources = {
        "preset": name,
        "devices": chosen.devices,
        "devices_sha256": devices.sha256,
        "networks": chosen.networks,
        "networks_sha256": networks.sha256,
    }
    if chosen.region is None:
        if regions is not None:
            with_one = ", ".join(other for other in preset_names() if preset(other).region is not None)
            fix = f"name a preset of a region: {with_one}; or devices and networks of your own"
            raise ProfileError(
                message("population.regions", "has no meaning for a preset of no region", got=name, fix=fix)
            )
        share = chosen.device_share if chosen.latency is None else dict.fromkeys(chosen.latency.nearest, 1.0)
        weights = devices.shares.pick(share), networks.shares.pick(chosen.network_share)
    else:
        weights = np.empty(0), np.empty(0)  # those of its region
    recipe = Recipe(
        devices=devices,
        device_weight=weights[0],
        networks=networks,
        network_weight=weights[1],
        sources=sources | versions(sources),
        spread=float(chosen.spread),
        latency=chosen.latency,
    )
    if chosen.region is None:
        return recipe
    path = _table(name, chosen.regions) if regions is None else regions
    shares = read_region(path, chosen.region if region is None else region)
    return _of_region(recipe, shares, chosen.regions if regions is None else str(regions))


def _of_region(recipe: Recipe, region: Region, table: str) -> Recipe:
    """Return a recipe with the shares of a region, and with its table among the sources.

    Raises:
        ProfileError: devices or networks that the tables do not have.
    """
    sources = recipe.sources | {"region": region.name, "regions": table, "regions_sha256": region.sha256}
    return replace(
        recipe,
        device_weight=region.device_weights(recipe.devices),
        network_weight=region.network_weights(recipe.networks),
        device_groups=region.device_groups(recipe.devices),
        sources=sources | versions(sources),
    )


def says_what_devices_are(population: PopulationConfig) -> bool:
    """Tell whether a population's table says what its devices are; False for a table of speeds, or one that is broken."""
    try:
        if population.preset is not None:
            path = _table(population.preset, preset(population.preset).devices)
        else:
            assert population.devices is not None
            path = population.devices
        return is_hardware(read_rows(path))
    except ProfileError:
        return False


def recipe_of_files(devices_path: Path, networks_path: Path) -> Recipe:
    """Return the recipe of the user's own tables, with their column `share`.

    Raises:
        ProfileError: the first problem of a table, with its row and column.
    """
    devices, networks = read_devices(devices_path), read_networks(networks_path)
    sources = {
        "devices": str(devices_path),
        "devices_sha256": devices.sha256,
        "networks": str(networks_path),
        "networks_sha256": networks.sha256,
    }
    return Recipe(
        devices=devices,
        device_weight=devices.shares.pick(None),
        networks=networks,
        network_weight=networks.shares.pick(None),
        sources=sources,
    )


def _table(preset_name: str, name: str) -> Path:
    try:
        return hetero_profiles.locate(name)
    except FileNotFoundError as problem:
        where = f"preset {preset_name}"
        raise ProfileError(message(where, "no such table", got=name, fix=str(problem))) from problem
