"""Blocks given to clients, as one array of owners: evenly, by load, and repaired where somebody got too little."""

from __future__ import annotations

import heapq

import numpy as np

from fedsim.arrays import Floats, Ints
from fedsim.tasks._splits import Ragged

Owners = Ints
"""Of each block, the number of its client, (blocks,)."""


def repair(owners: Owners, sizes: Ints, clients: int, minimum: int) -> int | None:
    """Let clients that have too little take the last block of whoever has most; returns how many they took.

    None: it cannot be done.
    """
    load = np.zeros(clients, np.int64)
    np.add.at(load, owners, sizes)
    short = np.flatnonzero(load < minimum).tolist()
    if not short:
        return 0
    shares = Ragged.by_owner(owners, clients)
    ends = shares.stops.copy()  # of each client, where in its share the blocks end that it still has
    counts = np.diff(shares.stops, prepend=0)
    taken: dict[int, list[int]] = {}
    most = [(-size, client) for client, size in enumerate(load.tolist())]  # some entries are out of date
    heapq.heapify(most)
    moved = 0
    for client in short:
        while load[client] < minimum:
            donor = _richest(most, load, counts, client)
            if donor is None:
                return None
            own = taken.get(donor)
            block = own[-1] if own else int(shares.rows[ends[donor] - 1])
            if load[donor] - sizes[block] < minimum:
                return None
            if own:
                own.pop()
            else:
                ends[donor] -= 1
            taken.setdefault(client, []).append(block)
            owners[block] = client
            for who, change in ((donor, -1), (client, 1)):
                counts[who] += change
                load[who] += change * sizes[block]
                heapq.heappush(most, (-int(load[who]), who))
            moved += 1
    return moved


def _richest(most: list[tuple[int, int]], load: Ints, counts: Ints, client: int) -> int | None:
    """Return who has most, of those with more than one block, the first of several; not the client itself."""
    aside = None
    donor = None
    while most and donor is None:
        size, who = most[0]
        if -size != load[who] or counts[who] < 2:
            heapq.heappop(most)
        elif who == client:
            aside = heapq.heappop(most)
        else:
            donor = who
    if aside is not None:
        heapq.heappush(most, aside)
    return donor


def by_load(sizes: Floats, clients: int) -> Owners:
    """Return the client of each group: the largest first to whoever has least, the first of several."""
    owners = np.empty(sizes.size, np.int64)
    least = [(0.0, client) for client in range(clients)]
    for group in np.argsort(-sizes, kind="stable").tolist():
        load, client = least[0]
        owners[group] = client
        heapq.heapreplace(least, (load + float(sizes[group]), client))
    return owners


def evenly(items: int, parts: int) -> Ints:
    """Return the part of each of some items that are cut into parts of about equal size, the larger ones first."""
    counts = np.full(parts, items // parts)
    counts[: items % parts] += 1
    return np.repeat(np.arange(parts), counts)
