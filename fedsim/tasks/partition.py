"""Who has which data: partitions of blocks over clients, as index arrays.

A block is a run of consecutive text, all of one label and one natural owner. Every partition gives
each block to exactly one client, is a pure function of (blocks, seed), and is repaired, not
redrawn, when a client got too little: it takes blocks from whoever has most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedsim.arrays import Ints
from fedsim.component import Config
from fedsim.config.fields import MOST, Count
from fedsim.elementary import power
from fedsim.errors import DataError, message
from fedsim.tasks._proportions import apportion, dirichlet, take

Share = list[Ints]
"""One sorted array of block numbers a client."""


@dataclass(frozen=True)
class Blocks:
    """What is dealt out.

    Attributes:
        sizes: size of each block (tokens, or examples).
        labels: class of each block, 0..C-1; None if there are none.
        groups: natural owner of each block, 0..G-1.
    """

    sizes: Ints
    labels: Ints | None = None
    groups: Ints | None = None


class Iid(Config):
    """Shuffled, dealt evenly."""

    kind: Literal["iid"] = "iid"

    def deal(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Share:
        """Return each client's blocks."""
        return _cut(rng.permutation(blocks.sizes.size), clients)


class Contiguous(Config):
    """Client 0 has the beginning, the last one the end; runs of about equal size."""

    kind: Literal["contiguous"] = "contiguous"

    def deal(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Share:
        """Return each client's blocks."""
        middle = np.cumsum(blocks.sizes) - blocks.sizes / 2
        owner = (middle * clients // blocks.sizes.sum()).astype(np.int64)
        return _by_owner(np.minimum(owner, clients - 1), clients)


class Dirichlet(Config):
    """Each client draws its own mix of C classes; all have about the same amount.

    With p the share of each class in the corpus, a client's mix q is, by `convention`,

        per-class    q ~ Dirichlet(alpha C p)    `alpha` belongs to each class: with equal classes the symmetric
                                                 Dir(alpha), the alpha of Yurochkin et al. 2019 (1905.12022) and
                                                 Li et al. 2022 (2102.02079), who draw it over clients
        total        q ~ Dirichlet(alpha p)      `alpha` is the sum of the parameters: Hsu, Qi and Brown 2019
                                                 (1909.06335), section 3

    so that the same split has an alpha C times as large in the second: of ten classes, 0.3 per class is 3.0 in
    total. With equal classes E sum q^2 = (a / C + 1) / (a + 1) for the total a. Either way q is p on average;
    large alpha is about iid, small alpha about one class a client. Clients draw blocks without replacement in a random
    order; a class that has run out is left to the others in proportion, so the last to choose are less skewed.

    Attributes:
        alpha: concentration, larger than 0.
        convention: whose alpha it is.
        over: what a class is: `label` (a column, or the groups of the built-in text), `topics`
            (k-means of TF-IDF vectors of the blocks), or `auto`: the label if there is one.
        topics: number of topics.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    convention: Literal["per-class", "total"] = "per-class"
    over: Literal["auto", "label", "topics"] = "auto"
    topics: Annotated[int, Field(ge=2, le=MOST)] = 10

    def deal(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Share:
        """Return each client's blocks."""
        pools = _pools(blocks, rng)
        left = np.array([len(pool) for pool in pools])
        share_of_class = left / left.sum()
        total = self.alpha * (len(pools) if self.convention == "per-class" else 1)
        amounts = np.diff(np.linspace(0, left.sum(), clients + 1).astype(np.int64))
        share: Share = [np.empty(0, np.int64)] * clients
        for client, amount in zip(rng.permutation(clients).tolist(), amounts.tolist(), strict=True):
            mix = dirichlet(total * share_of_class, rng)
            taken = take(mix, left, amount, rng)
            share[client] = np.concatenate([pools[c][left[c] - k : left[c]] for c, k in enumerate(taken)])
            left = left - taken
        return share


class Natural(Config):
    """As the data came: by `task.client_column`, else by folder (`alice/train.txt`), else by file or document.

    With more owners than clients, whole owners are dealt, largest first to whoever has least; with
    fewer, an owner's text is cut into runs for several clients, in proportion to its size.
    """

    kind: Literal["natural"] = "natural"

    def deal(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Share:
        """Return each client's blocks.

        Raises:
            DataError: everything belongs to one owner.
        """
        if blocks.groups is None or len(np.unique(blocks.groups)) < 2:
            fix = "set task.client_column to the column that names the owner, or give each owner a folder of its own"
            raise DataError(message("task.partition", "natural needs data of at least two owners", fix=fix))
        sizes = np.bincount(blocks.groups, weights=blocks.sizes).astype(np.float64)
        members = [np.flatnonzero(blocks.groups == g) for g in range(sizes.size)]
        if sizes.size >= clients:
            load = np.zeros(clients)
            share: list[list[Ints]] = [[] for _ in range(clients)]
            for group in np.argsort(-sizes, kind="stable"):
                client = int(np.argmin(load))
                share[client].append(members[group])
                load[client] += sizes[group]
            return [np.concatenate(parts) for parts in share]
        counts = apportion(sizes, clients, most=np.full(sizes.size, clients))
        return [part for group, n in zip(members, counts, strict=True) for part in _cut(group, int(n))]


class Pathological(Config):
    """Each client has only `classes` classes (McMahan et al. 2017, arXiv 1602.05629: shards of sorted data).

    Attributes:
        classes: classes of a client.
        over, topics: what a class is, as for `dirichlet`.
    """

    kind: Literal["pathological"] = "pathological"
    classes: Count = 2
    over: Literal["auto", "label", "topics"] = "auto"
    topics: Annotated[int, Field(ge=2, le=MOST)] = 10

    def deal(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Share:
        """Return each client's blocks.

        Raises:
            DataError: more classes a client than there are, or too few slots for all classes.
        """
        pools = _pools(blocks, rng)
        total, slots = len(pools), clients * self.classes
        if self.classes > total or slots < total:
            fix = f"choose classes between {-(-total // clients)} and {total}"
            what = f"{clients} clients of {self.classes} classes cannot share {total} classes"
            raise DataError(message("task.partition", what, fix=fix))
        sizes = np.array([len(pool) for pool in pools], dtype=np.float64)
        counts = apportion(sizes, slots, most=np.full(total, clients))
        order = rng.permutation(clients)
        share: list[list[Ints]] = [[] for _ in range(clients)]
        slot = 0
        for label in rng.permutation(
            total
        ):  # a class has <= clients consecutive slots: never one client twice
            for part in _cut(pools[label], int(counts[label])):
                share[order[slot % clients]].append(part)
                slot += 1
        return [np.concatenate(parts) for parts in share]


class Quantity(Config):
    """Shuffled, but unequal amounts.

    Attributes:
        law: `lognormal` with `sigma`, or `zipf`: the k-th largest client has 1 / k^`exponent`.
        sigma: spread of the logarithm.
        exponent: of the Zipf law.
    """

    kind: Literal["quantity"] = "quantity"
    law: Literal["lognormal", "zipf"] = "lognormal"
    sigma: Annotated[float, Field(ge=0, le=5)] = 1.0
    exponent: Annotated[float, Field(ge=0, le=5)] = 1.0

    def deal(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Share:
        """Return each client's blocks."""
        if self.law == "zipf":
            weights = 1.0 / power(np.arange(1.0, clients + 1), self.exponent)
            weights = weights[rng.permutation(clients)]
        else:
            weights = rng.lognormal(0.0, self.sigma, clients)
        n = blocks.sizes.size
        stops = np.rint(np.cumsum(weights) / weights.sum() * n).astype(np.int64)
        return list(np.split(rng.permutation(n), stops[:-1]))


Partition = Annotated[
    Iid | Contiguous | Dirichlet | Natural | Pathological | Quantity, Field(discriminator="kind")
]


def partition(
    how: Iid | Contiguous | Dirichlet | Natural | Pathological | Quantity,
    blocks: Blocks,
    clients: int,
    minimum: int,
    rng: np.random.Generator,
    unit: str = "tokens",
) -> tuple[Share, int]:
    """Return each client's blocks in their own order, and how many blocks the repair moved.

    Args:
        how: the partition.
        blocks: what to deal; every block goes to exactly one client.
        clients: how many clients.
        minimum: least total size of a client.
        rng: the generator of this partition's address.
        unit: what sizes are counted in, for messages.

    Raises:
        DataError: there is not enough data for that many clients.
    """
    total, n = int(blocks.sizes.sum()), blocks.sizes.size
    if n < clients or total < clients * minimum:
        what = (
            f"{clients} clients need {clients * minimum} {unit} in {clients} blocks, there are {total} in {n}"
        )
        fix = "take fewer clients, a shorter task.sequence, or more text"
        if unit != "tokens":
            fix = f"take fewer clients, or more {unit}"
        raise DataError(message("population.clients", f"too many for the data: {what}", fix=fix))
    share = [np.sort(part).astype(np.int64) for part in how.deal(blocks, clients, rng)]
    return _repaired(share, blocks.sizes, minimum, unit)


def _repaired(share: Share, sizes: Ints, minimum: int, unit: str) -> tuple[Share, int]:
    held = [list(part) for part in share]
    load = np.array([int(sizes[part].sum()) for part in share], dtype=np.int64)
    moved = 0
    for client in np.flatnonzero(load < minimum).tolist():
        while load[client] < minimum:
            donor = next(
                (d for d in np.argsort(-load, kind="stable").tolist() if d != client and len(held[d]) > 1),
                None,
            )
            block = None if donor is None else held[donor][-1]
            if donor is None or block is None or load[donor] - sizes[block] < minimum:
                what = f"the data cannot be cut so that each of {len(share)} clients has {minimum} {unit}"
                fix = f"take fewer clients or more {'text' if unit == 'tokens' else unit}"
                raise DataError(message("population.clients", what, fix=fix))
            held[donor].pop()
            held[client].append(block)
            load[donor] -= sizes[block]
            load[client] += sizes[block]
            moved += 1
    return [np.sort(np.array(part, dtype=np.int64)) for part in held], moved


def _by_owner(owner: Ints, clients: int) -> Share:
    return [np.flatnonzero(owner == client) for client in range(clients)]


def _cut(items: Ints, parts: int) -> Share:
    return [np.asarray(part, dtype=np.int64) for part in np.array_split(items, parts)]


def _pools(blocks: Blocks, rng: np.random.Generator) -> Share:
    """Return the shuffled blocks of each class."""
    assert blocks.labels is not None, "the task gives labels or topics"
    labels = np.unique(blocks.labels)
    return [rng.permutation(np.flatnonzero(blocks.labels == label)) for label in labels]
