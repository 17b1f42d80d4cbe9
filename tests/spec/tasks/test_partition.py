"""Partitions: disjoint, covering, seeded, repaired; and skewed as their parameters say."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.dealing import dealt, repaired
from pydantic import TypeAdapter, ValidationError

from fedsim.errors import DataError
from fedsim.tasks._language.topics import divergence_bits, topics
from fedsim.tasks._splits import Ragged
from fedsim.tasks.partition import Blocks, Partition, partition

READ = TypeAdapter(Partition).validate_python
ALL = [
    {"kind": "iid"},
    {"kind": "contiguous"},
    {"kind": "dirichlet", "alpha": 0.3},
    {"kind": "dirichlet", "alpha": 1e-4},
    {"kind": "natural", "more_owners": "merge"},
    {"kind": "pathological", "classes": 2},
    {"kind": "quantity", "sigma": 2.0},
    {"kind": "quantity", "law": "zipf", "exponent": 2.0},
]


def blocks(count, classes=4, owners=7, seed=0):
    rng = np.random.default_rng(seed)
    cycle = np.arange(count)
    return Blocks(rng.integers(10, 20, count), cycle % classes, np.sort(cycle % owners))


def deal(how, data, clients, minimum=1, seed=0):
    return partition(READ(how), data, clients, minimum, np.random.default_rng(seed))[0]


def mixes(share, data):
    count = int(data.labels.max()) + 1
    return np.array([np.bincount(data.labels[mine], minlength=count) / len(mine) for mine in share])


@pytest.mark.parametrize("how", ALL, ids=lambda how: "-".join(str(v) for v in how.values()))
@settings(max_examples=25, deadline=None)
@given(count=st.integers(30, 120), clients=st.integers(2, 15), seed=st.integers(0, 99))
def test_every_block_goes_to_exactly_one_client_and_nobody_gets_too_little(how, count, clients, seed):
    data = blocks(count, seed=seed)
    share = deal(how, data, clients, minimum=12, seed=seed)
    assert len(share) == clients
    assert sorted(np.concatenate(share).tolist()) == list(range(count))
    assert all((np.diff(mine) > 0).all() for mine in share)
    assert min(int(data.sizes[mine].sum()) for mine in share) >= 12
    again = deal(how, data, clients, minimum=12, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(share, again, strict=True))


@pytest.mark.parametrize("how", ALL, ids=lambda how: "-".join(str(v) for v in how.values()))
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(12, 90),
    clients=st.integers(2, 12),
    minimum=st.sampled_from([1, 12, 40]),
    seed=st.integers(0, 99),
)
def test_blocks_go_where_dealing_them_as_lists_gives_them(how, count, clients, minimum, seed):
    data = blocks(count, seed=seed)
    lists = dealt(READ(how), data, clients, np.random.default_rng(seed), minimum)
    expected = repaired(lists, data.sizes, minimum)
    rng = np.random.default_rng(seed)
    if expected is None or data.sizes.sum() < clients * minimum:
        with pytest.raises(DataError):
            partition(READ(how), data, clients, minimum, rng)
        return
    share, moved = partition(READ(how), data, clients, minimum, rng)
    assert moved == expected[1]
    assert [part.tolist() for part in share] == [part.tolist() for part in expected[0]]


def test_a_hundred_thousand_clients_are_two_arrays_dealt_in_seconds():
    data = Blocks(np.full(300_000, 64), None, np.arange(300_000) // 2)
    merged = {"kind": "natural", "more_owners": "merge"}
    for how in ({"kind": "quantity", "sigma": 1.5}, {"kind": "contiguous"}, merged):
        began_s = time.process_time()
        share, _ = partition(READ(how), data, 100_000, 64, np.random.default_rng(0))
        assert time.process_time() - began_s < 20
        assert (len(share), len(share.rows), min(share.sizes) > 0) == (100_000, 300_000, True)


def test_another_seed_gives_another_partition():
    data = blocks(100)
    for how in ALL:
        if how["kind"] in ("iid", "dirichlet", "pathological", "quantity"):
            first, other = deal(how, data, 5, seed=1), deal(how, data, 5, seed=2)
            assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_amounts_differ_by_at_most_one_block():
    sizes = [len(mine) for mine in deal({"kind": "iid"}, blocks(103), 10)]
    assert max(sizes) - min(sizes) == 1


def test_contiguous_clients_hold_runs_in_order_of_about_equal_size():
    data = blocks(200)
    share = deal({"kind": "contiguous"}, data, 8)
    assert np.concatenate(share).tolist() == list(range(200))
    amounts = [data.sizes[mine].sum() for mine in share]
    assert max(amounts) - min(amounts) <= 2 * data.sizes.max()


def test_a_large_alpha_is_about_iid_and_a_small_one_about_one_class_a_client():
    data = blocks(4000, classes=5)
    flat = mixes(deal({"kind": "dirichlet", "alpha": 1e5}, data, 20), data)
    assert np.abs(flat - 0.2).max() < 0.05
    peaked = mixes(deal({"kind": "dirichlet", "alpha": 1e-3}, data, 20), data)
    assert np.median(peaked.max(axis=1)) > 0.99
    assert peaked.max(axis=1).mean() > 0.85  # the last to choose take what is left


def test_heterogeneity_falls_as_alpha_grows_while_amounts_stay_equal():
    data = blocks(2000, classes=5)
    found = []
    for alpha in (0.01, 0.3, 3.0, 1000.0):
        share = deal({"kind": "dirichlet", "alpha": alpha}, data, 20)
        assert {len(mine) for mine in share} == {100}
        counts = [np.bincount(data.labels[mine], minlength=5) for mine in share]
        found.append(divergence_bits(counts, np.sum(counts, axis=0)))
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.4
    assert found[-1] < 0.02


def test_dirichlet_shares_have_the_spread_of_a_dirichlet():
    """With plenty of data a share of C equal classes at alpha has variance (C - 1) / (C^2 (C alpha + 1))."""
    data = blocks(40_000, classes=4)
    drawn = mixes(deal({"kind": "dirichlet", "alpha": 1.0}, data, 400), data)
    assert drawn.mean(axis=0) == pytest.approx(np.full(4, 0.25), abs=1e-9)
    assert 0.95 < drawn.var() / (3 / 16 / 5) < 1.3  # the last to choose take what is left: a little more


def test_pathological_clients_have_exactly_their_number_of_classes():
    data = blocks(600, classes=6)
    for classes in (1, 2, 6):
        share = deal({"kind": "pathological", "classes": classes}, data, 12)
        assert {len(np.unique(data.labels[mine])) for mine in share} == {classes}


def test_pathological_names_the_numbers_that_do_not_fit():
    with pytest.raises(DataError, match="3 clients of 1 classes cannot share 4 classes") as error:
        deal({"kind": "pathological", "classes": 1}, blocks(100), 3)
    assert "between 2 and 4" in str(error.value)
    with pytest.raises(DataError, match="5 classes cannot share 4"):
        deal({"kind": "pathological", "classes": 5}, blocks(100), 3)


def test_merged_owners_stay_whole():
    data = blocks(200, owners=40)
    share = deal({"kind": "natural", "more_owners": "merge"}, data, 10)
    owners = [set(data.groups[mine].tolist()) for mine in share]
    assert sum(len(o) for o in owners) == len(set().union(*owners)) == 40
    amounts = [int(data.sizes[mine].sum()) for mine in share]
    assert max(amounts) < 1.5 * min(amounts)


def test_natural_gives_one_owner_several_clients_in_proportion_when_there_are_few():
    data = Blocks(np.full(40, 10), None, np.repeat([0, 1], [30, 10]))
    share = deal({"kind": "natural"}, data, 8)
    assert [len(mine) for mine in share] == [5] * 8
    assert [len(set(data.groups[mine].tolist())) for mine in share] == [1] * 8


def test_natural_without_owners_says_what_to_set():
    with pytest.raises(DataError, match=r"at least two owners.*\n.*task\.client_column"):
        deal({"kind": "natural"}, Blocks(np.full(40, 10), None, np.zeros(40, int)), 4)


def test_quantities_follow_their_law():
    data = Blocks(np.full(20_000, 10))
    zipf = sorted((len(m) for m in deal({"kind": "quantity", "law": "zipf"}, data, 10)), reverse=True)
    harmonic = sum(1 / k for k in range(1, 11))
    assert zipf == pytest.approx([20_000 / harmonic / k for k in range(1, 11)], abs=1.01)
    lognormal = np.log([len(m) for m in deal({"kind": "quantity", "sigma": 0.8}, data, 400)])
    assert lognormal.std() == pytest.approx(0.8, rel=0.12)
    even = [len(m) for m in deal({"kind": "quantity", "sigma": 0.0}, data, 10)]
    assert even == [2000] * 10


def test_who_got_too_little_takes_from_whoever_has_most():
    data = Blocks(np.full(100, 10))
    share, moved = partition(
        READ({"kind": "quantity", "law": "zipf", "exponent": 5}), data, 10, 30, np.random.default_rng(0)
    )
    amounts = sorted(int(data.sizes[m].sum()) for m in share)
    assert amounts[:8] == [30] * 8
    assert moved > 10
    assert partition(READ({"kind": "iid"}), data, 10, 30, np.random.default_rng(0))[1] == 0


def test_too_many_clients_are_answered_with_the_numbers():
    with pytest.raises(DataError, match="50 clients need 1000 tokens in 50 blocks, there are 100 in 10"):
        deal({"kind": "iid"}, Blocks(np.full(10, 10)), 50, minimum=20)
    with pytest.raises(DataError, match="each of 3 clients has 30"):
        deal({"kind": "iid"}, Blocks(np.array([80, 5, 5])), 3, minimum=30)


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "dirichlet", "alpha": 0}, {"kind": "dirichlet", "alpha": float("inf")}, {"kind": "iidd"},
     {"kind": "pathological", "classes": 0}, {"kind": "quantity", "law": "pareto"}, {"kind": "iid", "alpha": 1}],
)  # fmt: skip
def test_wrong_partitions_are_refused(wrong):
    with pytest.raises(ValidationError):
        READ(wrong)


def test_k_means_of_tf_idf_finds_the_themes_of_texts(themes):
    texts = [" ".join(themes(theme, 8, seed)) for seed in range(10) for theme in ("sea", "farm", "law")]
    found, names = topics(texts, 3, seed=0)
    assert len({tuple(found[k::3]) for k in range(3)}) == 3
    assert all(len(set(found[k::3].tolist())) == 1 for k in range(3))
    assert "court" in names[found[2]] or "judge" in names[found[2]] or "jury" in names[found[2]]
    assert np.array_equal(found, topics(texts, 3, seed=0)[0])


def test_topics_that_cannot_be_found_say_why(themes):
    with pytest.raises(DataError, match="5 topics need as many blocks of text, there are 3"):
        topics(themes("sea", 3), 5, seed=0)
    with pytest.raises(DataError, match="no topics in this text"):
        topics(["1 2 3", "4 5 6", "<unk> 7"], 2, seed=0)


def test_divergence_is_0_for_equal_and_1_bit_for_disjoint_halves():
    assert divergence_bits([np.array([3, 1]), np.array([6, 2])], np.array([9, 3])) == pytest.approx(
        0, abs=1e-12
    )
    apart = [np.array([4, 0]), np.array([0, 4])]
    # each against the even mix: JS = 1/2 KL(p|m) + 1/2 KL(q|m), m = (3/4, 1/4)
    expected = 0.5 * np.log2(4 / 3) + 0.5 * (0.5 * np.log2(2 / 3) + 0.5 * np.log2(2))
    assert divergence_bits(apart, np.array([4, 4])) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 10.0])
@pytest.mark.parametrize(("convention", "factor"), [("per-class", 1), ("total", 10)])
def test_alpha_is_in_the_convention_that_is_asked_for(alpha, convention, factor):
    """E sum q^2 = (a / C + 1) / (a + 1) of the sum a of the parameters: C alpha per class, alpha in total (Hsu et al.).

    Of the clients that choose first, since later ones find classes used up: 20 of 200, over ten seeds.
    """
    data = Blocks(np.ones(40_000, np.int64), np.arange(40_000) % 10)
    how = READ({"kind": "dirichlet", "alpha": alpha * factor, "convention": convention})
    squares = []
    for seed in range(10):
        share = Ragged.by_owner(how.owners(data, 200, np.random.default_rng(seed)), 200)
        again = np.random.default_rng(seed)  # the same draws once more say who chose first
        for label in range(10):
            again.permutation(np.flatnonzero(data.labels == label))
        first = mixes([share[client] for client in again.permutation(200)[:20]], data)
        squares.append(np.sum(first**2, axis=1).mean())
    total = 10 * alpha
    assert np.mean(squares) == pytest.approx((total / 10 + 1) / (total + 1), rel=0.08)
