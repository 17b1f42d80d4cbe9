"""Who has which data: partitions of blocks over clients, as index arrays.

A block is a run of consecutive text, all of one label and one natural owner. Every partition gives
each block to exactly one client (`natural` may leave some out), is a pure function of (blocks, seed), and is repaired,
not redrawn, when a client got too little: it takes blocks from whoever has most. However many clients there
are, a partition is two arrays.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from fedsim.arrays import Ints
from fedsim.component import Config
from fedsim.config.fields import MOST, Count, Positive
from fedsim.elementary import power
from fedsim.errors import DataError, Shown, invalid, message
from fedsim.tasks._dealing import Owners, evenly, repair
from fedsim.tasks._natural import owners as natural
from fedsim.tasks._natural.owners import NOBODY
from fedsim.tasks._proportions import apportion, dirichlet, take
from fedsim.tasks._splits import Ragged


@dataclass(frozen=True)
class Blocks:
    """What is dealt out.

    Attributes:
        sizes: size of each block (tokens, or examples).
        labels: class of each block, 0..C-1; None if there are none.
        groups: natural owner of each block, 0..G-1.
        minimum: least total size of a client.
        unit: what sizes are counted in.
    """

    sizes: Ints
    labels: Ints | None = None
    groups: Ints | None = None
    minimum: int = 1
    unit: str = "tokens"


class Dealing(Config):
    """A way to deal blocks to clients."""

    @abstractmethod
    def owners(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Owners:
        """Return each block's client; -1: nobody's."""


class Iid(Dealing):
    """Shuffled, dealt evenly."""

    kind: Literal["iid"] = "iid"

    def owners(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Owners:
        """Return each block's client."""
        owners = np.empty(blocks.sizes.size, np.int64)
        owners[rng.permutation(blocks.sizes.size)] = evenly(blocks.sizes.size, clients)
        return owners


class Contiguous(Dealing):
    """Client 0 has the beginning, the last one the end; runs of about equal size."""

    kind: Literal["contiguous"] = "contiguous"

    def owners(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Owners:
        """Return each block's client."""
        middle = np.cumsum(blocks.sizes) - blocks.sizes / 2
        owners: Owners = (middle * clients // blocks.sizes.sum()).astype(np.int64)
        return np.minimum(owners, clients - 1)


class Dirichlet(Dealing):
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
    alpha: Positive = 0.5
    convention: Literal["per-class", "total"] = "per-class"
    over: Literal["auto", "label", "topics"] = "auto"
    topics: Annotated[int, Field(ge=2, le=MOST)] = 10

    def owners(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Owners:
        """Return each block's client."""
        pools = _pools(blocks, rng)
        left = np.array([len(pool) for pool in pools])
        share_of_class = left / left.sum()
        total = self.alpha * (len(pools) if self.convention == "per-class" else 1)
        amounts = np.diff(np.linspace(0, left.sum(), clients + 1).astype(np.int64))
        owners = np.empty(blocks.sizes.size, np.int64)
        for client, amount in zip(rng.permutation(clients).tolist(), amounts.tolist(), strict=True):
            mix = dirichlet(total * share_of_class, rng)
            taken = take(mix, left, amount, rng)
            for pool, end, count in zip(pools, left.tolist(), taken.tolist(), strict=True):
                owners[pool[end - count : end]] = client
            left = left - taken
        return owners


class Natural(Dealing):
    """One client for one owner, with what it has: by `task.client_column`, else by folder, else by file or document.

    With more owners than clients `more_owners` says whose data are dealt; with fewer, `fewer_owners`. An owner that has
    less than a client needs (two windows, two examples) is no client, unless it is merged with others.

    Attributes:
        least: owners with less are left out, in tokens of text, examples or images.
        most: of an owner with more only the last so many are dealt: a device keeps its latest data.
        more_owners: `draw`: as many owners as clients, drawn by address; `largest`: those with most data; `merge`: all of
            them, whole, the largest first to whoever has least, so that clients are of about equal size.
        fewer_owners: `cut`: an owner's data are cut into runs for several clients, in proportion to its size; `refuse`.
    """

    kind: Literal["natural"] = "natural"
    least: Count | None = None
    most: Count | None = None
    more_owners: natural.MoreOwners = "draw"
    fewer_owners: natural.FewerOwners = "cut"

    @model_validator(mode="after")
    def _a_range(self) -> Natural:
        if self.least is not None and self.most is not None and self.least > self.most:
            fix = f"set least to {self.most} or less, or a larger most"
            raise invalid("`least` is more than `most`", fix=fix, got=Shown(f"{self.least} and {self.most}"))
        return self

    def owners(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Owners:
        """Return each block's client, -1 for what is left out.

        Raises:
            DataError: everything belongs to one owner, or the owners do not make so many clients.
        """
        if blocks.groups is None:
            raise natural.one_owner()
        if self.most is not None and self.most < blocks.minimum:
            what, fix = f"a client needs {blocks.minimum} {blocks.unit}", f"set at least {blocks.minimum}"
            raise DataError(message("task.partition.most", what, got=self.most, fix=fix))
        within = np.flatnonzero(natural.rooms(blocks.sizes, blocks.groups, self.most) == blocks.sizes)
        owned = natural.Owned(blocks.sizes[within], blocks.groups[within], blocks.minimum, blocks.unit)
        least = max(self.least or 1, 1 if self.more_owners == "merge" else blocks.minimum)
        count = natural.enough(owned, least)
        owners = np.full(blocks.sizes.size, NOBODY, np.int64)
        if count >= clients:
            owners[within] = natural.chosen(owned, clients, self.more_owners, least, rng)
            return owners
        if self.fewer_owners == "refuse":
            raise natural.too_few(count, least, clients, blocks.unit)
        owners[within] = natural.cut(owned, clients, max(least, blocks.minimum))
        return owners


class Pathological(Dealing):
    """Each client has only `classes` classes (McMahan et al. 2017, arXiv 1602.05629: shards of sorted data).

    Attributes:
        classes: classes of a client.
        over, topics: what a class is, as for `dirichlet`.
    """

    kind: Literal["pathological"] = "pathological"
    classes: Count = 2
    over: Literal["auto", "label", "topics"] = "auto"
    topics: Annotated[int, Field(ge=2, le=MOST)] = 10

    def owners(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Owners:
        """Return each block's client.

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
        owners, slot = np.empty(blocks.sizes.size, np.int64), 0
        for label in rng.permutation(
            total
        ):  # a class has <= clients consecutive slots: never one client twice
            pool, count = pools[label], int(counts[label])
            owners[pool] = order[(slot + evenly(len(pool), count)) % clients]
            slot += count
        return owners


class Quantity(Dealing):
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

    def owners(self, blocks: Blocks, clients: int, rng: np.random.Generator) -> Owners:
        """Return each block's client."""
        if self.law == "zipf":
            weights = 1.0 / power(np.arange(1.0, clients + 1), self.exponent)
            weights = weights[rng.permutation(clients)]
        else:
            weights = rng.lognormal(0.0, self.sigma, clients)
        n = blocks.sizes.size
        stops = np.rint(np.cumsum(weights) / weights.sum() * n).astype(np.int64)
        stops[-1] = n
        owners = np.empty(n, np.int64)
        owners[rng.permutation(n)] = np.repeat(np.arange(clients), np.diff(stops, prepend=0))
        return owners


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
) -> tuple[Ragged, int]:
    """Return each client's blocks in their own order, and how many blocks the repair moved.

    Args:
        how: the partition.
        blocks: what to deal; no block goes to two clients.
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
    owners = how.owners(replace(blocks, minimum=minimum, unit=unit), clients, rng)
    dealt = np.flatnonzero(owners != NOBODY)
    owners = owners[dealt]
    moved = repair(owners, blocks.sizes[dealt], clients, minimum)
    if moved is None:
        what = f"the data cannot be cut so that each of {clients} clients has {minimum} {unit}"
        fix = f"take fewer clients or more {'text' if unit == 'tokens' else unit}"
        raise DataError(message("population.clients", what, fix=fix))
    shares = Ragged.by_owner(owners, clients)
    return Ragged(dealt[shares.rows], shares.stops), moved


def _pools(blocks: Blocks, rng: np.random.Generator) -> list[Ints]:
    """Return the shuffled blocks of each class."""
    assert blocks.labels is not None, "the task gives labels or topics"
    labels = np.unique(blocks.labels)
    return [rng.permutation(np.flatnonzero(blocks.labels == label)) for label in labels]
