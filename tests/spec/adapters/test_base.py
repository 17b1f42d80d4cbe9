"""The change of the frozen weights: how it moves, how it is laid out, and what a client must download to have it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.adapters.adapter import Layout, Module
from fedsim.adapters.moved_base import Base, dense_shape, dense_size

LINEAR = Module("linear", 2, (2, 3), (4, 2), 1.0)
CONV = Module("conv", 2, (2, 3, 2, 1), (5, 2, 1, 1), 1.0)
BOTH = Layout((LINEAR, CONV))


def step(rank, seed, layout=BOTH):
    rng = np.random.default_rng(seed)
    shapes = [dense_shape(m) for m in layout.modules]
    return [(rng.normal(size=(out, rank)), rng.normal(size=(rank, width))) for out, width in shapes]


def test_a_module_is_dense_as_out_by_everything_that_enters():
    assert dense_shape(LINEAR) == (4, 3)
    assert dense_shape(CONV) == (5, 6)
    assert dense_size(BOTH) == 12 + 30


def test_nothing_has_changed_at_version_0():
    base = Base.pretrained(BOTH)

    assert (base.version, base.ranks) == (0, ())
    assert not base.vector.any()


def test_a_move_adds_the_products_module_by_module():
    first = [
        (np.array([[1.0], [0], [0], [2]]), np.array([[1.0, 2, 3]])),
        (np.zeros((5, 1)), np.zeros((1, 6))),
    ]

    base = Base.pretrained(BOTH).moved(first)

    (_, linear), (_, conv) = base.matrices()
    assert linear.tolist() == [[1, 2, 3], [0, 0, 0], [0, 0, 0], [2, 4, 6]]
    assert conv.shape == (5, 6)
    assert not conv.any()
    assert (base.version, base.ranks) == (1, (1,))


def test_moves_are_summed_in_float64_and_stored_in_float32():
    one = Layout((Module("w", 1, (1, 1), (1, 1), 1.0),))
    big = Base.pretrained(one).moved([(np.array([[2.0**24]]), np.ones((1, 1)))])

    # two summands of 1: each alone would be lost beside 2^24 in float32
    after = big.moved([(np.array([[1.0, 1.0]]), np.ones((2, 1)))])

    assert after.vector[0] == np.float32(2.0**24 + 2.0)
    assert after.vector.dtype == np.float32


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 99))
def test_a_base_is_the_sum_of_its_steps(ranks, seed):
    base, total = Base.pretrained(BOTH), [np.zeros(dense_shape(m)) for m in BOTH.modules]
    for j, rank in enumerate(ranks):
        changes = step(rank, seed + j)
        base = base.moved(changes)
        total = [sum_ + u @ v for sum_, (u, v) in zip(total, changes, strict=True)]

    assert base.ranks == tuple(ranks)
    for (_, found), expected in zip(base.matrices(), total, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_where_nothing_changes_the_version_moves_and_the_numbers_are_shared():
    base = Base.pretrained(BOTH).moved(step(1, 0))

    still = base.moved([(np.zeros((4, 3)), np.zeros((3, 3))), (np.zeros((5, 0)), np.zeros((0, 6)))])

    assert still.vector is base.vector
    assert (still.version, still.ranks) == (2, (1, 3))


def test_the_rank_of_a_step_is_the_largest_over_the_modules():
    changes = [step(1, 0)[0], step(3, 0)[1]]

    assert Base.pretrained(BOTH).moved(changes).ranks == (3,)


@pytest.mark.parametrize(
    ("ranks", "since", "floats"),
    [
        ((1, 2), None, 42),  # never seen: 3 * (7 + 11) = 54 numbers as factors, 42 dense
        ((1, 2), 1, 36),  # the second step alone: 2 * (7 + 11)
        ((1, 2), 2, 0),
        ((1,), None, 18),
        ((0, 0, 1), 1, 18),
        ((), None, 0),
    ],
)
def test_a_client_catches_up_with_the_factors_it_missed_or_the_dense_change(ranks, since, floats):
    base = Base.pretrained(BOTH)
    for j, rank in enumerate(ranks):
        base = base.moved(step(rank, j))

    assert base.catch_up_floats(since) == floats


@given(st.lists(st.integers(0, 4), max_size=6))
def test_whoever_saw_more_downloads_less_and_nobody_more_than_everything(ranks):
    base = Base(BOTH, len(ranks), np.zeros(dense_size(BOTH), np.float32), tuple(ranks))
    costs = [base.catch_up_floats(since) for since in range(len(ranks) + 1)]

    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0
    assert base.catch_up_floats(None) == costs[0] <= dense_size(BOTH)


def test_a_base_of_another_layout_is_refused():
    with pytest.raises(ValueError, match="base has shape"):
        Base(BOTH, 0, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="ranks of steps"):
        Base(BOTH, 1, np.zeros(dense_size(BOTH), np.float32))
    with pytest.raises(ValueError, match="change of linear"):
        Base.pretrained(BOTH).moved([(np.zeros((3, 1)), np.zeros((1, 4))), step(1, 0)[1]])


def test_a_base_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="read-only"):
        Base.pretrained(BOTH).vector[0] = math.pi
