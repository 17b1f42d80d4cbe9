"""The rules of the foundation against hand calculation and their corners."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.pairs import PAIR, contribution, model

from fedsim.adapters.adapter import Layout, Module
from fedsim.aggregators._base import Invitation
from fedsim.aggregators._staleness import Constant, Hinge, Polynomial
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.local_only import LocalOnly
from fedsim.aggregators.mixing import Mixing


def applied(rule, start, contributions, layout=PAIR):
    return rule.apply(rule.init(model(start, layout)), model(start, layout), contributions)[0].adapter.vector


def test_fedavg_is_the_mean_weighted_by_examples():
    three_to_one = [contribution([0, 0], [4, 0], weight=3), contribution([0, 0], [0, 8], client=1, weight=1)]

    assert applied(FedIT(), [0, 0], three_to_one).tolist() == [3.0, 2.0]


def test_fedbuff_divides_by_the_size_of_the_buffer_and_discounts_by_staleness():
    # s(0) = 1, s(3) = (1 + 3)^-1/2 = 1/2: (1 * 4 + 1/2 * 8) / 2 = 4
    rule = FedIT(normalize="K", staleness=Polynomial(a=0.5))
    late = [contribution([0, 0], [4, 0], weight=7), contribution([0, 0], [8, 0], client=1, staleness=3)]

    assert applied(rule, [1, 0], late).tolist() == [5.0, 0.0]


def test_without_normalisation_moves_are_summed():
    rule = FedIT(normalize="none", staleness=Constant())

    assert applied(rule, [0, 0], [contribution([0, 0], [1, 2])] * 3).tolist() == [3.0, 6.0]


def test_moves_are_taken_from_the_clients_own_snapshot_not_from_the_servers_model():
    stale = contribution([1, 1], [2, 1], staleness=1)

    assert applied(FedIT(staleness=Constant()), [10, 10], [stale]).tolist() == [11.0, 10.0]


@pytest.mark.parametrize("normalize", ["weights", "K"])
def test_one_client_alone_replaces_the_model(normalize):
    assert applied(
        FedIT(normalize=normalize), [1, 2], [contribution([1, 2], [5, -3], weight=9)]
    ).tolist() == [5, -3]


@pytest.mark.parametrize(
    "rule", [FedIT(), FedIT(normalize="K"), FedIT(normalize="none"), Mixing(), LocalOnly()]
)
def test_nobody_moved_leaves_the_model(rule):
    still = [contribution([1, 2], [1, 2], client=c, weight=c + 1.0) for c in range(3)]

    np.testing.assert_allclose(applied(rule, [1, 2], still), [1, 2], rtol=1e-6)


@pytest.mark.parametrize("rule", [FedIT(), Mixing(), LocalOnly()])
def test_rules_over_vectors_change_nothing_that_they_are_given(rule):
    before = model([1, 2])
    given_ = [contribution([1, 2], [3, 4])]
    first = rule.apply(rule.init(before), before, given_)[0].adapter.vector
    second = rule.apply(rule.init(before), before, given_)[0].adapter.vector

    assert first.tolist() == second.tolist()
    assert before.adapter.vector.tolist() == [1, 2]
    assert given_[0].end.tolist() == [3, 4]


def test_averaging_factors_is_not_averaging_products():
    """sum p BA - (mean B)(mean A) = sum p (B - mean B)(A - mean A), and it is not zero."""
    layout = Layout(modules=(Module("w", 2, (2, 3), (4, 2), 1.0),))
    rng = np.random.default_rng(0)
    p = np.array([0.25, 0.75])
    ends = rng.standard_normal((2, layout.size)).astype(np.float32)
    start = np.zeros(layout.size, np.float32)
    merged = applied(
        FedIT(),
        start,
        [
            contribution(start, end, client=c, weight=w)
            for c, (end, w) in enumerate(zip(ends, p, strict=True))
        ],
        layout,
    )
    arrays = [layout.arrays(v) for v in (*ends, merged)]
    a, b = [x["w.lora_A"] for x in arrays], [x["w.lora_B"] for x in arrays]

    error = sum(p[i] * b[i] @ a[i] for i in range(2)) - b[2] @ a[2]
    cross = sum(p[i] * (b[i] - b[2]) @ (a[i] - a[2]) for i in range(2))

    np.testing.assert_allclose(error, cross, atol=1e-6)
    assert np.abs(error).max() > 0.1


def test_fedasync_at_alpha_0_keeps_the_model_and_at_1_takes_the_client_s():
    there = [contribution([0, 0], [4, 8])]

    assert applied(Mixing(alpha=1.0, staleness=Constant()), [1, 1], there).tolist() == [4, 8]
    assert applied(Mixing(alpha=0.0), [1, 1], there).tolist() == [1, 1]
    assert applied(
        Mixing(alpha=0.5, staleness=Polynomial(a=1)), [0, 0], [contribution([0, 0], [4, 8], staleness=1)]
    ).tolist() == [1, 2]


def test_fedasync_equals_the_delta_form_exactly_when_nobody_is_stale():
    fresh = [contribution([1, 1], [3, 5])]
    delta_form = FedIT(normalize="K", staleness=Constant(), server_lr=0.6)

    np.testing.assert_allclose(
        applied(Mixing(staleness=Constant()), [1, 1], fresh), applied(delta_form, [1, 1], fresh), rtol=1e-6
    )
    stale = [contribution([0, 0], [3, 5], staleness=2)]
    assert (
        np.abs(
            applied(Mixing(staleness=Constant()), [1, 1], stale) - applied(delta_form, [1, 1], stale)
        ).max()
        > 0.1
    )


def test_mixing_twice_does_not_wear_alpha_out():
    rule = Mixing(alpha=0.5)
    once = rule.apply(None, model([0, 0]), [contribution([0, 0], [8, 8], staleness=3)])[0]

    twice = rule.apply(None, once, [contribution([0, 0], [8, 8])])[0]

    assert twice.adapter.vector.tolist() == [5.0, 5.0]  # 2, then halfway to 8


def test_local_only_shares_nothing():
    rule = LocalOnly()
    after, _ = rule.apply(None, model([0, 0]), [contribution([0, 0], [1, 1], client=7)])

    kept, new = (rule.offer(None, after, Invitation(client, 1, 0, 1.0, None)) for client in (7, 8))

    assert after.adapter.vector.tolist() == [0, 0]
    assert kept.start.tolist() == [1, 1]
    assert new.start.tolist() == [0, 0]
    assert kept.down.floats(PAIR) == kept.up.floats(PAIR) == 0


@pytest.mark.parametrize(
    ("discount", "table"),
    [
        (Constant(), {0: 1.0, 9: 1.0}),
        (Polynomial(a=0.5), {0: 1.0, 3: 0.5, 8: 1 / 3}),
        (Polynomial(a=1.0), {0: 1.0, 1: 0.5, 3: 0.25}),
        (Hinge(a=10, b=4), {0: 1.0, 4: 1.0, 5: 1 / 11, 6: 1 / 21}),
    ],
)
def test_discounts_have_their_published_values(discount, table):
    assert {tau: pytest.approx(discount(tau)) for tau in table} == table


@given(st.integers(0, 1000), st.floats(0, 5), st.integers(0, 50))
def test_discounts_start_at_one_and_never_rise(tau, a, b):
    for discount in (Constant(), Polynomial(a=a), Hinge(a=a, b=b)):
        assert discount(0) == 1.0
        assert 0 < discount(tau + 1) <= discount(tau) <= 1.0


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_the_order_of_clients_does_not_matter_to_fedit(order, seed):
    rng = np.random.default_rng(seed)
    given_ = [
        contribution(
            [0, 0],
            rng.standard_normal(2),
            client=c,
            weight=rng.integers(1, 9),
            staleness=int(rng.integers(0, 4)),
        )
        for c in range(4)
    ]

    shuffled = applied(FedIT(), [1, 1], [given_[i] for i in order])

    np.testing.assert_allclose(shuffled, applied(FedIT(), [1, 1], given_), rtol=1e-6)
