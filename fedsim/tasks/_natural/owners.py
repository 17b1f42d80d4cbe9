"""Owners become clients: those with enough, as they are; drawn, merged or cut where their numbers differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsim.arrays import Bools, Ints
from fedsim.errors import DataError, message
from fedsim.tasks._dealing import Owners, by_load, evenly
from fedsim.tasks._proportions import apportion
from fedsim.tasks._splits import Ragged

NOBODY = -1
"""Client of a block that is dealt to nobody."""
MoreOwners = Literal["draw", "largest", "merge"]
FewerOwners = Literal["cut", "refuse"]


@dataclass(frozen=True)
class Owned:
    """Blocks and whose they are.

    Attributes:
        sizes: of each block, in `unit`.
        groups: the owner of each block, 0..G-1; an owner's blocks come in the order of time.
        minimum: least that a client has.
        unit: what sizes are counted in.
    """

    sizes: Ints
    groups: Ints
    minimum: int
    unit: str

    def held(self, kept: Bools) -> Ints:
        """Return what each owner has in some of the blocks, (G,)."""
        held = np.zeros(int(self.groups.max()) + 1, np.int64)
        np.add.at(held, self.groups[kept], self.sizes[kept])
        return held


def rooms(sizes: Ints, groups: Ints, most: int | None, when: Ints | None = None) -> Ints:
    """Return how much of each block is among the last `most` of its owner's; all of it without a bound.

    Args:
        sizes: of each block.
        groups: the owner of each.
        most: of an owner.
        when: the place of each block in time; None: they come in its order.
    """
    if most is None:
        return sizes.copy()
    order = np.lexsort((np.arange(sizes.size) if when is None else when, groups))
    ordered, owner = sizes[order], groups[order]
    until = np.cumsum(ordered)
    ends = np.searchsorted(owner, owner, side="right") - 1  # the last block of each block's owner
    room = np.empty_like(sizes)
    room[order] = np.clip(most - (until[ends] - until), 0, ordered)
    return room


def chosen(owned: Owned, clients: int, how: MoreOwners, least: int, rng: np.random.Generator) -> Owners:
    """Return the client of each block, `NOBODY` for what is left out, with as many owners as clients or more.

    Client k is the k-th of the owners in the data's order; of those merged, the largest goes first to whoever has least.

    Args:
        owned: blocks.
        clients: how many.
        how: which owners are clients.
        least: what an owner must have.
        rng: the generator of this partition's address.
    """
    held = owned.held(np.ones(owned.sizes.size, dtype=bool))
    members = np.flatnonzero(held >= least)
    client_of = np.full(held.size, NOBODY, np.int64)
    if how == "merge":
        client_of[members] = by_load(held[members].astype(np.float64), clients)
        return client_of[owned.groups]
    if how == "largest":
        taken = members[np.argsort(-held[members], kind="stable")[:clients]]
    else:
        taken = rng.permutation(members)[:clients] if members.size > clients else members
    client_of[np.sort(taken)] = np.arange(clients)
    return client_of[owned.groups]


def cut(owned: Owned, clients: int, least: int) -> Owners:
    """Return the client of each block with fewer owners than clients: runs of an owner's blocks, in proportion to its size.

    Raises:
        DataError: the owners have too little for so many clients.
    """
    held = owned.held(np.ones(owned.sizes.size, dtype=bool))
    members = np.flatnonzero(held >= least)
    blocks = Ragged.by_owner(owned.groups, held.size)
    most = np.minimum(held // owned.minimum, np.array(blocks.sizes))[members]
    if most.sum() < clients:
        what = f"{members.size} owners with at least {least} {owned.unit} can be cut into {int(most.sum())} clients"
        fix = "take fewer clients, a smaller task.partition.least, or more data"
        raise DataError(message("population.clients", what, got=clients, fix=fix))
    counts = apportion(held[members].astype(np.float64), clients, most=most)
    owners, first = np.full(owned.sizes.size, NOBODY, np.int64), 0
    for owner, n in zip(members.tolist(), counts.tolist(), strict=True):
        owners[blocks[owner]] = first + evenly(len(blocks[owner]), n)
        first += n
    return owners


def enough(owned: Owned, least: int) -> int:
    """Return how many owners have at least so much.

    Raises:
        DataError: everything belongs to one owner, or none has so much.
    """
    held = owned.held(np.ones(owned.sizes.size, dtype=bool))
    if np.count_nonzero(held) < 2:
        raise one_owner()
    count = int((held >= least).sum())
    if not count:
        what = f"none of {np.count_nonzero(held)} owners has {least} {owned.unit}: the largest has {int(held.max())}"
        fix = "set a smaller task.partition.least, or a larger task.partition.most"
        if least == owned.minimum:
            fix = "give more data of each owner, or choose another partition"
            if owned.unit == "tokens":
                fix = "set a shorter task.sequence, or choose another partition"
        raise DataError(message("task.partition", what, fix=fix))
    return count


def one_owner() -> DataError:
    """Return what is said of data that are all one owner's."""
    fix = "set task.client_column to the column that names the owner, or give each owner a folder of its own"
    return DataError(message("task.partition", "natural needs data of at least two owners", fix=fix))


def too_few(owners: int, least: int, clients: int, unit: str) -> DataError:
    """Return what is said where an owner is not to be cut."""
    what = f"{owners} owners with at least {least} {unit} are fewer than the clients"
    fix = f"set population.clients: {owners}, or task.partition.fewer_owners: cut"
    return DataError(message("task.partition.fewer_owners", what, got=clients, fix=fix))
