"""Examples packed into rows: the longest first, each into the fullest row that has room for it."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from fedsim.arrays import Ints
from fedsim.tasks._splits import Ragged
from fedsim.training.chats.sequences import Sequences, joined


def rows_of(lengths: Ints, room: int) -> list[list[int]]:
    """Return which examples each row has, so that no row is longer than `room` (best fit decreasing).

    Examples of one row come in their order; rows in the order of their first examples.

    >>> rows_of(np.array([3, 5, 4, 2]), room=7)
    [[0, 2], [1, 3]]
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[example])
        at = bisect_left(free, (length, 0))
        if at < len(free):
            left, row = free.pop(at)
            rows[row].append(example)
        else:
            left, row = room, len(rows)
            rows.append([example])
        insort(free, (left - length, row))
    return sorted(sorted(row) for row in rows)


def packed(sequences: Sequences, shares: Ragged) -> tuple[Sequences, Ragged]:
    """Return each client's examples packed, and which of the packed rows are whose.

    Args:
        sequences: one example a row.
        shares: the examples of each client.
    """
    packs, counts = [], []
    for share in shares:
        whose = sequences[share]
        rows = rows_of(whose.lengths, sequences.most + 1)
        order = np.array([example for row in rows for example in row])
        ends = np.cumsum([len(row) for row in rows]) - 1
        laid = whose[order]
        packs.append(Sequences(laid.tokens, laid.learned, laid.places, laid.stops[ends], laid.most))
        counts.append(len(rows))
    stops = np.cumsum(counts)
    return joined(packs), Ragged(np.arange(int(stops[-1])), stops)
