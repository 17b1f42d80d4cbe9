"""Which rows every client of a batch trains on at every step, as arrays made once before the first step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsim.jobs import Job
from fedsim.training.local import batches


@dataclass(frozen=True)
class Schedule:
    """The steps of k clients, those with more steps first, so that the active ones are always a prefix.

    Attributes:
        rows: (steps, k, longest batch) numbers of windows in the client's own data; 0 fills the shape.
        lengths: (steps, k) real rows; 0 once a client has finished.
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @cached_property
    def active(self) -> list[int]:
        """Number of clients that make each step."""
        return [int(n) for n in (self.lengths > 0).sum(axis=1)]

    @property
    def longest(self) -> list[int]:
        """Rows of the longest batch of each step."""
        return [int(n) for n in self.lengths.max(axis=1, initial=0)]

    def runs(self, step: int) -> list[tuple[int, int, int]]:
        """Return (first client, one past the last, rows) for neighbours whose batches are equally long."""
        lengths = self.lengths[step, : self.active[step]]
        cuts = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
        return [(a, b, int(lengths[a])) for a, b in itertools.pairwise(cuts)]

    @property
    def weights(self) -> NDArray[np.float64]:
        """(steps, k, longest batch): 1 / real rows, and 0 for the rows that fill the shape."""
        real = np.arange(self.rows.shape[2]) < self.lengths[:, :, None]
        weights: NDArray[np.float64] = real / np.maximum(self.lengths, 1)[:, :, None]
        return weights


def order(counts: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return client numbers, most steps first, then most windows, so that equal batches are neighbours."""
    return sorted(range(len(counts)), key=lambda i: (-counts[i], -sizes[i]))


def schedule(sizes: Sequence[int], jobs: Sequence[Job]) -> Schedule:
    """Lay out the steps of jobs (most steps first) over data of `sizes` windows."""
    made = [list(batches(n, job)) for n, job in zip(sizes, jobs, strict=True)]
    steps = max((len(steps_of) for steps_of in made), default=0)
    longest = max((rows.size for steps_of in made for rows in steps_of), default=0)
    rows = np.zeros((steps, len(jobs), longest), dtype=np.int64)
    lengths = np.zeros((steps, len(jobs)), dtype=np.int64)
    for client, steps_of in enumerate(made):
        for step, part in enumerate(steps_of):
            rows[step, client, : part.size] = part
            lengths[step, client] = part.size
    return Schedule(rows, lengths)


def pieces(clients: int, rows: int, tokens: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Yield parts of a (clients, rows) batch of `tokens` each, of at most `at_once` tokens: a function of shapes.

    Whole clients as long as one fits, else some rows of one client; at least one row.

    >>> [(c.start, c.stop) for c, _ in pieces(5, 2, 10, at_once=40)]
    [(0, 2), (2, 4), (4, 5)]
    >>> [(r.start, r.stop) for _, r in pieces(1, 5, 10, at_once=20)]
    [(0, 2), (2, 4), (4, 5)]
    """
    rows_at_once = min(rows, max(1, at_once // tokens))
    clients_at_once = max(1, at_once // (rows * tokens))
    for client in range(0, clients, clients_at_once):
        for row in range(0, rows, rows_at_once):
            yield (
                slice(client, min(client + clients_at_once, clients)),
                slice(row, min(row + rows_at_once, rows)),
            )
