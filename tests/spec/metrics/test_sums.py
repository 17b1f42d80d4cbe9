"""What pieces of a score have in common: sums that add up, and arrays that are put one after the other."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fedsim.metrics.sums import Stacked, add_sums


def test_numbers_and_arrays_add_up_and_tuples_as_arrays():
    added = add_sums(
        [{"n": 1, "x": np.array([1, 2]), "t": (1.0, 2.0)}, {"n": 2.5, "x": [3, 4], "t": (3.0, 4.0)}]
    )

    assert added["n"] == 3.5
    assert isinstance(added["n"], float)
    np.testing.assert_array_equal(added["x"], [4, 6])
    np.testing.assert_array_equal(added["t"], [4, 6])


def test_stacked_arrays_are_put_one_after_the_other_whatever_their_lengths():
    parts = [
        {"rows": Stacked((np.zeros((2, 3)),))},
        {},
        {"rows": Stacked((np.ones((1, 3)), np.ones((4, 3))))},
    ]
    rows = add_sums(parts)["rows"]

    assert isinstance(rows, Stacked)
    assert [part.shape for part in rows] == [(2, 3), (1, 3), (4, 3)]
    assert isinstance(pickle.loads(pickle.dumps(rows)), Stacked)


def test_a_key_has_rows_in_every_piece_or_in_none():
    with pytest.raises(TypeError, match="rows: some pieces of a score have rows, others numbers"):
        add_sums([{"rows": Stacked((np.zeros(2),))}, {"rows": np.zeros(2)}])
