"""Partitions dealt as lists, one array a client: slow and plain, what `fedsim.tasks.partition` gives to the last block."""

from __future__ import annotations

import numpy as np

from fedsim.elementary import power
from fedsim.tasks._proportions import apportion, dirichlet, take


def dealt(how, blocks, clients, rng, minimum=1):
    """Each client's blocks, ascending; before any repair. None: it cannot be."""
    share = (
        natural(how, blocks, clients, minimum)
        if how.kind == "natural"
        else DEALS[how.kind](how, blocks, clients, rng)
    )
    return share and [np.sort(part).astype(np.int64) for part in share]


def repaired(share, sizes, minimum):
    """The same with the last block of whoever has most given to whoever has too little; and how many were given. None: it cannot be."""
    if share is None:
        return None
    held = [list(part) for part in share]
    load = np.array([int(sizes[part].sum()) for part in share], dtype=np.int64)
    moved = 0
    for client in np.flatnonzero(load < minimum).tolist():
        while load[client] < minimum:
            order = np.argsort(-load, kind="stable").tolist()
            donor = next((d for d in order if d != client and len(held[d]) > 1), None)
            block = None if donor is None else held[donor][-1]
            if donor is None or load[donor] - sizes[block] < minimum:
                return None
            held[donor].pop()
            held[client].append(block)
            load[donor] -= sizes[block]
            load[client] += sizes[block]
            moved += 1
    return [np.sort(np.array(part, dtype=np.int64)) for part in held], moved


def iid(how, blocks, clients, rng):
    return np.array_split(rng.permutation(blocks.sizes.size), clients)


def contiguous(how, blocks, clients, rng):
    middle = np.cumsum(blocks.sizes) - blocks.sizes / 2
    owner = (middle * clients // blocks.sizes.sum()).astype(np.int64)
    return [np.flatnonzero(np.minimum(owner, clients - 1) == client) for client in range(clients)]


def by_dirichlet(how, blocks, clients, rng):
    pools = _pools(blocks, rng)
    left = np.array([len(pool) for pool in pools])
    share_of_class = left / left.sum()
    total = how.alpha * (len(pools) if how.convention == "per-class" else 1)
    amounts = np.diff(np.linspace(0, left.sum(), clients + 1).astype(np.int64))
    share = [np.empty(0, np.int64)] * clients
    for client, amount in zip(rng.permutation(clients).tolist(), amounts.tolist(), strict=True):
        taken = take(dirichlet(total * share_of_class, rng), left, amount, rng)
        share[client] = np.concatenate([pools[c][left[c] - k : left[c]] for c, k in enumerate(taken)])
        left = left - taken
    return share


def natural(how, blocks, clients, minimum):
    """Owners merged where they are many, cut into clients where they are few."""
    sizes = np.bincount(blocks.groups, weights=blocks.sizes).astype(np.float64)
    members = [np.flatnonzero(blocks.groups == g) for g in range(sizes.size)]
    if sizes.size >= clients:
        load = np.zeros(clients)
        share = [[] for _ in range(clients)]
        for group in np.argsort(-sizes, kind="stable"):
            client = int(np.argmin(load))
            share[client].append(members[group])
            load[client] += sizes[group]
        return [np.concatenate(parts) for parts in share]
    large = [g for g in range(sizes.size) if sizes[g] >= minimum]
    most = np.array([min(len(members[g]), int(sizes[g]) // minimum) for g in large])
    if most.sum() < clients:
        return None
    counts = apportion(sizes[large], clients, most=most)
    return [part for g, n in zip(large, counts, strict=True) for part in np.array_split(members[g], int(n))]


def pathological(how, blocks, clients, rng):
    pools = _pools(blocks, rng)
    sizes = np.array([len(pool) for pool in pools], dtype=np.float64)
    counts = apportion(sizes, clients * how.classes, most=np.full(len(pools), clients))
    order = rng.permutation(clients)
    share = [[] for _ in range(clients)]
    slot = 0
    for label in rng.permutation(len(pools)):
        for part in np.array_split(pools[label], int(counts[label])):
            share[order[slot % clients]].append(part)
            slot += 1
    return [np.concatenate(parts) for parts in share]


def quantity(how, blocks, clients, rng):
    if how.law == "zipf":
        weights = 1.0 / power(np.arange(1.0, clients + 1), how.exponent)
        weights = weights[rng.permutation(clients)]
    else:
        weights = rng.lognormal(0.0, how.sigma, clients)
    n = blocks.sizes.size
    stops = np.rint(np.cumsum(weights) / weights.sum() * n).astype(np.int64)
    return np.split(rng.permutation(n), stops[:-1])


def _pools(blocks, rng):
    return [rng.permutation(np.flatnonzero(blocks.labels == label)) for label in np.unique(blocks.labels)]


DEALS = {
    "iid": iid,
    "contiguous": contiguous,
    "dirichlet": by_dirichlet,
    "pathological": pathological,
    "quantity": quantity,
}
