"""Arithmetic on products B A through their factors, against dense matrices and PEFT's own layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits
from worlds.factored import KINDS, RANK, SCALE, close, dense_matrices, one_matrix, random_vector, sent_back

from fedsim.adapters.adapter import Adapter, Layout, Tensor
from fedsim.adapters.moved_base import Base
from fedsim.adapters.products import (
    Pair,
    Point,
    best,
    completed,
    distance,
    inner,
    norm,
    one_thread,
    pairs,
    relative_change,
    scales,
    stacked,
    svd,
    vector_of,
)
from fedsim.aggregators._base import ServerModel
from fedsim.aggregators._staleness import Constant, Polynomial, Product, discount

SIZES = st.integers(1, 7)
SEEDS = st.integers(0, 2**32 - 1)


def pair(rng, m, n, r):
    return Pair(rng.standard_normal((m, r)), rng.standard_normal((r, n)))


def test_factors_of_all_kinds_of_layers_are_views_of_out_by_inputs():
    vector = random_vector(np.random.default_rng(0))

    found = pairs(KINDS, vector)

    assert [(p.b.shape, p.a.shape) for p in found] == [
        ((9, 3), (3, 6)),
        ((5, 3), (3, 8)),
        ((7, 3), (3, 18)),
    ]
    assert all(p.b.dtype == p.a.dtype == np.float64 for p in found)
    close([SCALE * p.b @ p.a for p in found], dense_matrices(vector), rtol=1e-14)
    assert np.array_equal(vector_of(KINDS, found), vector)


@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
def test_the_product_is_the_change_that_peft_gives_the_layers_weight(kind):
    """PEFT's merged weight minus the plain one; a Conv1D's is (in, out), so its product comes transposed."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    layer = {"linear": torch.nn.Linear(6, 9), "conv1d": Conv1D(5, 8), "conv2d": torch.nn.Conv2d(2, 7, 3)}[
        kind
    ]
    model = torch.nn.Sequential()
    model.add_module(kind, layer)
    config = LoraConfig(
        r=RANK, lora_alpha=SCALE * RANK, target_modules=[kind], fan_in_fan_out=kind == "conv1d"
    )
    wrapped = getattr(get_peft_model(model, config).base_model.model, kind)
    index = [m.name for m in KINDS.modules].index(kind)
    vector = random_vector(np.random.default_rng(1))
    arrays = KINDS.arrays(vector)
    with torch.no_grad():
        for side, name in ((wrapped.lora_A, "lora_A"), (wrapped.lora_B, "lora_B")):
            side["default"].weight.copy_(torch.from_numpy(arrays[f"{kind}.{name}"]))

    change = wrapped.get_delta_weight("default").detach().numpy().astype(float)
    change = change.T if kind == "conv1d" else change.reshape(len(change), -1)

    product = pairs(KINDS, vector)[index]
    close([SCALE * product.b @ product.a], [change], rtol=1e-6)


def test_what_is_cut_and_padded_comes_back_with_the_same_product():
    rng = np.random.default_rng(2)
    vector = random_vector(rng, rank=2)

    short = pairs(KINDS, vector, rank=2)

    assert [p.width for p in short] == [2, 2, 2]
    assert np.array_equal(vector_of(KINDS, short), vector)
    whole = pair(rng, 4, 5, 3)
    assert np.array_equal(whole.cut(2).cut(2).b, whole.cut(2).b)
    padded = whole.padded(6)
    assert padded.width == 6
    # a product of another width may be summed in another order
    np.testing.assert_allclose(padded.b @ padded.a, whole.b @ whole.a, rtol=1e-13, atol=1e-15)
    assert whole.padded(2).width == 3


def test_a_clients_scale_holds_for_all_modules_unless_they_differ_in_theirs():
    unequal = Layout(modules=(KINDS.modules[0], one_matrix(4, 5, 2, 7.0).modules[0]))

    assert scales(KINDS, 0.5) == [0.5, 0.5, 0.5]
    assert scales(KINDS) == [SCALE] * 3
    assert scales(unequal, 0.5) == [SCALE, 7.0]


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, SEEDS)
def test_gram_traces_are_dense_inner_products(m, n, r, q, seed):
    rng = np.random.default_rng(seed)
    one, other = pair(rng, m, n, r), pair(rng, m, n, q)
    x, y = one.b @ one.a, other.b @ other.a

    assert inner(one, other) == pytest.approx(np.sum(x * y), rel=1e-10, abs=1e-10)
    assert norm(one) == pytest.approx(np.linalg.norm(x), rel=1e-9, abs=1e-9)
    assert distance(one, other) == pytest.approx(np.linalg.norm(x - y), rel=1e-7, abs=1e-7)
    # a root of squares that cancel: B A may be far smaller than |B| |A|
    assert distance(one, one) <= 1e-7 * np.linalg.norm(one.b) * np.linalg.norm(one.a)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.lists(st.integers(0, 4), max_size=4), SEEDS)
def test_a_stack_is_the_weighted_sum_of_products(m, n, ranks, seed):
    rng = np.random.default_rng(seed)
    terms = [(w, pair(rng, m, n, r)) for w, r in zip(rng.uniform(-1, 1, len(ranks)), ranks, strict=True)]

    stack = stacked(terms, m, n)

    assert stack.width == sum(ranks)
    expected = sum((w * p.b @ p.a for w, p in terms), np.zeros((m, n)))
    np.testing.assert_allclose(stack.b @ stack.a, expected, atol=1e-12)


def test_weights_on_both_sides_of_a_stack_would_be_squared():
    """The published bug: with p on A and on B the stack is sum p^2 B A."""
    rng = np.random.default_rng(3)
    terms = [(0.25, pair(rng, 5, 4, 2)), (0.75, pair(rng, 5, 4, 2))]
    right = sum(w * p.b @ p.a for w, p in terms)
    squared = sum(w * w * p.b @ p.a for w, p in terms)

    both_sides = stacked([(w, Pair(p.b, w * p.a)) for w, p in terms], 5, 4)

    np.testing.assert_allclose(both_sides.b @ both_sides.a, squared, atol=1e-12)
    assert np.linalg.norm(squared - right) > 0.2 * np.linalg.norm(right)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.integers(0, 9), SEEDS)
def test_the_svd_through_the_core_is_the_dense_one(m, n, r, seed):
    product = pair(np.random.default_rng(seed), m, n, r)

    u, s, vt = svd(product)

    p = min(m, n, r)
    assert (u.shape, s.shape, vt.shape) == ((m, p), (p,), (p, n))
    np.testing.assert_allclose(s, np.linalg.svd(product.b @ product.a)[1][:p], atol=1e-10)
    np.testing.assert_allclose((u * s) @ vt, product.b @ product.a, atol=1e-10)
    np.testing.assert_allclose(u.T @ u, np.eye(p), atol=1e-10)
    np.testing.assert_allclose(vt @ vt.T, np.eye(p), atol=1e-10)


def test_the_signs_of_singular_vectors_do_not_depend_on_the_gauge():
    """Rotated, flipped and scaled factors of one product have the same decomposition, signs included."""
    rng = np.random.default_rng(4)
    product = pair(rng, 6, 5, 3)
    gauge = rng.standard_normal((3, 3))
    other = Pair(product.b @ gauge, np.linalg.inv(gauge) @ product.a)
    flipped = Pair(-product.b, -product.a)

    for same in (other, flipped):
        for x, y in zip(svd(product), svd(same), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-9)
    vt = svd(product).vt
    assert all(row[np.abs(row).argmax()] > 0 for row in vt)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(1, 6), st.integers(0, 6), SEEDS)
def test_the_best_approximation_is_off_by_the_tail_of_the_spectrum(m, n, r, rank, seed):
    product = pair(np.random.default_rng(seed), m, n, r)
    tail = np.linalg.svd(product.b @ product.a)[1][rank:]

    near = best(product, rank)

    assert near.width == min(rank, m, n, r)
    missing = np.linalg.norm(product.b @ product.a - near.b @ near.a)
    assert missing == pytest.approx(np.linalg.norm(tail), abs=1e-9)


def test_rows_are_completed_to_an_orthonormal_set_near_others():
    rng = np.random.default_rng(5)
    near = rng.standard_normal((3, 7))
    given_ = svd(Pair(rng.standard_normal((4, 1)), rng.standard_normal((1, 3)) @ near)).vt

    rows = completed(given_, 3, near)

    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rows[0], given_[0], atol=1e-12)
    outside = rows - rows @ np.linalg.pinv(near) @ near
    assert np.abs(outside).max() < 1e-10
    assert completed(given_, 1, near) is given_


def test_results_do_not_depend_on_the_number_of_threads():
    product = pair(np.random.default_rng(6), 300, 200, 40)
    found = []
    for threads in (1, 4):
        with threadpool_limits(threads, user_api="blas"), one_thread():
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
            found.append(svd(product))

    assert all(np.array_equal(x, y) for x, y in zip(*found, strict=True))


# the discount in product space ------------------------------------------------------------------


def test_half_the_model_new_since_the_snapshot_means_a_change_of_one_half():
    """X_v = e_1 e_1' and X_t = X_v + the same length at a right angle: d = 1 / sqrt 2."""
    layout = one_matrix(2, 2, 2)
    then = vector_of(layout, [Pair(np.eye(2)[:, :1], np.eye(2)[:1])])
    now = vector_of(layout, [Pair(np.eye(2), np.eye(2))])

    assert relative_change(layout, Point(now), Point(then)) == pytest.approx(1 / np.sqrt(2))
    assert relative_change(layout, Point(then), Point(now)) == pytest.approx(1 / np.sqrt(2))
    assert relative_change(layout, Point(now), Point(-1 * now)) == pytest.approx(0.0, abs=1e-7)  # (-B)(-A)
    zero = np.zeros(layout.size, np.float32)
    assert relative_change(layout, Point(now), Point(zero)) == pytest.approx(1.0)
    assert relative_change(layout, Point(zero), Point(zero)) == 0.0


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.booleans(), st.booleans())
def test_the_relative_change_is_that_of_dense_matrices(seed, moved_now, moved_then):
    rng = np.random.default_rng(seed)
    now, then = random_vector(rng), random_vector(rng)

    def base(moved):
        if not moved:
            return None
        steps = [
            (rng.standard_normal((p.b.shape[0], 1)), rng.standard_normal((1, p.a.shape[1])))
            for p in pairs(KINDS, now)
        ]
        return Base.pretrained(KINDS).moved(steps)

    base_now, base_then = base(moved_now), base(moved_then)

    def whole(vector, base):
        matrices = dense_matrices(vector)
        own = [0.0] * 3 if base is None else [x.astype(float) for _, x in base.matrices()]
        return np.concatenate([(x + y).ravel() for x, y in zip(matrices, own, strict=True)])

    x, y = whole(now, base_now), whole(then, base_then)
    expected = np.linalg.norm(x - y) / max(np.linalg.norm(x), np.linalg.norm(y))

    found = relative_change(KINDS, Point(now, base=base_now), Point(then, base=base_then))

    assert found == pytest.approx(expected, rel=1e-6)
    assert 0 <= found <= 2


def test_the_relative_change_does_not_see_the_gauge():
    rng = np.random.default_rng(7)
    now, then = random_vector(rng), random_vector(rng)
    turned = []
    for p in pairs(KINDS, then):
        gauge = np.linalg.qr(rng.standard_normal((RANK, RANK)))[0]
        turned.append(Pair(p.b @ gauge, gauge.T @ p.a))
    other = vector_of(KINDS, turned)

    assert np.linalg.norm(other - then) > 0.5 * np.linalg.norm(then)
    same = relative_change(KINDS, Point(now), Point(then))
    assert relative_change(KINDS, Point(now), Point(other)) == pytest.approx(same, rel=1e-5)
    assert relative_change(KINDS, Point(then), Point(other)) < 1e-3


def test_whole_tensors_change_by_their_distance():
    layout = Layout(tensors=(Tensor("x", (2,)),))
    now, then = np.array([3, 4], np.float32), np.array([3, 0], np.float32)

    assert relative_change(layout, Point(now), Point(then)) == pytest.approx(4 / 5)


def test_the_discount_falls_with_the_change_and_not_with_the_number_of_versions():
    # one matrix of 1 x 1, scale 1: X_t = 3, X_v = 1, so d = 2/3 and s = 1 / (1 + 3 * 2/3) = 1/3
    layout = one_matrix(1, 1, 1)
    model = ServerModel(Adapter(layout, np.array([1, 3], np.float32)))
    start, end = np.array([1, 1], np.float32), np.array([1, 5], np.float32)
    rule = Product(a=3)
    late = [sent_back(0, start, end, staleness=tau, version=9 - tau, rank=1, scale=1.0) for tau in (0, 1, 8)]

    assert [discount(rule, c, model) for c in late] == pytest.approx([1.0, 1 / 3, 1 / 3])
    still = sent_back(0, model.adapter.vector, end, staleness=8, rank=1, scale=1.0)
    assert discount(rule, still, model) == 1.0
    assert discount(Product(a=0), late[2], model) == 1.0


def test_a_small_clients_snapshot_is_compared_with_the_model_cut_to_its_rank():
    """It never had the other slots, so what happened there is not a change of what it knew."""
    rng = np.random.default_rng(8)
    model = ServerModel(Adapter(KINDS, random_vector(rng)))
    small = sent_back(0, model.adapter.cut(1), random_vector(rng, rank=1), staleness=3, rank=1)

    assert discount(Product(), small, model) == pytest.approx(1.0, abs=1e-6)
    # in its own scale: B times s / s_k, so that the product is the same
    own = np.where(KINDS.slots(None, "B"), small.start * (SCALE / 0.5), small.start).astype(np.float32)
    other = sent_back(0, own, small.end, staleness=3, rank=1, scale=0.5)
    assert discount(Product(), other, model) == pytest.approx(1.0, abs=1e-3)


@given(st.floats(0, 2), st.floats(0, 2), st.floats(0, 10))
def test_the_product_discount_starts_at_one_and_never_rises(d, more, a):
    s = Product(a=a)

    assert s.of_change(0.0) == 1.0
    assert 0 < s.of_change(d + more) <= s.of_change(d) <= 1.0


def test_the_other_discounts_count_versions():
    c = sent_back(0, np.zeros(KINDS.size, np.float32), np.zeros(KINDS.size, np.float32), staleness=3)
    model = ServerModel(Adapter(KINDS, random_vector(np.random.default_rng(9))))

    assert discount(Polynomial(a=0.5), c, model) == 0.5
    assert discount(Constant(), c, model) == 1.0
