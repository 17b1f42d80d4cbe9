"""Populations: every client a device, a link, and times when it is online; drawn all at once.

tier -> device by share -> effective speed; network by what the device can use -> down, up, round trip.
RAM, power and battery follow the device row, so that fast devices tend to have more memory without
any such law being imposed. Client i of a seed is the same client in a population of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.config.devices import ComputeConfig
from fedsim.cost.memory.model import PLAIN, MemoryModel
from fedsim.devices.availability import Availability, OnlineTimes
from fedsim.devices.draws import (
    device_rows,
    draws,
    links,
    nearest_row,
    network_weights,
    own_links,
)
from fedsim.devices.groups.shared_links import Groups, written
from fedsim.devices.link_rates import Clients, LinkRates, rates_by_link
from fedsim.devices.online import in_time_zones, online_times
from fedsim.devices.people.habits import FILE, habits, habits_sha256
from fedsim.devices.people.home_links import by_place
from fedsim.devices.people.places import at_home, carried_by
from fedsim.devices.people.profile import Profile
from fedsim.devices.presets import Recipe, preset_names, recipe_of, recipe_of_preset
from fedsim.devices.schemas.versions import versions
from fedsim.devices.stacks.hardware import OwnedHardware
from fedsim.devices.stacks.software import Laws, equipped
from fedsim.devices.table_checks import check
from fedsim.elementary import exp
from fedsim.errors import ProfileError
from fedsim.network.base import Direction, Rates

if TYPE_CHECKING:
    from fedsim.config.population import PopulationConfig

__all__ = ["Population", "Profile", "check", "draw", "draw_devices", "preset_names"]


@dataclass(frozen=True, eq=False)
class Population:
    """n clients as arrays, (n,) each, named as the fields of `Profile`.

    Attributes:
        availability: when they are online.
        sources: preset, tables and their SHA-256, for the record of a run.
        link_rates: how the links' rates change over time; None: they never do.
        groups: who shares which links between its own and the server's; None: nobody.
        hardware, laws: what the devices are, and the law of their steps; None: the table has speeds.
        unmetered: (n,) whose network costs nothing by the byte; None: not known.
    """

    device: Names
    tier: Names
    network: Names
    flops_per_s: Floats
    memory_bytes: Floats
    usable_memory_bytes: Floats
    memory_bytes_per_s: Floats
    down_bytes_per_s: Floats
    up_bytes_per_s: Floats
    rtt_s: Floats
    framing: Floats
    train_w: Floats
    idle_w: Floats
    down_radio_w: Floats
    down_radio_j_per_byte: Floats
    up_radio_w: Floats
    up_radio_j_per_byte: Floats
    battery_wh: Floats
    cpu_quota: Floats
    cpu_period_s: Floats
    tail_s: Floats
    tail_w: Floats
    availability: OnlineTimes
    sources: dict[str, str]
    link_rates: LinkRates | None = None
    groups: Groups | None = None
    hardware: OwnedHardware | None = None
    laws: Laws | None = None
    unmetered: Bools | None = None

    @property
    def n(self) -> int:
        """Number of clients."""
        return len(self.device)

    def __len__(self) -> int:
        return self.n

    def profile(self, client: int) -> Profile:
        """Return one client.

        Raises:
            IndexError: no such client.
        """
        if not 0 <= client < self.n:
            raise IndexError(f"client {client} of a population of {self.n}")
        law = None if self.laws is None else self.laws.of(client)
        values = [item(client) for item in self._items]
        return Profile(client, *[*values, law])

    def profiles_of(self, clients: Ints) -> list[Profile]:
        """Return several clients, (k,), that there are, each as `profile` has it: many at once take less than half the time."""
        numbers: list[int] = clients.tolist()
        values = [array[clients].tolist() for array in self._values]
        laws = [None if self.laws is None else self.laws.of(client) for client in numbers]
        return list(map(Profile, numbers, *values, laws))

    @cached_property
    def _values(self) -> list[NDArray[Any]]:
        """Text and floats of all clients, in the order of the fields of `Profile`."""
        arrays = [np.asarray(getattr(self, name)) for name in _ARRAYS]
        return [
            array if array.dtype.kind in "OU" else array.astype(np.float64, copy=False) for array in arrays
        ]

    @cached_property
    def _items(self) -> list[Callable[[int], Any]]:
        """What tells the values of one client."""
        return [array.item for array in self._values]

    @property
    def varying(self) -> bool:
        """Whether the rate of any link changes over time."""
        return self.link_rates is not None

    def rates(self, client: int, direction: Direction) -> Rates | None:
        """Return the rate of one link over time; None: constant, at that of the profile.

        Raises:
            IndexError: no such client.
        """
        if not 0 <= client < self.n:
            raise IndexError(f"client {client} of a population of {self.n}")
        return None if self.link_rates is None else self.link_rates.of(client, direction)

    def mean_rates(self, direction: Direction) -> Floats:
        """Return the (mean) rate of every client's link, (n,) [bytes/s]."""
        return self.down_bytes_per_s if direction == "down" else self.up_bytes_per_s

    def memory_model(self, client: int) -> MemoryModel:
        """Return what a client's program keeps in memory; of everybody the same where nothing is known of the software."""
        return PLAIN if self.laws is None else self.laws.memory_models[int(self.laws.memory[client])]

    @cached_property
    def rooms(self) -> tuple[list[tuple[float, MemoryModel]], Ints]:
        """The different (usable memory [bytes], memory model) of its clients, and the place of each client's, (clients,)."""
        amounts, of_amount = np.unique(self.usable_memory_bytes, return_inverse=True)
        models: tuple[MemoryModel, ...] = (PLAIN,) if self.laws is None else self.laws.memory_models
        of_model = 0 if self.laws is None else self.laws.memory
        codes, place = np.unique(of_amount * len(models) + of_model, return_inverse=True)
        rooms = [(float(amounts[code // len(models)]), models[code % len(models)]) for code in codes.tolist()]
        return rooms, place

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, `client` first."""
        return {"client": np.arange(self.n), **{name: getattr(self, name) for name in _ARRAYS}}


_ARRAYS = tuple(field.name for field in fields(Profile) if field.name not in ("client", "law"))


def draw(config: PopulationConfig, seed: int) -> Population:
    """Return the population of an experiment.

    Raises:
        ProfileError: unknown preset, or a broken device, network or availability table.
    """
    population = draw_devices(config, config.clients, seed)
    columns = {"network": population.network, "tier": population.tier}
    availability, sources = online_times(config, columns, population.unmetered, seed)
    return replace(population, availability=availability, sources=population.sources | sources)


def draw_devices(
    source: PopulationConfig | str, n: int, seed: int, *, wifi_only: bool | None = None
) -> Population:
    """Return n clients of a preset (by name) or of a configuration, always online.

    Args:
        source: name of a preset, or the configuration of a population.
        n: number of clients; the first n of a larger draw are the same.
        seed: address of the randomness.
        wifi_only: no client on a cellular network; default: the configuration's, else only if it
            takes part while charging.

    Raises:
        ProfileError: unknown preset, or a broken device or network table.
    """
    if isinstance(source, str):
        return _drawn(recipe_of_preset(source), n, seed, wifi_only=bool(wifi_only))
    recipe = recipe_of(source)
    if wifi_only is None:
        wifi_only = source.availability == "charging" if source.wifi_only is None else source.wifi_only
    population = _drawn(recipe, n, seed, wifi_only=wifi_only, config=source)
    drawn: dict[Direction, Floats] = {"down": population.down_bytes_per_s, "up": population.up_bytes_per_s}
    clients = Clients(population.network, population.tier)
    varying, means, rate_sources = rates_by_link(source, clients, drawn, recipe.networks, seed)
    if source.links == "by-place":
        assert population.unmetered is not None  # every network table says who is
        carried = carried_by(population.tier)
        home = in_time_zones(at_home(habits(), n, seed, carried), source.time_zones, seed)
        moves = carried & population.unmetered
        varying = by_place(recipe, varying, means, home, moves, seed, exact=source.shares == "exact")
        means = varying.means()
        rate_sources |= {"links": "by-place", "people": FILE, "people_sha256": habits_sha256()}
        rate_sources |= versions(rate_sources)
    return replace(
        population,
        down_bytes_per_s=means["down"],
        up_bytes_per_s=means["up"],
        link_rates=varying,
        sources=population.sources | rate_sources,
    )


def _drawn(
    recipe: Recipe, n: int, seed: int, *, wifi_only: bool, config: PopulationConfig | None = None
) -> Population:
    exact, by_home = (False, False) if config is None else (config.shares == "exact", config.by_home)
    chance, z = draws(n, seed)
    devices, nets, spread = recipe.devices, recipe.networks, recipe.spread
    if recipe.latency is None:
        row = device_rows(recipe, chance[0], exact=exact)
        flops_per_s = devices.flops_per_s[row] * exp(spread * devices.sigma_ln[row] * z[0])
    else:
        flops_per_s = recipe.latency.flops_per_s(chance[0])
        row = nearest_row(devices.flops_per_s, recipe.nearest, flops_per_s)
    share_at_home = habits().at_home if by_home else None
    mobile, fixed = network_weights(recipe, wifi_only=wifi_only, at_home=share_at_home)
    accesses = nets.cellular if recipe.device_groups else None
    link = links(devices.cellular[row], mobile, fixed, chance[1], exact=exact, accesses=accesses)
    own = own_links(recipe, link, z, None if config is None else config.shared_links, seed)
    asked = {"wifi_only": str(wifi_only).lower(), "availability": "always"}
    population = Population(
        device=devices.device[row],
        tier=devices.tier[row],
        network=nets.network[link],
        flops_per_s=flops_per_s,
        down_bytes_per_s=own.down_bytes_per_s,
        up_bytes_per_s=own.up_bytes_per_s,
        rtt_s=own.rtt_s,
        **{name: getattr(devices, name)[row] for name in _OF_DEVICE},
        **{name: getattr(nets, name)[link] for name in _OF_NETWORK},
        availability=Availability.always(n),
        sources=recipe.sources | asked | ({"shares": "exact"} if exact else {}) | written(own.groups),
        groups=own.groups,
        hardware=None if devices.hardware is None else OwnedHardware(devices.hardware, row),
        unmetered=~nets.cellular[link],
    )
    try:
        return with_software(population, ComputeConfig(), seed)
    except ProfileError:
        if "preset" in recipe.sources:
            raise
        return population  # a table of one's own may name stacks of one's own: whoever knows them asks `with_software` again


def with_software(population: Population, compute: ComputeConfig, seed: int) -> Population:
    """Return the population with what software makes of its hardware; the same where its table has speeds.

    Raises:
        ProfileError: no such stack, or a device that cannot run it.
    """
    if population.hardware is None:
        return population
    made = equipped(population.hardware, compute, seed)
    return replace(
        population,
        flops_per_s=made.flops_per_s,
        usable_memory_bytes=made.usable_memory_bytes,
        memory_bytes_per_s=made.memory_bytes_per_s,
        laws=made.laws,
        sources=population.sources | made.sources | versions(made.sources),
    )


_OF_DEVICE = (
    *("memory_bytes", "usable_memory_bytes", "memory_bytes_per_s", "train_w", "idle_w", "battery_wh"),
    *("cpu_quota", "cpu_period_s"),
)
_OF_NETWORK = (
    *("framing", "down_radio_w", "down_radio_j_per_byte", "up_radio_w", "up_radio_j_per_byte"),
    *("tail_s", "tail_w"),
)
