"""FLoRA, FlexLoRA, FedEx-LoRA and FedSVD: rules that are about the product B A, against dense matrices.

`dense_matrices` and `changed` of `factored` add slots up one by one; nothing here uses the code under test to
say what is right.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.factored import (
    KINDS,
    RANK,
    SCALE,
    apart,
    ask,
    begun,
    changed,
    close,
    dense_matrices,
    learned,
    matrices,
    mean_of,
    one_matrix,
    random_vector,
    sent_back,
)

from fedsim.adapters.adapter import Adapter
from fedsim.adapters.moved_base import Base
from fedsim.adapters.products import Pair, pairs, vector_of
from fedsim.aggregators._base import ServerModel
from fedsim.aggregators._staleness import Constant, Polynomial, Product
from fedsim.aggregators.fedex import FedEx, covariance
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.fedsvd import FedSVD
from fedsim.aggregators.ffa import FFA
from fedsim.aggregators.flexlora import FlexLoRA
from fedsim.aggregators.flora import FLoRA
from fedsim.errors import RunError

SEEDS = st.integers(0, 2**32 - 1)
ALL = [FLoRA(), FlexLoRA(), FedEx(), FedSVD()]
MIXED = [(3, 2.0), (1, 6.0), (2, 3.0), (3, 0.5)]
"""Ranks and scales of four clients."""
EXAMPLES = [10.0, 30.0, 20.0, 40.0]
FLOATS = sum(m.size for m in KINDS.modules)  # 3 (6+9) + 3 (8+5) + 3 (18+7) = 159
BOTH_SIDES = (6 + 9) + (8 + 5) + (18 + 7)  # floats of a slot in all modules: 53
DENSE = 6 * 9 + 8 * 5 + 18 * 7  # 220


def kind(rule):
    return rule.kind


def commit(rule, model, contributions, state=None):
    return rule.apply(rule.init(model) if state is None else state, model, contributions)


def after(rule, model, contributions):
    return commit(rule, model, contributions)[0]


def offered(rule, model, **how):
    return rule.offer(rule.init(model), model, ask(**how))


def b_only(rng, start, layout=KINDS):
    """An end that differs from its start in B alone."""
    return np.where(layout.slots(None, "B"), random_vector(rng, layout), start)


def a_round(rng, model, rule, clients=MIXED, weights=EXAMPLES):
    """Every client starts from what the rule offers and ends anywhere it may."""
    found = []
    for k, ((rank, scale), weight) in enumerate(zip(clients, weights, strict=True)):
        offer = offered(rule, model, client=k, rank=rank, scale=scale)
        end = random_vector(rng, model.adapter.layout, rank)
        if offer.trains == "B":
            end = b_only(rng, offer.start, model.adapter.layout)
        found.append(sent_back(k, offer.start, end, weight=weight, rank=rank, scale=scale))
    return found


def equal(count):
    return [(RANK, SCALE)] * count


def products(contributions, layout=KINDS):
    return [dense_matrices(c.end, layout, c.scale) for c in contributions]


# exactness --------------------------------------------------------------------------------------


def test_flora_moves_the_base_by_the_mean_product_of_clients_with_any_ranks_and_scales():
    rng = np.random.default_rng(0)
    model = begun(rng)
    clients = a_round(rng, model, FLoRA())

    new = after(FLoRA(), model, clients)

    close(changed(new), mean_of(products(clients), EXAMPLES))
    close(
        dense_matrices(new.adapter.vector), [0 * x for x in dense_matrices(new.adapter.vector)]
    )  # all of it is in the base


def test_weights_on_both_sides_would_square_them():
    """The published bug: sum p^2 B A, with p = 1/4, 3/4 a relative error of more than a third."""
    rng = np.random.default_rng(1)
    model = begun(rng)
    clients = a_round(rng, model, FLoRA(), equal(2), [1.0, 3.0])
    squared = [
        x * 1 / 16 + y * 9 / 16
        for x, y in zip(*(dense_matrices(c.end, KINDS, c.scale) for c in clients), strict=True)
    ]

    new = changed(after(FLoRA(), model, clients))

    close(new, mean_of(products(clients), [1.0, 3.0]))
    assert apart(squared, new) > 0.25


def test_one_scale_for_all_would_be_wrong_for_clients_of_other_ranks():
    """The published bug: alpha / r of one client (or of the summed ranks) on everybody's product."""
    rng = np.random.default_rng(2)
    model = begun(rng)
    clients = a_round(rng, model, FLoRA())
    wrong = mean_of([dense_matrices(c.end, KINDS, SCALE) for c in clients], EXAMPLES)

    assert apart(wrong, changed(after(FLoRA(), model, clients))) > 0.2


@pytest.mark.parametrize("rule", ALL, ids=kind)
def test_factors_are_told_apart_by_name_not_by_shape(rule):
    """The published bug: A is what has r rows. Here A and B both have r rows and r columns."""
    rng = np.random.default_rng(37)
    layout = one_matrix(RANK, RANK, RANK, SCALE)
    model = begun(rng, layout)
    clients = a_round(rng, model, rule, equal(2), [1.0, 3.0])

    close(changed(after(rule, model, clients)), mean_of(products(clients, layout), [1, 3]), rtol=1e-5)


@pytest.mark.parametrize("model_of", [begun, learned])
def test_fedex_has_the_mean_factors_and_the_mean_product(model_of):
    rng = np.random.default_rng(3)
    model = model_of(rng)
    clients = a_round(rng, model, FedEx(), equal(4))

    new = after(FedEx(), model, clients)

    close(changed(new), mean_of(products(clients), EXAMPLES))
    mean = sum(w * c.end.astype(float) for w, c in zip(EXAMPLES, clients, strict=True)) / sum(EXAMPLES)
    np.testing.assert_allclose(new.adapter.vector, mean, rtol=1e-6, atol=1e-7)
    fedit = after(FedIT(), model, clients)
    np.testing.assert_allclose(new.adapter.vector, fedit.adapter.vector, rtol=1e-6, atol=1e-6)
    assert apart(changed(fedit), changed(new)) > 0.5


def test_fedex_weighs_clients_by_their_examples_not_equally():
    rng = np.random.default_rng(4)
    model = begun(rng)
    clients = a_round(rng, model, FedEx(), equal(4), [1.0, 1.0, 1.0, 97.0])

    new = changed(after(FedEx(), model, clients))

    close(new, mean_of(products(clients), [1, 1, 1, 97]))
    assert apart(mean_of(products(clients), [1, 1, 1, 1]), new) > 0.5


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_the_residual_is_the_covariance_of_the_factors(seed, k, m, n, r):
    """E = sum p (B - mean B)(A - mean A) = 1/2 sum p_i p_j (B_i - B_j)(A_i - A_j), of rank (K-1) r at most."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k))
    points = [(w, Pair(rng.standard_normal((m, r)), rng.standard_normal((r, n)))) for w in p]
    b, a = sum(w * x.b for w, x in points), sum(w * x.a for w, x in points)
    missed = sum(w * x.b @ x.a for w, x in points) - b @ a
    pairwise = sum(
        0.5 * u * w * (x.b - y.b) @ (x.a - y.a) for u, x in points for w, y in points if x is not y
    ) + np.zeros((m, n))

    mean, residual = covariance(points, m, n)

    np.testing.assert_allclose(mean.b @ mean.a, b @ a, atol=1e-10)
    np.testing.assert_allclose(residual.b @ residual.a, missed, atol=1e-10)
    np.testing.assert_allclose(pairwise, missed, atol=1e-10)
    assert residual.width == (k - 1) * r
    assert np.linalg.matrix_rank(missed, tol=1e-9) <= (k - 1) * r


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_a_truncated_residual_is_off_by_the_tail_of_its_spectrum(kept):
    rng = np.random.default_rng(5)
    layout = one_matrix(9, 8, 2)
    model = learned(rng, layout)
    clients = [
        sent_back(k, model.adapter.vector, random_vector(rng, layout), weight=k + 1.0, rank=2, scale=1.0)
        for k in range(3)
    ]
    exact, near = after(FedEx(), model, clients), after(FedEx(residual_rank=kept), model, clients)
    (residual,) = (x for _, x in exact.base.matrices())
    spectrum = np.linalg.svd(residual.astype(float))[1]

    assert np.linalg.matrix_rank(residual, tol=1e-5) == 4  # (K - 1) r
    missing = np.linalg.norm(changed(exact)[0] - changed(near)[0])
    assert missing == pytest.approx(np.sqrt(np.sum(spectrum[kept:] ** 2)), abs=1e-5)
    assert near.base.ranks == (kept,)
    assert exact.base.ranks == (4,)
    assert np.array_equal(near.adapter.vector, exact.adapter.vector)


@pytest.mark.parametrize("rule", [FLoRA(), FedEx()], ids=kind)
@pytest.mark.parametrize("of", ["linear", "conv1d", "conv2d"])
def test_the_new_model_computes_the_mean_of_what_the_clients_compute(rule, of):
    """With PEFT's own layers: base weight plus change, in the layer's own orientation, plus new adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    rng = np.random.default_rng(6)
    layer = {"linear": torch.nn.Linear(6, 9), "conv1d": Conv1D(5, 8), "conv2d": torch.nn.Conv2d(2, 7, 3)}[of]
    x = torch.randn(4, *{"linear": (6,), "conv1d": (8,), "conv2d": (2, 5, 5)}[of])
    plain = torch.nn.Sequential()
    plain.add_module(of, layer)
    config = LoraConfig(r=RANK, lora_alpha=SCALE * RANK, target_modules=[of], fan_in_fan_out=of == "conv1d")
    net = get_peft_model(plain, config).eval()
    wrapped = getattr(net.base_model.model, of)
    begun_with = wrapped.weight.detach().clone()

    def forward(vector, base=None):
        change = 0.0
        if base is not None:
            dense_change = torch.from_numpy(np.array({m.name: c for m, c in base.matrices()}[of]))
            change = (dense_change.T if of == "conv1d" else dense_change).reshape(begun_with.shape)
        with torch.no_grad():
            arrays = KINDS.arrays(np.array(vector))
            wrapped.lora_A["default"].weight.copy_(torch.from_numpy(arrays[f"{of}.lora_A"]))
            wrapped.lora_B["default"].weight.copy_(torch.from_numpy(arrays[f"{of}.lora_B"]))
            wrapped.base_layer.weight.copy_(begun_with + change)
            return net(x).numpy().astype(float)

    model = begun(rng)
    clients = a_round(rng, model, rule, equal(3), [1.0, 2.0, 5.0])
    new = after(rule, model, clients)

    expected = mean_of([[forward(c.end)] for c in clients], [1.0, 2.0, 5.0])
    np.testing.assert_allclose(forward(new.adapter.vector, new.base), expected[0], rtol=1e-4, atol=1e-5)


def test_a_transposed_residual_on_a_square_linear_layer_is_wrong_in_silence():
    """The published bug: the residual is transposed for every layer, not only for a Conv1D."""
    rng = np.random.default_rng(7)
    layout = one_matrix(6, 6, RANK, SCALE)
    model = begun(rng, layout)
    clients = a_round(rng, model, FedEx(), equal(3), [1.0, 1.0, 1.0])
    new = after(FedEx(), model, clients)
    (residual,) = (x for _, x in new.base.matrices())

    right = mean_of(products(clients, layout), [1, 1, 1])

    close(changed(new), right)
    transposed = [x + residual.T for x in dense_matrices(new.adapter.vector, layout)]
    assert apart(transposed, right) > 0.5


# FlexLoRA ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(["B", "balanced"]))
def test_flexlora_is_off_by_the_tail_and_never_more_than_fedit(seed, split):
    rng = np.random.default_rng(seed)
    model = learned(rng)
    rule = FlexLoRA(split=split)
    clients = a_round(rng, model, rule, equal(4))
    right = mean_of(products(clients), EXAMPLES)

    new = dense_matrices(after(rule, model, clients).adapter.vector)
    fedit = dense_matrices(after(FedIT(), model, clients).adapter.vector)

    for x, y, z in zip(new, right, fedit, strict=True):
        tail = np.sqrt(np.sum(np.linalg.svd(y)[1][RANK:] ** 2))
        assert np.linalg.norm(x - y) == pytest.approx(tail, rel=1e-5)
        assert tail <= np.linalg.norm(z - y) * (1 + 1e-6)


def test_flexlora_with_room_for_the_whole_product_is_flora():
    rng = np.random.default_rng(8)
    layout = one_matrix(9, 7, 6, SCALE)
    model = begun(rng, layout)
    ranks = [(2, 3.0), (1, 6.0), (3, 2.0)]  # together 6
    clients = a_round(rng, model, FlexLoRA(), ranks, [1.0, 2.0, 3.0])

    close(changed(after(FlexLoRA(), model, clients)), changed(after(FLoRA(), model, clients)))


@pytest.mark.parametrize("split", ["B", "balanced"])
@pytest.mark.parametrize(("rank", "scale"), [(1, 6.0), (2, 2.0), (3, 0.5)])
def test_a_client_gets_the_best_approximation_of_its_rank_in_its_scale(split, rank, scale):
    rng = np.random.default_rng(9)
    rule = FlexLoRA(split=split)
    model = after(rule, learned(rng), a_round(rng, learned(rng), rule, equal(4)))

    start = offered(rule, model, rank=rank, scale=scale).start

    assert not np.any(start[~KINDS.slots(rank)])
    for x, y in zip(dense_matrices(start, KINDS, scale), dense_matrices(model.adapter.vector), strict=True):
        u, s, vt = np.linalg.svd(y)
        np.testing.assert_allclose(x, (u[:, :rank] * s[:rank]) @ vt[:rank], atol=2e-5 * s[0])


def test_where_the_singular_values_go():
    rng = np.random.default_rng(10)
    model = learned(rng)
    clients = a_round(rng, model, FlexLoRA(), equal(4))

    for _, a, b in matrices(after(FlexLoRA(split="B"), model, clients).adapter):
        a = a.reshape(RANK, -1)
        np.testing.assert_allclose(a @ a.T, np.eye(RANK), atol=1e-6)
        sizes = np.linalg.norm(b.reshape(len(b), -1), axis=0)
        assert np.all(np.diff(sizes) <= 1e-6)
    for _, a, b in matrices(after(FlexLoRA(split="balanced"), model, clients).adapter):
        of_a, of_b = (
            np.linalg.norm(a.reshape(RANK, -1), axis=1),
            np.linalg.norm(b.reshape(len(b), -1), axis=0),
        )
        np.testing.assert_allclose(of_a * np.sqrt(SCALE), of_b * np.sqrt(SCALE), rtol=1e-5)


@pytest.mark.parametrize("split", ["B", "balanced"])
def test_slots_that_the_product_does_not_need_can_still_learn(split):
    """One client of rank 1: two of three slots have no singular value; B = 0 there, but not A."""
    rng = np.random.default_rng(11)
    rule = FlexLoRA(split=split)
    model = begun(rng)
    new = after(rule, model, a_round(rng, model, rule, [(1, SCALE)], [1.0]))

    for _, a, b in matrices(new.adapter):
        assert np.all(b.reshape(len(b), -1)[:, 1:] == 0)
        np.testing.assert_allclose(np.linalg.norm(a.reshape(RANK, -1)[1:], axis=1), 1.0, rtol=1e-6)


def test_while_nothing_is_learned_flexlora_keeps_the_factors():
    model = begun(np.random.default_rng(12))
    still = [sent_back(k, model.adapter.vector, model.adapter.vector) for k in range(3)]

    assert np.array_equal(after(FlexLoRA(), model, still).adapter.vector, model.adapter.vector)


def test_small_clients_vote_the_tail_away_unless_it_is_kept():
    """Nobody learns anything: one half of the weight has rank 1, so the published rule halves the rest."""
    layout = one_matrix(6, 5, 2)
    start = vector_of(layout, [Pair(np.diag([3.0, 2.0, 0, 0, 0, 0])[:, :2], np.eye(2, 5))])
    model = ServerModel(Adapter(layout, start))
    clients = []
    for k, rank in enumerate((2, 1)):
        offer = offered(FlexLoRA(), model, rank=rank, scale=1.0)
        clients.append(sent_back(k, offer.start, offer.start, rank=rank, scale=1.0))

    voted, kept = after(FlexLoRA(), model, clients), after(FlexLoRA(tail="kept"), model, clients)

    spectrum = [np.linalg.svd(changed(m)[0])[1][:2] for m in (model, voted, kept)]
    np.testing.assert_allclose(spectrum, [[3, 2], [3, 1], [3, 2]], atol=1e-6)


# FedSVD -----------------------------------------------------------------------------------------


def test_fedsvd_keeps_the_product_and_makes_a_orthonormal_every_period():
    rng = np.random.default_rng(14)
    rule = FedSVD(period=2)
    model = begun(rng)
    state, first = rule.init(model), pairs(KINDS, model.adapter.vector)
    for version in range(1, 5):
        clients = a_round(rng, model, rule, equal(3), [1.0, 2.0, 3.0])
        right = mean_of(products(clients), [1, 2, 3])
        before = model.adapter
        model, state = commit(rule, model, clients, state)
        close(changed(model), right)
        for i, (_, a, _) in enumerate(matrices(model.adapter)):
            rows = a.reshape(RANK, -1).astype(float)
            if version % 2 == 0:
                np.testing.assert_allclose(rows @ rows.T, np.eye(RANK), atol=1e-6)
            else:
                assert np.array_equal(a, list(matrices(before))[i][1])
            span = np.linalg.pinv(first[i].a) @ first[i].a  # the projector on the first A's row space
            np.testing.assert_allclose(rows @ span, rows, atol=1e-5)


def test_fedsvd_that_never_refactors_is_ffa():
    rng = np.random.default_rng(15)
    model = learned(rng)
    clients = a_round(rng, model, FFA(), equal(3), [1.0, 2.0, 3.0])

    never, ffa = after(FedSVD(period=10**9), model, clients), after(FFA(), model, clients)

    np.testing.assert_allclose(never.adapter.vector, ffa.adapter.vector, rtol=1e-6, atol=1e-7)


def test_more_slots_than_inputs_or_outputs_are_no_problem():
    rng = np.random.default_rng(16)
    for out, inputs in ((2, 5), (5, 2), (1, 1)):
        layout = one_matrix(out, inputs, 4)
        model = learned(rng, layout)
        for rule in ALL:
            clients = a_round(rng, model, rule, [(4, 1.0)] * 2, [1.0, 3.0])
            close(changed(after(rule, model, clients)), mean_of(products(clients, layout), [1, 3]), rtol=1e-5)


# between the rules ------------------------------------------------------------------------------


def test_after_one_local_step_from_b_zero_all_rules_agree():
    """dL/dA = s B' G = 0 at B = 0: all clients still have one A, and averaging factors is exact."""
    rng = np.random.default_rng(17)
    layout = one_matrix(5, 4, 2, SCALE)
    model = begun(rng, layout)
    clients = []
    for k in range(3):
        x, y = rng.standard_normal((4, 20)), rng.standard_normal((5, 20))
        ((b, a),) = pairs(layout, model.adapter.vector)
        gradient = (SCALE * b @ a @ x - y) @ x.T / 20  # of 1/2 |s B A x - y|^2, mean over examples
        stepped = [Pair(b - 0.1 * SCALE * gradient @ a.T, a - 0.1 * SCALE * b.T @ gradient)]
        end = vector_of(layout, stepped)
        clients.append(sent_back(k, model.adapter.vector, end, weight=k + 1.0, rank=2))
    right = mean_of(products(clients, layout), [1, 2, 3])

    for rule in (FedIT(), FFA(), *ALL):
        close(changed(after(rule, model, clients)), right, rtol=1e-5)
    later = a_round(rng, model, FedIT(), [(2, SCALE)] * 3, [1.0, 2.0, 3.0])
    assert apart(changed(after(FedIT(), model, later)), mean_of(products(later, layout), [1, 2, 3])) > 0.1


@pytest.mark.parametrize("rule", ALL, ids=kind)
@pytest.mark.parametrize("model_of", [begun, learned])
@pytest.mark.parametrize("count", [1, 3])
def test_one_client_or_identical_clients_are_what_comes_out(rule, model_of, count):
    rng = np.random.default_rng(18)
    model = model_of(rng)
    first = a_round(rng, model, rule, equal(1), [1.0])[0]
    clients = [replace(first, client=k, examples=k + 1.0) for k in range(count)]

    close(changed(after(rule, model, clients)), products([first])[0], rtol=1e-5)


@pytest.mark.parametrize("rule", ALL, ids=kind)
def test_nobody_moved_leaves_the_product(rule):
    model = learned(np.random.default_rng(19))
    still = [sent_back(k, model.adapter.vector, model.adapter.vector, weight=k + 1.0) for k in range(3)]

    close(changed(after(rule, model, still)), changed(model), rtol=1e-5)


@pytest.mark.parametrize("rule", ALL, ids=kind)
def test_a_client_without_weight_is_not_there_and_one_with_all_of_it_is_alone(rule):
    rng = np.random.default_rng(20)
    model = learned(rng)
    clients = a_round(rng, model, rule, equal(3), [1.0, 0.0, 3.0])

    close(
        changed(after(rule, model, clients)), changed(after(rule, model, [clients[0], clients[2]])), rtol=1e-5
    )
    alone = [replace(c, examples=float(k == 1)) for k, c in enumerate(clients)]
    close(changed(after(rule, model, alone)), products([clients[1]])[0], rtol=1e-5)


@pytest.mark.parametrize("rule", ALL, ids=kind)
def test_without_any_weight_a_commit_is_refused(rule):
    model = learned(np.random.default_rng(21))
    nothing = [sent_back(0, model.adapter.vector, model.adapter.vector, weight=0.0)]

    with pytest.raises(RunError, match=f"aggregator {rule.kind}: all weights are 0"):
        after(rule, model, nothing)


@pytest.mark.parametrize("rule", [FLoRA(), FlexLoRA(), FlexLoRA(split="balanced"), FedEx()], ids=str)
def test_turning_one_clients_factors_does_not_change_the_product(rule):
    """(B G, G^-1 A) is the same update; averaging factors sees a difference, averaging products none."""
    rng = np.random.default_rng(22)
    model = learned(rng)
    clients = a_round(rng, model, rule, equal(3), [1.0, 2.0, 3.0])
    turned = []
    for p in pairs(KINDS, clients[1].end):
        gauge = np.linalg.qr(rng.standard_normal((RANK, RANK)))[0]
        turned.append(Pair(p.b @ gauge, gauge.T @ p.a))
    others = [clients[0], replace(clients[1], end=vector_of(KINDS, turned)), clients[2]]

    close(changed(after(rule, model, clients)), changed(after(rule, model, others)), rtol=1e-5)
    fedit = [changed(after(FedIT(), model, given_)) for given_ in (clients, others)]
    assert apart(*fedit) > 0.1


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)), SEEDS)
def test_the_order_of_clients_does_not_matter(order, seed):
    for rule in ALL:
        rng = np.random.default_rng(seed)
        model = learned(rng)
        ranks = MIXED if rule.traits.unequal_ranks else equal(4)
        clients = [
            replace(c, staleness=k % 2, version=5 - k % 2)
            for k, c in enumerate(a_round(rng, model, rule, ranks))
        ]

        close(
            changed(after(rule, model, [clients[i] for i in order])),
            changed(after(rule, model, clients)),
            rtol=1e-5,
        )


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_rules_over_products_change_nothing_that_they_are_given(seed):
    for rule in ALL:
        rng = np.random.default_rng(seed)
        model = learned(rng)
        state = rule.init(model)
        clients = a_round(rng, model, rule, equal(3), [1.0, 2.0, 3.0])
        bytes_before = [model.adapter.vector.tobytes(), *(c.end.tobytes() for c in clients)]
        (once, state_once), (again, state_again) = (rule.apply(state, model, clients) for _ in range(2))

        assert once.adapter.vector.tobytes() == again.adapter.vector.tobytes()
        assert str(state_once) == str(state_again)
        if once.base is not None:
            assert once.base.vector.tobytes() == again.base.vector.tobytes()
        assert bytes_before == [model.adapter.vector.tobytes(), *(c.end.tobytes() for c in clients)]
        assert model.base is None


# staleness --------------------------------------------------------------------------------------


def two_versions(rng, rule, later=2):
    """Version 0, and the model and state `later` commits on."""
    old = begun(rng)
    model, state = old, rule.init(old)
    for _ in range(later):
        model, state = commit(rule, model, a_round(rng, model, rule, equal(2), [1.0, 1.0]), state)
    return old, model, state


@pytest.mark.parametrize(
    "rule", [FLoRA(normalize="K"), FedEx(normalize="K"), FedSVD(normalize="K")], ids=kind
)
def test_a_late_move_is_added_to_the_product_of_now_times_its_discount(rule):
    """W_t + 1/2 (fresh move + s(3) stale move), each against its own snapshot; s(3) = 1/2."""
    rng = np.random.default_rng(23)
    old, model, state = two_versions(rng, rule)
    (stale,) = a_round(rng, old, rule, equal(1), [7.0])
    fresh_start = model.adapter.vector
    end = b_only(rng, fresh_start) if rule.kind == "fedsvd" else random_vector(rng)
    fresh = sent_back(0, fresh_start, end, version=3)
    stale = replace(stale, client=1, staleness=3, version=0)
    moves = [
        0.5 * (e - s) + 0.25 * (o - p)
        for e, s, o, p in zip(
            dense_matrices(fresh.end),
            dense_matrices(fresh.start),
            dense_matrices(stale.end),
            dense_matrices(stale.start),
            strict=True,
        )
    ]

    new = changed(rule.apply(state, model, [fresh, stale])[0])

    close(new, [x + m for x, m in zip(changed(model), moves, strict=True)], rtol=1e-5)


def test_fedex_puts_the_cross_terms_of_stale_moves_into_the_base():
    """Averaged factors alone would be off by dB (A_t - A_v) + (B_t - B_v) dA and more."""
    rng = np.random.default_rng(24)
    old, model, _ = two_versions(rng, FedEx())
    stale = replace(a_round(rng, old, FedEx(), equal(1), [1.0])[0], staleness=2)
    moved = [e - s for e, s in zip(dense_matrices(stale.end), dense_matrices(stale.start), strict=True)]
    right = [x + m for x, m in zip(changed(model), moved, strict=True)]

    new = after(FedEx(staleness=Constant()), model, [stale])
    fedit = after(FedIT(staleness=Constant()), model, [stale])

    close(changed(new), right, rtol=1e-5)
    assert apart(changed(fedit), right) > 0.1
    assert new.base.ranks[-1] == 2 * RANK  # three points: the model, the snapshot, the end


def test_flexlora_takes_a_stale_update_for_what_it_would_be_from_the_model_of_now():
    rng = np.random.default_rng(25)
    layout = one_matrix(9, 8, 8, SCALE)  # room for every rank there is: no truncation
    old = begun(rng, layout)
    model = after(FlexLoRA(), old, a_round(rng, old, FlexLoRA(), [(2, 2.0)] * 2, [1.0, 1.0]))
    (stale,) = a_round(rng, old, FlexLoRA(), [(2, 3.0)], [4.0])
    (fresh,) = a_round(rng, model, FlexLoRA(), [(8, SCALE)], [6.0])
    stale = replace(stale, client=1, staleness=3)
    now = changed(model)[0]
    u, s, vt = np.linalg.svd(now)
    cut = (u[:, :2] * s[:2]) @ vt[:2]
    move = dense_matrices(stale.end, layout, 3.0)[0] - dense_matrices(stale.start, layout, 3.0)[0]
    said = [dense_matrices(fresh.end, layout)[0], cut + move]

    new = changed(after(FlexLoRA(staleness=Polynomial(a=0.5)), model, [fresh, stale]))[0]

    close([new], [(6 * said[0] + 0.5 * 4 * said[1]) / (6 + 0.5 * 4)], rtol=1e-5)
    kept = changed(after(FlexLoRA(tail="kept"), model, [fresh, stale]))[0]
    close([kept], [(6 * said[0] + 2 * (now + move)) / 8], rtol=1e-5)


@pytest.mark.parametrize("rule", [FlexLoRA(), FedEx(), FedSVD()], ids=kind)
def test_a_snapshot_that_was_coded_on_its_way_does_not_enter_the_model(rule):
    """Clients start from a rounded copy: what counts is how far they went from there, not the rounding."""
    rng = np.random.default_rng(36)
    model = learned(rng)
    rounded = np.round(model.adapter.vector * 4) / np.float32(4)
    still = [sent_back(k, rounded, rounded, weight=k + 1.0) for k in range(3)]

    assert apart(dense_matrices(rounded), changed(model)) > 0.05
    close(changed(after(rule, model, still)), changed(model), rtol=1e-5)


def test_factor_deltas_across_a_refactorisation_mean_nothing_but_their_product_does():
    """FedSVD: the same late move added as B - B_v to the new B is wrong; in terms of the new A it is right."""
    rng = np.random.default_rng(26)
    rule = FedSVD(staleness=Constant(), normalize="none")
    old, model, state = two_versions(rng, rule, later=1)
    stale = replace(a_round(rng, old, rule, equal(1), [1.0])[0], staleness=1)
    moved = [e - s for e, s in zip(dense_matrices(stale.end), dense_matrices(stale.start), strict=True)]
    right = [x + m for x, m in zip(changed(model), moved, strict=True)]

    new = rule.apply(state, model, [stale])[0]

    close(changed(new), right, rtol=1e-5)
    naive = model.adapter.vector + np.where(KINDS.slots(None, "B"), stale.end - stale.start, 0)
    assert apart(dense_matrices(naive), right) > 0.1


@pytest.mark.parametrize("rule", ALL, ids=kind)
def test_half_a_server_step_goes_half_the_way(rule):
    rng = np.random.default_rng(27)
    layout = one_matrix(9, 8, 8, SCALE)  # as many slots as singular values: FlexLoRA truncates nothing
    model = learned(rng, layout)
    clients = a_round(rng, model, rule, [(8, SCALE)] * 2, [1.0, 3.0])
    starts = [dense_matrices(c.start, layout) for c in clients]
    moves = zip(mean_of(products(clients, layout), [1, 3]), mean_of(starts, [1, 3]), strict=True)

    half = changed(after(rule.model_copy(update={"server_lr": 0.5}), model, clients))

    close(half, [x + 0.5 * (y - z) for x, (y, z) in zip(changed(model), moves, strict=True)], rtol=1e-5)


@pytest.mark.parametrize("rule", ALL, ids=kind)
def test_the_discount_may_be_in_product_space(rule):
    """X_t = 2 X_v at a 1 x 1 matrix: d = 1/2, s = 1 / (1 + 2/2) = 1/2."""
    layout = one_matrix(1, 1, 1)
    model = ServerModel(Adapter(layout, np.array([1, 2], np.float32)))
    late = sent_back(
        0, np.array([1, 1], np.float32), np.array([1, 5], np.float32), staleness=4, rank=1, scale=1.0
    )
    told = rule.model_copy(update={"staleness": Product(a=2), "normalize": "none"})

    (new,) = changed(after(told, model, [late]))

    assert new[0, 0] == pytest.approx(2 + 0.5 * (5 - 1))


# what travels -----------------------------------------------------------------------------------


def names(factor):
    return tuple(f"{m.name}.lora_{factor}" for m in KINDS.modules)


def test_flora_uploads_the_clients_slots_and_downloads_the_stacks_it_missed():
    """Three rounds: ranks 3+1, 2+1, 3+3; a client that slept through the last two owes (3 + 6) slots."""
    rng = np.random.default_rng(28)
    rule, model = FLoRA(), begun(rng)
    state = rule.init(model)

    def down(**how):
        return rule.offer(state, model, ask(**how)).down.floats(KINDS)

    assert down(rank=1) == down(rank=3) == 2  # a seed of 8 bytes: A can be drawn, B is 0
    assert rule.offer(state, model, ask(rank=2)).up.floats(KINDS) == 2 * BOTH_SIDES
    expected = {0: 0}
    for version, ranks in enumerate([(3, 1), (2, 1), (3, 3)], start=1):
        clients = a_round(rng, model, rule, [(r, SCALE) for r in ranks], [1.0] * len(ranks))
        model, state = commit(rule, model, clients, state)
        expected[version] = expected[version - 1] + sum(ranks)
        assert model.base.version == version
    assert model.base.ranks == (4, 3, 6)
    assert down(last_seen=3) == 0
    assert down(last_seen=2) == min(6 * BOTH_SIDES, DENSE) == DENSE  # 318 floats as factors, 220 dense
    assert down(last_seen=1) == down(last_seen=0) == DENSE
    assert down() == DENSE + 2
    wide = one_matrix(300, 200, RANK, SCALE)
    sparse = Base(wide, 3, np.zeros(300 * 200, np.float32), (4, 3, 6))
    sleeper = replace(begun(rng, wide), base=sparse)
    woken = rule.offer(rule.init(sleeper), sleeper, ask(last_seen=1))
    assert woken.down.floats(wide) == (3 + 6) * (300 + 200)


def test_fedex_downloads_the_adapter_and_the_residuals_it_missed():
    """Residual of K clients: (K - 1) r slots, here 2 x 3 and then 1 x 3."""
    rng = np.random.default_rng(29)
    layout = one_matrix(300, 200, RANK, SCALE)
    whole, slot = RANK * 500, 500
    rule, model = FedEx(), begun(rng, layout)

    def down(model, **how):
        offer = rule.offer(None, model, ask(**how))
        assert offer.up.floats(layout) == whole
        return offer.down.floats(layout)

    assert down(model) == whole
    for count in (3, 2):
        clients = a_round(rng, model, rule, equal(count), [1.0] * count)
        model = after(rule, model, clients)
    assert model.base.ranks == (6, 3)
    assert down(model, last_seen=2) == whole
    assert down(model, last_seen=1) == whole + 3 * slot
    assert down(model, last_seen=0) == down(model) == whole + 9 * slot
    assert FedEx(residual_rank=2).apply(None, model, clients)[0].base.ranks == (6, 3, 2)


def test_flexlora_sends_the_clients_slots_both_ways_and_has_nothing_to_catch_up():
    model = learned(np.random.default_rng(30))

    for rank in (1, 2, 3):
        offer = offered(FlexLoRA(), model, rank=rank, last_seen=None)
        assert offer.down.floats(KINDS) == offer.up.floats(KINDS) == rank * BOTH_SIDES
    assert 3 * BOTH_SIDES == FLOATS


def test_fedsvd_sends_a_only_to_clients_that_have_another_one():
    rng = np.random.default_rng(31)
    rule, model = FedSVD(period=2), begun(rng)
    state = rule.init(model)
    of_b, of_a = RANK * (9 + 5 + 7), RANK * (6 + 8 + 18)

    def down(**how):
        offer = rule.offer(state, model, ask(**how))
        assert (offer.trains, offer.up.arrays) == ("B", names("B"))
        assert offer.up.floats(KINDS) == of_b
        return offer.down.floats(KINDS)

    assert (down(), down(last_seen=0)) == (of_b + 2, of_b)  # version 0: A is drawn from the seed
    for _ in range(3):
        model, state = commit(rule, model, a_round(rng, model, rule, equal(2), [1.0, 1.0]), state)
    # version 3; A changed at version 2
    assert [down(last_seen=v) for v in (0, 1, 2, 3)] == [of_a + of_b, of_a + of_b, of_b, of_b]
    assert down() == of_a + of_b


@pytest.mark.parametrize("rule", ALL, ids=kind)
def test_what_travels_does_not_depend_on_values(rule):
    """A run without training applies rules to updates in which nobody moved: the same bytes must come out."""
    rng = np.random.default_rng(32)
    ranks = MIXED if rule.traits.unequal_ranks else equal(4)
    trained = untrained = begun(rng)
    states = [rule.init(trained), rule.init(untrained)]
    zeros = np.zeros(KINDS.size, np.float32)
    for version in range(3):
        stale = [0, 0, min(version, 1), min(version, 2)]
        clients = [
            replace(c, staleness=tau, version=version - tau)
            for c, tau in zip(a_round(rng, trained, rule, ranks), stale, strict=True)
        ]
        trained, states[0] = commit(rule, trained, clients, states[0])
        empty = [replace(c, start=zeros, end=zeros) for c in clients]
        untrained, states[1] = commit(rule, untrained, empty, states[1])
        for seen in (None, *range(version + 2)):
            asked = [
                rule.offer(s, m, ask(last_seen=seen))
                for s, m in zip(states, (trained, untrained), strict=True)
            ]
            assert (asked[0].down, asked[0].up) == (asked[1].down, asked[1].up)


def test_starts_of_equal_clients_are_one_object():
    """So that a vector that many clients start from is handed to the workers once."""
    model = learned(np.random.default_rng(33))

    for rule in ALL:
        one, other = (offered(rule, model, client=k, rank=RANK) for k in (1, 2))
        assert one.start is other.start is model.adapter.vector
    for rule in (FLoRA(), FlexLoRA()):
        one, other = (offered(rule, model, client=k, rank=1, scale=6.0) for k in (1, 2))
        assert one.start is other.start


# FLoRA begins anew ------------------------------------------------------------------------------


def test_flora_draws_a_new_a_for_every_version_within_loras_own_bounds():
    rng = np.random.default_rng(34)
    model, rule = begun(rng), FLoRA()
    one, state = commit(rule, model, a_round(rng, model, rule))
    two, _ = commit(rule, one, a_round(rng, one, rule), state)
    drawn = [m.adapter.vector[KINDS.slots(None, "A")] for m in (model, one, two)]

    assert all(not np.any(m.adapter.vector[KINDS.slots(None, "B")]) for m in (one, two))
    assert len({d.tobytes() for d in drawn}) == 3
    for m, a, _ in matrices(two.adapter):
        bound = 1 / np.sqrt(np.prod(m.a_shape[1:]))
        assert 0.7 * bound < np.abs(a).max() <= bound  # the largest of 18 or more uniform draws


def test_flora_draws_other_factors_in_experiments_of_other_seeds_and_the_same_in_the_same():
    models = [begun(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    still = [after(FLoRA(), m, [sent_back(0, m.adapter.vector, m.adapter.vector)]) for m in models]

    same, again, other = (m.adapter.vector.tobytes() for m in still)
    assert same == again != other


def test_flora_may_begin_with_the_first_a_every_time():
    rng = np.random.default_rng(35)
    model, rule = begun(rng), FLoRA(reinit="first")
    one, state = commit(rule, model, a_round(rng, model, rule))
    two, _ = commit(rule, one, a_round(rng, one, rule), state)

    assert np.array_equal(one.adapter.vector, model.adapter.vector)
    assert np.array_equal(two.adapter.vector, model.adapter.vector)
    assert np.any(two.base.vector != one.base.vector)
