"""A user's data by rows: those of a pool that fedsim has dealt, or those that each client has of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedsim.arrays import Ints
from fedsim.errors import WorkerError, message
from fedsim.training.own.examples import Examples, joined
from fedsim.training.own.source import WHERE, Source


@dataclass(frozen=True)
class Data:
    """Where the examples of a row number are, and what they were when the run was prepared.

    Attributes:
        source: the user's class.
        starts: number of each client's first row, (clients + 1,), where clients have data of their own; what a
            client keeps apart lies behind the rest. None: rows are those of the pool.
        test_rows: rows of the pool that are its test; None: the class has a test of its own, or there is none.
        checksums: of each client's data (clients,), or of the pool (1,), when the run was prepared.
    """

    source: Source
    starts: Ints | None = field(repr=False)
    test_rows: Ints | None = field(repr=False)
    checksums: Ints = field(repr=False)

    def at(self, rows: Ints) -> Examples:
        """Return the examples of some rows, in their order.

        Raises:
            WorkerError: this process has other data than the one that prepared the run.
        """
        if self.starts is None:
            return self._pool()[rows]
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        clients, where = np.unique(owners, return_inverse=True)
        parts = [self._client(client) for client in clients.tolist()]
        lengths = np.cumsum([0, *(len(part) for part in parts)])
        whole = parts[0] if len(parts) == 1 else joined(parts)
        return whole[rows - self.starts[owners] + lengths[where]]

    def test(self, rows: Ints) -> Examples:
        """Return some of the examples that nobody trains on."""
        if self.test_rows is not None:
            return self._pool()[self.test_rows[rows]]
        examples = self.source.test()
        assert examples is not None, "there is such a split"
        return examples[rows]

    def _pool(self) -> Examples:
        pool = self.source.pool()
        assert pool is not None
        assert isinstance(pool.examples, Examples)
        self._hold(pool.examples, 0, "pool")
        return pool.examples

    def _client(self, client: int) -> Examples:
        assert self.starts is not None
        whole, _ = self.source.client(client)
        told = int(self.starts[client + 1] - self.starts[client])
        if len(whole) != told:
            what = f"`{self.source.name}.data({client})` has {len(whole)} examples here, and {told} were announced"
            raise WorkerError(
                message(WHERE, what, fix="let the same call give the same data, in every process")
            )
        self._hold(whole, client, f"data({client})")
        return whole

    def _hold(self, examples: Examples, at: int, method: str) -> None:
        """Hold examples against what they were when the run was prepared."""
        if not self.checksums.size or examples.checksum == self.checksums[at]:
            return
        what = f"`{self.source.name}.{method}` gives other examples here than when the run was prepared"
        raise WorkerError(message(WHERE, what, fix="let the same call give the same data, in every process"))
