"""Who has which rows: dealt by address, held out by share, shuffled once, in two arrays however many clients."""

import pickle

import numpy as np
import pytest

from fedsim.rng import stream
from fedsim.tasks._dealt import Batching
from fedsim.tasks._splits import PIECE, Ragged, Splits, pieces

SHARES = [np.array([4, 9, 2, 7]), np.array([0, 1]), np.array([3, 5, 6, 8, 10, 11, 12, 13, 14, 15])]


def dealt(holdout=0.25, *, seed=3, last=False, **apart):
    return Splits.dealt(SHARES, holdout, {"test": 5, "valid": 0, **apart}, seed=seed, last=last)


def test_every_row_of_a_client_is_trained_on_or_held_out_and_at_least_one_is_each():
    splits = dealt()
    for rows, training, held_out in zip(SHARES, splits.training, splits.held_out, strict=True):
        assert sorted([*training, *held_out]) == sorted(rows)
        assert len(training) >= 1
        assert len(held_out) >= 1
    assert splits.held_out.sizes == [1, 1, 2]
    assert splits.training.sizes == [3, 1, 8]


def test_what_is_held_out_is_drawn_by_the_clients_address():
    for client, rows in enumerate(SHARES):
        drawn = stream(3, "holdout", client).permutation(len(rows))
        expected = np.sort(rows[drawn[: len(dealt().held_out[client])]])
        assert dealt().held_out[client].tolist() == expected.tolist()


def test_the_last_rows_are_held_out_where_neighbours_are_alike():
    splits = dealt(last=True)
    assert [rows.tolist() for rows in splits.held_out] == [[7], [1], [14, 15]]
    assert [rows.tolist() for rows in splits.training][:2] == [[2, 4, 9], [0]]


def test_what_nobody_trains_on_comes_in_one_order_whatever_the_seed():
    """So that the first windows of a test split, which runs are scored on, are the same for all seeds."""
    orders = [dealt(seed=seed, test=500).order("test", None).tolist() for seed in (0, 1, 2)]
    assert orders[0] == orders[1] == orders[2] != sorted(orders[0])
    assert dealt(seed=1).order("clients", None).tolist() != dealt(seed=2).order("clients", None).tolist()


def test_a_split_of_many_is_shuffled_by_its_name_and_a_client_s_own_is_not():
    splits = dealt()
    assert splits.order("test", None).tolist() == stream(0, "probes", "test").permutation(5).tolist()
    together = np.concatenate([splits.held_out[i] for i in range(3)])
    expected = stream(3, "probes", "clients").permutation(together)
    assert splits.order("clients", None).tolist() == expected.tolist()
    assert splits.order("client", 2).tolist() == splits.held_out[2].tolist()
    assert splits.order("shard", 2).tolist() == splits.training[2].tolist()


def test_a_split_without_rows_is_none():
    assert dealt().order("valid", None) is None
    assert dealt(valid=2).order("valid", None).size == 2
    assert dealt().order("samples", None) is None


def test_rows_of_clients_are_views_of_one_array_and_may_be_sliced():
    rows = Ragged.of(SHARES)
    assert len(rows) == 3
    assert [part.tolist() for part in rows] == [part.tolist() for part in SHARES]
    assert rows[-1].tolist() == SHARES[2].tolist()
    assert [part.tolist() for part in rows[1:]] == [part.tolist() for part in SHARES[1:]]
    assert np.shares_memory(rows[1], rows.rows)
    with pytest.raises(IndexError):
        rows[3]


def test_ten_thousand_clients_take_hardly_more_than_their_numbers():
    rows = Ragged.of([np.arange(3) for _ in range(10_000)])
    assert len(pickle.dumps(rows)) < rows.rows.nbytes + rows.stops.nbytes + 1_000


@pytest.mark.parametrize(
    ("rows", "most"), [(0, None), (1, None), (PIECE, None), (70, None), (70, 40), (5, 9)]
)
def test_pieces_cover_a_split_s_first_rows_in_order(rows, most):
    probes = pieces("test", rows, most, None)
    covered = [row for probe in probes for row in range(probe.start, probe.stop)]
    assert covered == list(range(rows if most is None else min(rows, most)))
    assert all(probe.stop - probe.start <= PIECE for probe in probes)


@pytest.mark.parametrize(("step", "clients"), [(1, 64), (2**11, 64), (2**13, 16), (2**14, 8), (2**20, 8)])
def test_small_steps_want_many_clients_within_bounds(step, clients):
    assert Batching(fewest=8, most=64, together=2**17).clients(step) == clients
