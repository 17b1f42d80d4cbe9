"""A user's data dealt to clients: a pool by a partition, or what each client has of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Ints
from fedsim.errors import DataError, ExperimentError, message
from fedsim.jobs import TaskContext
from fedsim.rng import stream
from fedsim.tasks._natural.last import said_of_owners
from fedsim.tasks._splits import Ragged, Splits
from fedsim.tasks._torch.settings import TorchSettings
from fedsim.tasks.partition import Blocks, Dirichlet, Natural, Pathological, partition
from fedsim.training.own.base import Labels, Pool
from fedsim.training.own.data import Data
from fedsim.training.own.examples import Examples
from fedsim.training.own.source import WHERE, Source, asking

LEAST = 2
"""Examples of a client: one to train on, one held out."""
TEST_SHARE = 0.1
"""Of a pool, where the class has no test examples."""


@dataclass(frozen=True)
class Deal:
    """Who has which examples, where they are, facts about that, and sentences about what nobody has."""

    data: Data
    splits: Splits
    facts: dict[str, object]
    notices: list[str]


def dealt(config: TorchSettings, source: Source, context: TaskContext) -> Deal:
    """Deal a pool, or count what each client has.

    Raises:
        DataError: what the class gives is no data, or too little for so many clients.
    """
    test = source.test()
    if test is not None and not len(test):
        what, fix = f"`{source.name}.test` has no example", "return None where there are none"
        raise DataError(message(WHERE, what, fix=fix))
    pool = source.pool()
    if pool is None:
        return _own(config, source, context, test)
    return _pooled(config, source, context, pool, test)


def _pooled(
    config: TorchSettings, source: Source, context: TaskContext, pool: Pool, test: Examples | None
) -> Deal:
    examples = pool.examples
    assert isinstance(examples, Examples)
    rows, test_rows = np.arange(len(examples)), None
    if test is None:
        order = stream(0, "test").permutation(len(examples))
        apart = max(1, round(TEST_SHARE * len(examples)))
        test_rows, rows = np.sort(order[:apart]), np.sort(order[apart:])
    labels = _column(pool.labels, source, "labels", len(examples))
    owners = _column(pool.owners, source, "owners", len(examples))
    how = config.dealing
    _check_partition(config, source, labels is not None, owners is not None)
    blocks = Blocks(
        np.ones(rows.size, dtype=np.int64),
        None if labels is None else labels[rows],
        None if owners is None else owners[rows],
    )
    rng = stream(context.seed, "partition")
    shares, repaired = partition(how, blocks, context.clients, LEAST, rng, unit="examples")
    apart_sizes = {"test": len(test or ()) if test_rows is None else len(test_rows)}
    of_owners, notices = said_of_owners(how, blocks, shares, "examples")
    shares = Ragged(rows[shares.rows], shares.stops)
    splits = Splits.dealt(shares, config.holdout, apart_sizes, context.seed, last=_last(config))
    facts: dict[str, object] = {"partition": how.kind, "repaired_blocks": repaired, **of_owners}
    if labels is not None:
        facts["classes"] = int(np.unique(labels).size)
    checksums = np.array([examples.checksum], dtype=np.int64)
    return Deal(Data(source, None, test_rows, checksums), splits, facts, notices)


def _check_partition(config: TorchSettings, source: Source, labelled: bool, owned: bool) -> None:
    """Hold a partition against what a pool says of its examples."""
    how = config.dealing
    if isinstance(how, Dirichlet | Pathological):
        if how.over == "topics":
            what, fix = "examples of one's own have no topics", "leave it out: the pool's labels are used"
            raise DataError(message("task.partition.over", what, got=how.over, fix=fix))
        if not labelled:
            what = f"`{source.name}.pool` gives no labels, which {how.kind} needs"
            raise DataError(message("task.partition", what, fix="return Pool(examples, labels=...)"))
    if isinstance(how, Natural) and not owned:
        what = f"`{source.name}.pool` gives no owners, which natural needs"
        raise DataError(message("task.partition", what, fix="return Pool(examples, owners=...)"))


def _column(values: Labels | None, source: Source, name: str, n: int) -> Ints | None:
    """Return labels or owners as numbers 0, 1, ..., (n,)."""
    if values is None:
        return None
    column = np.asarray(values)
    if column.shape != (n,):
        what = f"`{source.name}.pool` has {name} of shape {column.shape} for {n} examples"
        raise DataError(message(WHERE, what, fix=f"give one of the {name} an example"))
    named = column.tolist() if column.dtype.kind in "fO" else []
    missing = [v is None or (isinstance(v, float) and math.isnan(v)) for v in named]
    if any(missing):
        what = f"`{source.name}.pool` gives example {missing.index(True)} none of the {name}"
        raise DataError(message(WHERE, what, fix=f"give each example one of the {name}, numbers or all text"))
    numbers: Ints = np.unique(column, return_inverse=True)[1].astype(np.int64)
    return numbers


def _own(config: TorchSettings, source: Source, context: TaskContext, test: Examples | None) -> Deal:
    if config.partition is not None:
        what = f"`{source.name}` gives each client its own data, and nothing is left to deal"
        fix = "remove task.partition, or define `pool` in the place of `data`"
        raise ExperimentError(message("task.partition", what, got=config.partition.kind, fix=fix))
    counts, checksums = _counts(source, context.clients)
    starts = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
    rows = np.arange(starts[-1])
    apart_sizes = {"test": 0 if test is None else len(test)}
    data = Data(source, starts, None, checksums)
    if not counts[:, 1].any():
        if few := np.flatnonzero(counts[:, 0] < LEAST).tolist():
            what = f"`{source.name}.data({few[0]})` has one example, and one is to be held out"
            raise DataError(message(WHERE, what, fix="give each client two, or define `held_out`"))
        whole, share = Ragged(rows, starts[1:]), config.holdout
        splits = Splits.dealt(whole, share, apart_sizes, context.seed, last=_last(config))
        return Deal(data, splits, {"partition": "data of each client"}, [])
    if (counts[:, 1] == 0).any():
        client = int(np.flatnonzero(counts[:, 1] == 0)[0])
        what = f"`{source.name}.held_out({client})` has no example, and those of other clients have"
        raise DataError(message(WHERE, what, fix="keep something apart for every client, or for none"))
    owners = np.repeat(np.arange(context.clients), counts.sum(axis=1))
    training = rows - starts[owners] < counts[owners, 0]
    splits = Splits(
        Ragged(rows[training], np.cumsum(counts[:, 0])),
        Ragged(rows[~training], np.cumsum(counts[:, 1])),
        apart_sizes,
        context.seed,
    )
    return Deal(data, splits, {"partition": "data of each client"}, [])


def _last(config: TorchSettings) -> bool:
    return config.holdout_from == "last"


def _counts(source: Source, clients: int) -> tuple[Ints, Ints]:
    """Return the examples that each client trains on and keeps apart, (clients, 2), and checksums of those that were read.

    Where the class says sizes and keeps nothing apart, nothing is read; there are then no checksums.

    Raises:
        DataError: a client has nothing, or other examples than client 0.
    """
    counts, sizes = np.zeros((clients, 2), dtype=np.int64), _sizes(source, clients)
    if sizes is not None:
        counts[:, 0] = sizes
        return counts, np.empty(0, dtype=np.int64)
    checksums, (first, _) = np.zeros(clients, dtype=np.int64), source.client(0)
    for client in range(clients):
        examples, own = source.client(client)
        if examples.kind != first.kind:
            what = f"`{source.name}.data({client})` gives {examples}, and `data(0)` {first}"
            fix = "give all clients examples of one shape and type"
            raise DataError(message(WHERE, what, fix=fix))
        counts[client] = own, len(examples) - own
        checksums[client] = examples.checksum
    return counts, checksums


def _sizes(source: Source, clients: int) -> Ints | None:
    """Return how many examples each client will have (clients,), as the class says without reading them; None: it does not."""
    task = source.task
    examples, own = source.client(0)
    if own < len(examples):
        return None
    sizes = np.zeros(clients, dtype=np.int64)
    for client in range(clients):
        with asking(task, "size"):
            size = task.size(client)
        if size is None:
            return None
        if not isinstance(size, int | np.integer) or size < 1:
            fix = "give every client of population.clients at least one example, or take fewer clients"
            raise DataError(message(WHERE, f"`{source.name}.size({client})` is no count", got=size, fix=fix))
        sizes[client] = size
    return sizes
