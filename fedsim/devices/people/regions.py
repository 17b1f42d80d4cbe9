"""Shares of a region: who owns what, and on which network phones are; from a table of cited figures.

A share is of what `of` names, as sources give it (iPhones: of phones; fibre: of homes on Wi-Fi), and a row of a device or network
table gets the product of the shares above it. Inside the last group, devices have the shares of their own table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.arrays import Bools, Floats, Names
from fedsim.devices.people.region_rows import LEAVES, TREE, region_problems
from fedsim.devices.tables import DeviceTable, NetworkTable
from fedsim.errors import ProfileError, message, nearest
from fedsim.files.user_tables import numbers, read_rows


@dataclass(frozen=True)
class Region:
    """The shares of one region, and the file that they are from.

    Attributes:
        where: file and region, for errors.
        name: of the region.
        shares: what is divided -> part -> share of it.
        sha256: of the file.
    """

    where: str
    name: str
    shares: dict[str, dict[str, float]]
    sha256: str

    def device_weights(self, table: DeviceTable) -> Floats:
        """Return the weight of every row of a table of hardware, (rows,); they sum to 1.

        Raises:
            ProfileError: a table that says no operating systems, or a group of which it has no row.
        """
        if table.hardware is None:
            fix = "use a table of hardware, as devices_2026.csv"
            raise ProfileError(message(self.where, "needs a table that says what devices run", fix=fix))
        within, weight = table.shares.pick(None), np.zeros(len(table.device))
        for group, share in self._of_devices("devices", 1.0):
            members = _members(group, table.tier, table.hardware.os)
            if share and not within[members].sum() > 0:
                fix = (
                    f"add one with a positive share to {table.shares.where}, or set the share of {group} to 0"
                )
                raise ProfileError(message(self.where, f"has {group}, and no device is one", fix=fix))
            if share:
                weight[members] += share * within[members] / within[members].sum()
        return weight

    def network_weights(self, table: NetworkTable) -> Floats:
        """Return the weight of every row of a network table over all clients, (rows,); they sum to 1.

        Only phones are on cellular networks, for `cellular` of their time.

        Raises:
            ProfileError: a network that is not in the table, or is of the other kind.
        """
        rows = {str(name): row for row, name in enumerate(table.network)}
        weight = np.zeros(len(rows))
        on_cellular = self.shares["devices"].get("phone", 0.0) * self.shares["phone-link"].get(
            "cellular", 0.0
        )
        for link, whole in (("cellular", on_cellular), ("wifi", 1.0 - on_cellular)):
            for name, share in self.shares[link].items():
                if name not in rows:
                    fix = nearest(name, rows)
                    raise ProfileError(message(f"{self.where}: {link}", "no such network", got=name, fix=fix))
                if bool(table.cellular[rows[name]]) != (link == "cellular"):
                    what = f"is not a network of {link} by {table.shares.where}"
                    fix = "name it under the other, or correct its access"
                    raise ProfileError(message(f"{self.where}: {link}", what, got=name, fix=fix))
                weight[rows[name]] += whole * share
        return weight

    def device_groups(self, table: DeviceTable) -> tuple[Names, ...]:
        """Return the group of every row of a table of hardware, (rows,) a level: phones; iPhones; and so on; empty: in none.

        A row whose group is not divided further stays in it.
        """
        assert table.hardware is not None  # as `device_weights` has refused
        paths = np.full((DEPTH, len(table.device)), "", dtype=object)
        for path in _paths("devices"):
            members = _members(path[-1], table.tier, table.hardware.os)
            for level in range(DEPTH):
                paths[level, members] = path[min(level, len(path) - 1)]
        return tuple(paths)

    def _of_devices(self, whole: str, share: float) -> Iterator[tuple[str, float]]:
        for part, of_it in self.shares[whole].items():
            if part in TREE:
                yield from self._of_devices(part, share * of_it)
            else:
                yield part, share * of_it


def _paths(whole: str) -> Iterator[tuple[str, ...]]:
    """Yield the way down to every group that is not divided further: phone, android-phone, phone-low."""
    for part in TREE[whole]:
        yield from ((part, *path) for path in _paths(part)) if part in TREE else ((part,),)


DEPTH = max(map(len, _paths("devices")))
"""Levels of groups."""


def _members(group: str, tier: Names, os: Names) -> Bools:
    classes, systems = LEAVES[group]
    return np.isin(tier.astype(str), classes) & np.isin(os.astype(str), systems)


def read_region(path: Path, name: str | None = None) -> Region:
    """Return the shares of one region of a table; of the only one, where no name is given.

    Raises:
        ProfileError: the first problem of the table, or it has no such region.
    """
    rows = read_rows(path)
    problem = next(region_problems(rows), None)
    if problem is not None:
        raise ProfileError(problem)
    known = list(dict.fromkeys(map(str, rows.cells["region"])))
    if name is None and len(known) > 1:
        fix = f"name one in population.region: {', '.join(known)}"
        raise ProfileError(message(str(path), "has several regions", got=len(known), fix=fix))
    name = known[0] if name is None else name
    if name not in known:
        fix = f"{nearest(name, known)} (population.region says which of a table of your own)"
        raise ProfileError(message(str(path), "no such region", got=name, fix=fix))
    shares: dict[str, dict[str, float]] = {}
    for row, share in enumerate(numbers(rows, "share").tolist()):
        if rows.cells["region"][row] == name:
            shares.setdefault(str(rows.cells["of"][row]), {})[str(rows.cells["group"][row])] = share
    return Region(f"{path} region {name}", name, shares, rows.sha256)
