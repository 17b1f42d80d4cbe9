"""What of a client is last, and what is said of owners: the part that it does not train on is the end of its data."""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Bools, Ints
from fedsim.tasks._natural.owners import rooms
from fedsim.tasks._splits import Ragged, Rows
from fedsim.tasks.partition import Blocks, Dealing, Natural

SHORT_OF = 1e-9
"""Of a size: less of it is nothing."""


def last_at_the_end(
    shares: Ragged, sizes: Ints, groups: Ints | None, holdout: float, when: Ints | None, *, timed: bool
) -> Ragged:
    """Return each client's blocks with the latest at the end, so that the end is what it holds out.

    Where moments are known they alone decide. Else a client of several owners has, at the end, the last part of each of
    them: nobody can say which of two owners wrote later.

    Args:
        shares: blocks of each client.
        sizes: of each block.
        groups: its owner; None: all of one.
        holdout: the share that is held out.
        when: the place of each block in the data; None: blocks come in its order.
        timed: whether `when` is an order of time.
    """

    def reordered(client: int, blocks: Rows) -> Rows:
        places = blocks if when is None else when[blocks]
        ordered: Rows = blocks[np.argsort(places, kind="stable")]
        if timed or groups is None:
            return ordered
        owners = groups[ordered]
        if (owners == owners[0]).all():
            return ordered
        late = _is_late(sizes[ordered], owners, holdout)
        return np.concatenate([ordered[~late], ordered[late]])

    return shares.changed(reordered)


def _is_late(sizes: Ints, owners: Ints, holdout: float) -> Bools:
    """Tell of each block of one client whether it lies in the last part of its owner's; the last block always does."""
    late = np.zeros(sizes.size, dtype=bool)
    for owner in np.unique(owners):
        mine = np.flatnonzero(owners == owner)
        before = np.cumsum(sizes[mine]) - sizes[mine]
        total = float(sizes[mine].sum())
        late[mine] = before >= total * (1 - holdout) - SHORT_OF * total
        late[mine[-1]] = mine.size > 1
    return late


def said_of_owners(
    how: Dealing, blocks: Blocks, shares: Ragged, unit: str, over: int | None = None
) -> tuple[dict[str, object], list[str]]:
    """Return what is said of owners and clients where they are natural: facts, and sentences about what is left out.

    Args:
        how: the partition.
        blocks: what was dealt.
        shares: blocks of each client.
        unit: of sizes.
        over: what the cap left out; None: what it leaves out of the blocks.
    """
    if not isinstance(how, Natural) or blocks.groups is None:
        return {}, []
    if over is None:
        over = int((blocks.sizes - rooms(blocks.sizes, blocks.groups, how.most)).sum())
    return owner_facts(blocks.groups, shares, over, unit)


def owner_facts(
    groups: Ints, shares: Ragged, left_out: int, unit: str
) -> tuple[dict[str, object], list[str]]:
    """Return what is said of owners and clients: facts, and sentences about what is left out.

    Args:
        groups: owner of each block.
        shares: blocks of each client.
        left_out: what the cap left out, in `unit`.
        unit: of sizes.
    """
    total = np.unique(groups).size
    client = np.repeat(np.arange(len(shares)), shares.sizes)
    pairs = np.unique(np.stack([groups[shares.rows], client]), axis=1)
    dealt = np.unique(pairs[0]).size
    facts: dict[str, object] = {
        "owners": int(total),
        "owners_with_a_client": int(dealt),
        "owners_per_client": _range(np.bincount(pairs[1], minlength=len(shares))),
        "clients_per_owner": _range(np.unique(pairs[0], return_counts=True)[1]),
        f"{unit}_over_the_cap": int(left_out),
    }
    notices = []
    if dealt < total:
        notices.append(f"data of {total - dealt} of {total} owners are no client's")
    if left_out:
        notices.append(f"{left_out} {unit} beyond task.partition.most are left out, each owner's earliest")
    return facts, notices


def _range(counts: Ints) -> list[int]:
    return [int(counts.min()), int(np.median(counts)), int(counts.max())]
