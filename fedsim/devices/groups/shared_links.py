"""The links that clients share between their own and the server's: lines of homes, cells, regions.

Clients of one home are of one row of the network table. They share its line, which is the one drawn for the first of
them; each has a hop of its own to it, if the table has hops, and is as fast as the slower of both. A cell has what its
row, or the settings, say. Everyone is in a region, drawn by address as those of `population.outages`; a home, or a cell, lies in
the region of its first client.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Floats, Ints, Names
from fedsim.config.network import Cells, Regions, SharedLinks
from fedsim.devices.availability import BLOCK
from fedsim.devices.groups.members import ALONE, grouped
from fedsim.devices.tables import NetworkTable
from fedsim.elementary import exp
from fedsim.errors import ProfileError, message
from fedsim.network.base import DIRECTIONS, MBPS, Direction
from fedsim.network.sharing.max_min_tree import Bottleneck
from fedsim.rng import stream

CLIENTS_WRITTEN = 20_000
"""Clients whose groups are written down one by one."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Links of one kind.

    Attributes:
        kind: `home`, `cell` or `region`.
        group: (n,) whose link each client uses, by number; `ALONE`: none of them.
        rows: names in the table of networks, one "" where groups are of no row.
        names: of the groups: row, number within the row.
        bytes_per_s: direction -> (groups,) capacities.
    """

    kind: str
    group: Ints
    rows: Names
    names: list[tuple[int, int]]
    bytes_per_s: dict[Direction, Floats]

    def link(self, client: int, direction: Direction) -> Bottleneck | None:
        """Return the link that a client uses; None: none of these."""
        group = int(self.group[client])
        if group == ALONE:
            return None
        row, number = self.names[group]
        kind = f"{self.kind} {self.rows[row]}".strip()
        return Bottleneck((kind, number), float(self.bytes_per_s[direction][group]))


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

    def counts(self) -> str:
        """Return how many groups there are, as in `512 homes, 10 regions`."""
        return ", ".join(
            f"{len(layer.names)} {layer.kind}{'' if len(layer.names) == 1 else 's'}" for layer in self.layers
        )

    def in_words(self) -> str:
        """Return the groups as JSON: `[name, bytes/s down, bytes/s up, [clients]]`; their SHA-256 where they are many."""
        if any(np.count_nonzero(layer.group != ALONE) > CLIENTS_WRITTEN for layer in self.layers):
            return self._digest()
        rows = []
        for layer in self.layers:
            order = np.argsort(layer.group, kind="stable")
            order = order[layer.group[order] != ALONE]
            first = np.flatnonzero(np.diff(layer.group[order], prepend=ALONE))
            for members in np.split(order, first[1:]) if len(order) else ():
                links = [layer.link(int(members[0]), direction) for direction in DIRECTIONS]
                assert links[0] is not None
                rates = [link.bytes_per_s for link in links if link is not None]
                rows.append([" ".join(map(str, links[0].name)), *rates, members.tolist()])
        return json.dumps(rows)

    def _digest(self) -> str:
        """Return the SHA-256 of who is in which group, and of what these carry."""
        digest = hashlib.sha256()
        for layer in self.layers:
            digest.update(layer.kind.encode() + layer.group.astype("<i8").tobytes())
            for direction in DIRECTIONS:
                digest.update(layer.bytes_per_s[direction].astype("<f8").tobytes())
        return digest.hexdigest()


def shared_links(
    row: Ints,
    drawn: dict[Direction, Floats],
    nets: NetworkTable,
    config: SharedLinks | None,
    seed: int,
    spread: float = 1.0,
) -> tuple[dict[Direction, Floats], Groups | None]:
    """Return the rates of the clients' own links, of the slower of hop and line, and who shares which links.

    Args:
        row: (n,) each client's row of the table of networks.
        drawn: direction -> (n,) rates that were drawn for lines [bytes/s].
        nets: that table.
        config: who shares what; None: nobody.
        seed: address of the randomness.
        spread: 0: every hop is the median of its row.

    Raises:
        ProfileError: cells of which nothing says what they carry.
    """
    if config is None and not nets.between.has_hops:
        return drawn, None
    lines, layers = drawn, list[Layer]()
    if config is not None and config.homes is not None:
        homes = _homes(config.homes.clients, row, nets, lines, seed)
        lines = {d: _at_home(homes, lines[d], d) for d in DIRECTIONS}
        layers.append(homes)
    if config is not None and config.cells is not None:
        layers.append(_cells(config.cells, row, nets, seed))
    if config is not None and config.regions is not None:
        layers.append(_regions(config.regions, layers, len(row), seed))
    if nets.between.has_hops:
        hop = _hops(nets, row, seed, spread)
        lines = {d: np.minimum(lines[d], hop) for d in DIRECTIONS}
    return lines, Groups(tuple(layers)) if layers else None


def written(groups: Groups | None) -> dict[str, str]:
    """Return what the record of a run has of them; nothing where nobody shares."""
    return {} if groups is None else {"shared_links": groups.in_words()}


def _homes(mean: float, row: Ints, nets: NetworkTable, lines: dict[Direction, Floats], seed: int) -> Layer:
    fixed = ~nets.cellular[row]
    group, names = grouped(row, nets.network, fixed, mean, seed, "homes")
    first = _first(group, len(names))
    return Layer("home", group, nets.network, names, {d: lines[d][first] for d in DIRECTIONS})


def _first(group: Ints, groups: int) -> Ints:
    """Return the first client of each group, (groups,)."""
    first = np.zeros(groups, dtype=np.int64)
    members = np.flatnonzero(group != ALONE)[::-1]
    first[group[members]] = members  # the smallest number comes last, and stays
    return first


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


def _cells(cells: Cells, row: Ints, nets: NetworkTable, seed: int) -> Layer:
    """Return the cells.

    Raises:
        ProfileError: nothing says what one of them carries.
    """
    group, names = grouped(row, nets.network, nets.cellular[row], cells.clients, seed, "cells")
    rows = np.array([of for of, _ in names], dtype=np.int64)
    rates: dict[Direction, Floats] = {}
    given = {"down": cells.down_mbps, "up": cells.up_mbps}
    of_table = {"down": nets.between.cell_down_bytes_per_s, "up": nets.between.cell_up_bytes_per_s}
    for direction in DIRECTIONS:
        mbps, from_table = given[direction], of_table[direction][rows]
        rates[direction] = from_table if mbps is None else np.full(len(rows), mbps * MBPS)
        for k in np.flatnonzero(np.isnan(rates[direction]))[:1]:
            where = f"population.shared_links.cells.{direction}_mbps"
            what = f"{nets.shares.where} does not say what a cell of {nets.network[rows[k]]} carries"
            fix = f"give it, or add the column cell_{direction}_mbps to the table"
            raise ProfileError(message(where, what, fix=fix))
    return Layer("cell", group, nets.network, names, rates)


def _regions(config: Regions, inner: list[Layer], n: int, seed: int) -> Layer:
    """Return the regions; those who share an `inner` link are in the region of the first of them."""
    drawn = [
        stream(seed, "region", block).integers(config.regions, size=BLOCK) for block in range(-(-n // BLOCK))
    ]
    rates: dict[Direction, Floats] = {
        "down": np.full(config.regions, config.down_mbps * MBPS),
        "up": np.full(config.regions, config.up_mbps * MBPS),
    }
    group = np.concatenate(drawn)[:n].astype(np.int64)
    for layer in inner:
        members = np.flatnonzero(layer.group != ALONE)
        group[members] = group[_first(layer.group, len(layer.names))][layer.group[members]]
    names = [(0, k) for k in range(config.regions)]
    return Layer("region", group, np.array([""], dtype=object), names, rates)
