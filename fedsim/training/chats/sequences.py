"""Rows of tokens of unequal length: each one example, or several that are packed and kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Bools, Ints

STEP = 16
"""Rows are filled up to a multiple of so many predicted tokens: equal shapes come again, and a quarter of them is filling."""
Rows = NDArray[np.integer]


class Grid(NamedTuple):
    """Some rows, filled up to one length.

    Attributes:
        tokens: (n, T + 1) ids, 0 where a row is filled up.
        learned: (n, T) which of the predicted tokens, columns 1 to T, are in the loss.
        places: (n, T) the place of each token that is read in its own example.
    """

    tokens: NDArray[np.int64]
    learned: Bools
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Rows of tokens, one after the other.

    The first token of an example is never predicted, and no token sees those of another example of its row.

    Attributes:
        tokens: of all rows, (N,).
        learned: which of them are in the loss, (N,).
        places: of each token in its own example, from 0, (N,).
        stops: where each row ends in them, (rows,).
        most: predicted tokens that a row may have.
    """

    tokens: NDArray[np.integer]
    learned: Bools
    places: NDArray[np.int32]
    stops: Ints
    most: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.stops)

    def __getitem__(self, rows: Rows) -> Sequences:
        """Return some rows, in the order asked for."""
        lengths = self.lengths[rows]
        stops = np.cumsum(lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(stops - lengths, lengths)
        at = np.repeat(self.stops[rows] - lengths, lengths) + within
        return Sequences(self.tokens[at], self.learned[at], self.places[at], stops, self.most)

    @cached_property
    def lengths(self) -> Ints:
        """Tokens of each row."""
        lengths: Ints = np.diff(self.stops, prepend=0)
        return lengths

    @property
    def counts(self) -> Ints:
        """Tokens of each row that a model reads: all but the last one."""
        return self.lengths - 1

    @cached_property
    def answers(self) -> Ints:
        """Tokens of each row that are in the loss."""
        total = np.concatenate([[0], np.cumsum(self.learned, dtype=np.int64)])
        answers: Ints = total[self.stops] - total[self.stops - self.lengths]
        return answers

    @cached_property
    def packed(self) -> bool:
        """Whether some row is of several examples."""
        return int(np.count_nonzero(self.places == 0)) > len(self)

    @cached_property
    def squares(self) -> Ints:
        """Of each row, the sum over its examples of the squares of the tokens that are read: what attention is made of."""
        begins = np.flatnonzero(self.places == 0)
        lengths = np.diff(np.append(begins, self.tokens.size))
        first, last = (np.searchsorted(begins, at) for at in (self.stops - self.lengths, self.stops))
        lengths[last - 1] -= 1
        total = np.concatenate([[0], np.cumsum(lengths * lengths)])
        squares: Ints = total[last] - total[first]
        return squares

    def width(self, longest: int) -> int:
        """Return the predicted tokens that rows of at most `longest` of them are filled up to."""
        return min(-(-longest // STEP) * STEP, max(self.most, longest))

    def grid(self, width: int | None = None) -> Grid:
        """Return all rows filled up to `width` predicted tokens; None: to the width of the longest one."""
        if width is None:
            width = self.width(int(self.counts.max(initial=1)))
        columns = np.arange(width + 1)
        there = columns < self.lengths[:, None]
        at = np.where(there, (self.stops - self.lengths)[:, None] + columns, 0)
        tokens = np.where(there, self.tokens[at], 0).astype(np.int64)
        places = np.where(there, self.places[at], 0).astype(np.int64)
        return Grid(tokens, (self.learned[at] & there)[:, 1:], places[:, :-1])


def joined(parts: Sequence[Sequences]) -> Sequences:
    """Return the rows of all parts, one after the other."""
    ends = np.cumsum([part.tokens.size for part in parts])
    return Sequences(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.learned for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.stops + end - part.tokens.size for part, end in zip(parts, ends, strict=True)]),
        max(part.most for part in parts),
    )
