"""Who has which rows of the data: what each client trains on or keeps apart, and what nobody trains on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from fedsim.jobs import Probe
from fedsim.rng import stream

Rows = NDArray[np.int64]
PIECE = 32
"""Rows of one probe, whatever the number of workers."""


@dataclass(frozen=True)
class Ragged(Sequence[Rows]):
    """Row numbers of each client, in one array: 10,000 clients are two objects and not 10,000.

    Attributes:
        rows: of all clients, one after the other.
        stops: where each client's end in `rows`.
    """

    rows: Rows
    stops: Rows

    @classmethod
    def of(cls, parts: Sequence[Rows]) -> Ragged:
        """Join the rows of each client."""
        return cls(np.concatenate(parts), np.cumsum([len(part) for part in parts]))

    @classmethod
    def by_owner(cls, owners: Rows, clients: int) -> Ragged:
        """Give each row to its client; a client's rows ascend."""
        return cls(np.argsort(owners, kind="stable"), np.cumsum(np.bincount(owners, minlength=clients)))

    def changed(self, change: Callable[[int, Rows], Rows]) -> Ragged:
        """Return the same number of rows of each client, as `change` gives them for a client and its rows."""
        rows = np.empty_like(self.rows)
        for client, (part, stop) in enumerate(zip(self, self.stops.tolist(), strict=True)):
            rows[stop - len(part) : stop] = change(client, part)
        return Ragged(rows, self.stops)

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.stops)

    @overload
    def __getitem__(self, client: int) -> Rows: ...
    @overload
    def __getitem__(self, client: slice) -> Sequence[Rows]: ...
    def __getitem__(self, client: int | slice) -> Rows | Sequence[Rows]:
        """Return a client's rows, as a view."""
        if isinstance(client, slice):
            return [self[i] for i in range(*client.indices(len(self)))]
        at = range(len(self))[client]
        return self.rows[self.stops[at - 1] if at else 0 : self.stops[at]]

    @property
    def sizes(self) -> list[int]:
        """Rows of each client."""
        counts: list[int] = np.diff(self.stops, prepend=0).tolist()
        return counts


@dataclass(frozen=True)
class Splits:
    """The splits of a task, as row numbers.

    Attributes:
        training: rows that each client trains on.
        held_out: rows of its own that each client does not train on.
        apart: how many rows nobody trains on has each further split (`test`, `valid`); 0: there is no such split.
        seed: of the experiment: the address of every order.
    """

    training: Ragged = field(repr=False)
    held_out: Ragged = field(repr=False)
    apart: Mapping[str, int]
    seed: int

    @classmethod
    def dealt(
        cls,
        shares: Sequence[Rows],
        holdout: float,
        apart: Mapping[str, int],
        seed: int,
        *,
        last: bool = False,
    ) -> Splits:
        """Choose the rows of each client that it does not train on: the share `holdout`, at least one.

        Args:
            shares: the rows of each client.
            holdout: above 0 and below 1.
            apart: see `Splits`.
            seed: of the experiment.
            last: the last ones, because neighbours are alike, and not drawn ones.
        """
        whole = shares if isinstance(shares, Ragged) else Ragged.of(shares)
        sizes = np.diff(whole.stops, prepend=0)
        counts = np.array([min(n - 1, max(1, round(holdout * n))) for n in sizes.tolist()], dtype=np.int64)
        training = Ragged(np.empty(int((sizes - counts).sum()), np.int64), np.cumsum(sizes - counts))
        held_out = Ragged(np.empty(int(counts.sum()), np.int64), np.cumsum(counts))
        for client, (rows, count) in enumerate(zip(whole, counts.tolist(), strict=True)):
            drawn = rows[::-1] if last else stream(seed, "holdout", client).permutation(rows)
            held_out[client][:] = np.sort(drawn[:count])
            training[client][:] = np.sort(drawn[count:])
        return cls(training, held_out, apart, seed)

    def order(self, split: str, client: int | None) -> Rows | None:
        """Return the rows of a split, None if there is no such split.

        Those of many clients, or of none, are shuffled, so that any first part is a fair sample. What nobody trains
        on is the same data for every seed, and so is its order: runs with different seeds are scored on the same rows.
        """
        if split in ("client", "shard"):
            assert client is not None
            return (self.held_out if split == "client" else self.training)[client]
        return self._shuffled.get(split)

    @cached_property
    def _shuffled(self) -> dict[str, Rows]:
        shuffled: dict[str, Rows] = {
            name: stream(0, "probes", name).permutation(count) for name, count in self.apart.items() if count
        }
        shuffled["clients"] = stream(self.seed, "probes", "clients").permutation(self.held_out.rows)
        return shuffled


def pieces(split: str, rows: int, most: int | None, client: int | None) -> list[Probe]:
    """Return probes of `PIECE` rows that cover a split's first `most` rows; None: all."""
    n = rows if most is None else min(most, rows)
    return [Probe(split, at, min(at + PIECE, n), client) for at in range(0, n, PIECE)]
