"""The links that clients share between their own and the server's: lines of homes, cells, regions.

Clients of one home are of one row of the network table. They share its line, which is the one drawn for the first of
them; each has a hop of its own to it, if the table has hops, and is as fast as the slower of both. A cell has what its
row, or the settings, say. Regions are those of `population.outages`: everyone is in one, drawn by address.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.config.network import SharedLinks
from fedsim.devices.availability import BLOCK
from fedsim.devices.groups.members import ALONE, grouped
from fedsim.devices.tables import NetworkTable
from fedsim.elementary import exp
from fedsim.errors import ProfileError, message
from fedsim.network.base import DIRECTIONS, MBPS, Direction
from fedsim.network.sharing.max_min_tree import Bottleneck
from fedsim.rng import stream

if TYPE_CHECKING:
    from fedsim.devices.population import Population

CLIENTS_WRITTEN = 20_000
"""Clients whose groups are written down one by one."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Links of one kind.

    Attributes:
        kind: `home`, `cell` or `region`.
        group: (n,) whose link each client uses, by number; `ALONE`: none of them.
        names: of the groups.
        bytes_per_s: direction -> (groups,) capacities.
    """

    kind: str
    group: Ints
    names: tuple[tuple[str, int], ...]
    bytes_per_s: dict[Direction, Floats]

    def link(self, client: int, direction: Direction) -> Bottleneck | None:
        """Return the link that a client uses; None: none of these."""
        group = int(self.group[client])
        if group == ALONE:
            return None
        kind, number = self.names[group]
        return Bottleneck((f"{self.kind} {kind}".strip(), number), float(self.bytes_per_s[direction][group]))


@dataclass(frozen=True, eq=False)
class Groups:
    """Who shares which links.

    Attributes:
        layers: from the clients' own links to the server's.
    """

    layers: tuple[Layer, ...]

    def path(self, client: int, direction: Direction) -> tuple[Bottleneck, ...]:
        """Return the shared links between a client's own and the server's, in this order."""
        links = (layer.link(client, direction) for layer in self.layers)
        return tuple(link for link in links if link is not None)

    def in_words(self) -> str:
        """Return the groups as JSON: `[name, bytes/s down, bytes/s up, [clients]]`, or the SHA-256 of that if they are many."""
        rows = []
        for layer in self.layers:
            order = np.argsort(layer.group, kind="stable")
            order = order[layer.group[order] != ALONE]
            first = np.flatnonzero(np.diff(layer.group[order], prepend=ALONE))
            for members in np.split(order, first[1:]):
                links = [layer.link(int(members[0]), direction) for direction in DIRECTIONS]
                assert links[0] is not None
                rates = [link.bytes_per_s for link in links if link is not None]
                rows.append([" ".join(map(str, links[0].name)), *rates, members.tolist()])
        text = json.dumps(rows)
        many = any(np.count_nonzero(layer.group != ALONE) > CLIENTS_WRITTEN for layer in self.layers)
        return hashlib.sha256(text.encode()).hexdigest() if many else text


def with_shared_links(
    population: Population, nets: NetworkTable, config: SharedLinks | None, seed: int, spread: float = 1.0
) -> Population:
    """Return a population whose clients share links; its rates are then of the slower of hop and line.

    Args:
        population: with the rates that were drawn for lines.
        nets: the table of its networks.
        config: who shares what; None: nobody.
        seed: address of the randomness.
        spread: 0: every hop is the median of its row.

    Raises:
        ProfileError: cells of which nothing says what they carry.
    """
    row_of = {name: row for row, name in enumerate(nets.network)}
    row = np.array([row_of[name] for name in population.network], dtype=np.int64)
    lines: dict[Direction, Floats] = {"down": population.down_bytes_per_s, "up": population.up_bytes_per_s}
    layers: list[Layer] = []
    if config is not None and config.homes is not None:
        homes = _homes(config.homes.clients, population.network, ~nets.cellular[row], lines, seed)
        lines = {d: _at_home(homes, lines[d], d) for d in DIRECTIONS}
        layers.append(homes)
    if config is not None and config.cells is not None:
        layers.append(_cells(config, population.network, row, nets, seed))
    if config is not None and config.regions is not None:
        rates = (config.regions.down_mbps, config.regions.up_mbps)
        layers.append(_regions(config.regions.regions, rates, len(row), seed))
    if nets.between.has_hops:
        hop = _hops(nets, row, seed, spread)
        lines = {d: np.minimum(lines[d], hop) for d in DIRECTIONS}
    groups = Groups(tuple(layers)) if layers else None
    sources = {} if groups is None else {"shared_links": groups.in_words()}
    return replace(
        population,
        down_bytes_per_s=lines["down"],
        up_bytes_per_s=lines["up"],
        groups=groups,
        sources=population.sources | sources,
    )


def _homes(mean: float, network: Names, fixed: Bools, lines: dict[Direction, Floats], seed: int) -> Layer:
    group, names = grouped(network, fixed, mean, seed, "homes")
    first = np.zeros(len(names), dtype=np.int64)
    members = np.flatnonzero(fixed)[::-1]
    first[group[members]] = members  # the smallest number comes last, and stays
    return Layer("home", group, tuple(names), {d: lines[d][first] for d in DIRECTIONS})


def _at_home(homes: Layer, drawn: Floats, direction: Direction) -> Floats:
    """Return the line of everyone's home, (n,); who has none keeps the rate that was drawn."""
    if not homes.names:
        return drawn
    return np.where(homes.group == ALONE, drawn, homes.bytes_per_s[direction][homes.group])


def _hops(nets: NetworkTable, row: Ints, seed: int, spread: float) -> Floats:
    """Return the rate of everyone's Wi-Fi, (n,); infinite where there is none."""
    z = np.empty(len(row))
    for block, first in enumerate(range(0, len(row), BLOCK)):
        mine = slice(first, min(first + BLOCK, len(row)))
        z[mine] = stream(seed, "wifi", block).standard_normal(BLOCK)[: mine.stop - first]
    between = nets.between
    return np.asarray(between.hop_bytes_per_s[row] * exp(spread * between.hop_sigma_ln[row] * z))


def _cells(config: SharedLinks, network: Names, row: Ints, nets: NetworkTable, seed: int) -> Layer:
    """Return the cells.

    Raises:
        ProfileError: nothing says what one of them carries.
    """
    cells = config.cells
    assert cells is not None
    group, names = grouped(network, nets.cellular[row], cells.clients, seed, "cells")
    of_row = {str(name): k for k, name in enumerate(nets.network)}
    rows = np.array([of_row[kind] for kind, _ in names], dtype=np.int64)
    rates: dict[Direction, Floats] = {}
    given = {"down": cells.down_mbps, "up": cells.up_mbps}
    of_table = {"down": nets.between.cell_down_bytes_per_s, "up": nets.between.cell_up_bytes_per_s}
    for direction in DIRECTIONS:
        mbps, from_table = given[direction], of_table[direction][rows]
        rates[direction] = from_table if mbps is None else np.full(len(rows), mbps * MBPS)
        for k in np.flatnonzero(np.isnan(rates[direction]))[:1]:
            where = f"population.shared_links.cells.{direction}_mbps"
            what = f"{nets.shares.where} does not say what a cell of {names[int(k)][0]} carries"
            fix = f"give it, or add the column cell_{direction}_mbps to the table"
            raise ProfileError(message(where, what, fix=fix))
    return Layer("cell", group, tuple(names), rates)


def _regions(regions: int, mbps: tuple[float, float], n: int, seed: int) -> Layer:
    blocks = range(-(-n // BLOCK))
    drawn = [stream(seed, "region", block).integers(regions, size=BLOCK) for block in blocks]
    group = np.concatenate(drawn)[:n].astype(np.int64)
    rates: dict[Direction, Floats] = {
        d: np.full(regions, rate * MBPS) for d, rate in zip(DIRECTIONS, mbps, strict=True)
    }
    return Layer("region", group, tuple(("", k) for k in range(regions)), rates)
