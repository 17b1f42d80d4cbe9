"""Rules over the factors A and B against their algebra: exactness, corners, padding, gauge, staleness."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.factors import (
    FRESH,
    LAYERS,
    RANK,
    SCALE,
    after,
    dense,
    landed,
    model_of,
    parts,
    rng_of,
    slot_mask,
    some_model,
    visited,
)

from fedsim.adapters.adapter import Adapter, Layout, Module
from fedsim.aggregators._base import ServerModel
from fedsim.aggregators._staleness import Polynomial, Product
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.fedsa import FedSA
from fedsim.aggregators.ffa import FFA
from fedsim.aggregators.hetlora import HetLoRA, product_norm
from fedsim.aggregators.mixing import Mixing
from fedsim.aggregators.rolora import Phases, RoLoRA
from fedsim.errors import RunError

RULES = [FedIT(), FFA(), RoLoRA(), FedSA(), HetLoRA(), Mixing()]
MEANS = [FedIT(), FFA(), RoLoRA(), FedSA()]
"""Rules that weigh by examples."""
PADDINGS = ["zeros", "moves", "rows"]
MIXED = [(4, 2.0), (2, 4.0), (1, 8.0), (4, 0.5)]
"""Ranks with PEFT's own scales (alpha / rank), and one that asks for another alpha."""
seeds = st.integers(0, 2**32 - 1)


def by_name(rule):
    return rule.kind


def clients(rule, model, *, ranks=MIXED, weights=(1, 2, 3, 4), seed=0, state=None):
    state = rule.init(model) if state is None else state
    pairs = zip(ranks, weights, strict=True)
    return [
        visited(rule, state, model, k, rank=r, scale=s, weight=float(n), seed=seed)
        for k, ((r, s), n) in enumerate(pairs)
    ]


def mean_of_products(given_):
    """sum_k p_k s_k B_k A_k, from the clients' own ends and scales."""
    n = np.array([c.examples for c in given_])
    return sum(p * dense(c.end, c.scale) for p, c in zip(n / n.sum(), given_, strict=True))


# exactness -------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_ffa_gives_the_mean_of_the_products_for_mixed_ranks_and_scales(seed):
    """(sum p B) A_0 = sum p B A_0; a client of rank r has the first r rows of A_0 and s_k of its own."""
    given_ = clients(FFA(), some_model(seed), seed=seed)

    np.testing.assert_allclose(
        dense(after(FFA(), some_model(seed), given_)), mean_of_products(given_), rtol=1e-4, atol=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(seed=seeds, phase=st.sampled_from([0, 1]))
def test_rolora_gives_the_mean_of_the_products_in_each_phase(seed, phase):
    """Version 0 trains B against a common A, version 1 trains A against a common B: one factor is shared, so means are exact."""
    rule, model, state = RoLoRA(), some_model(seed), Phases(version=phase)
    given_ = clients(rule, model, seed=seed, state=state)

    assert {c.trains for c in given_} == {"BA"[phase]}
    np.testing.assert_allclose(
        dense(after(rule, model, given_, state)), mean_of_products(given_), rtol=1e-4, atol=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_the_error_of_averaged_factors_is_the_covariance_of_the_factors(seed):
    """sum p BA - (mean B)(mean A) = sum p (B - mean B)(A - mean A) = half the sum over all pairs."""
    given_ = clients(FedIT(), some_model(seed), ranks=[(RANK, SCALE)] * 4, seed=seed)
    merged = after(FedIT(), some_model(seed), given_)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    # x -> B A is quadratic: (B - b)(A - a) is the product of the difference of two vectors
    around_the_mean = sum(p[i] * dense(given_[i].end - merged) for i in range(4))
    between_pairs = sum(
        0.5 * p[i] * p[j] * dense(given_[i].end - given_[j].end) for i in range(4) for j in range(4)
    )

    error = mean_of_products(given_) - dense(merged)

    np.testing.assert_allclose(error, around_the_mean, atol=1e-4)
    np.testing.assert_allclose(error, between_pairs, atol=1e-4)
    assert np.abs(error).max() > 0.1, "averaging factors is not averaging updates"


def test_a_product_of_means_is_the_mean_of_products_where_the_clients_agree_in_one_factor():
    """After one step from B = 0 all A are equal (dL/dA = s B'G = 0), so FedIT is exact then, and only then."""
    model = some_model(b=False)
    one_step = [
        visited(
            FedIT(), None, model, k, move=rng_of(k).standard_normal(LAYERS.size) * slot_mask(0, which="B")
        )
        for k in range(3)
    ]

    np.testing.assert_allclose(dense(after(FedIT(), model, one_step)), mean_of_products(one_step), atol=1e-5)
    for other in (FFA(), RoLoRA(), HetLoRA(weights="examples")):
        given_ = [
            landed(c.start, c.end, phase="B", trains="B") if other.kind != "hetlora" else c for c in one_step
        ]
        np.testing.assert_allclose(after(other, model, given_), after(FedIT(), model, one_step), atol=1e-6)


@pytest.mark.parametrize("rule", [FFA(padding="rows"), FFA(padding="moves"), FedIT(), HetLoRA()], ids=str)
def test_other_paddings_and_rules_are_not_exact(rule):
    given_ = clients(rule, some_model())

    assert np.abs(dense(after(rule, some_model(), given_)) - mean_of_products(given_)).max() > 0.1


@pytest.mark.parametrize("rule", [FFA(), RoLoRA()], ids=by_name)
def test_the_merged_adapter_answers_as_the_clients_do_on_average_in_stock_peft(rule):
    """On torch's Linear, GPT-2's Conv1D and Conv2d: outputs are linear in the update, so their mean is the merged one's."""
    given_ = clients(rule, some_model(3), ranks=[(4, 2.0), (2, 4.0), (1, 8.0), (3, 8 / 3)])
    n = np.array([c.examples for c in given_])
    outputs = [_forward(c.end, c.scale) for c in given_]
    merged = _forward(after(rule, some_model(3), given_), SCALE)

    for layer, got in enumerate(merged):
        mean = sum(p * out[layer] for p, out in zip(n / n.sum(), outputs, strict=True))
        np.testing.assert_allclose(got, mean, rtol=1e-4, atol=1e-4)
    averaged = _forward(after(FedIT(), some_model(3), clients(FedIT(), some_model(3))), SCALE)
    assert np.abs(averaged[0] - merged[0]).max() > 0.1


def _forward(vector, scale):
    """What each of the three layers answers with these factors in stock PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # PEFT sets fan_in_fan_out for Conv1D itself, and says so
        torch.manual_seed(0)
        layers = {
            "linear": torch.nn.Linear(5, 7),
            "conv1d": Conv1D(3, 6),
            "conv2d": torch.nn.Conv2d(2, 5, (3, 2)),
        }
        inputs = [torch.randn(8, 5), torch.randn(8, 6), torch.randn(8, 2, 5, 5)]
        config = LoraConfig(r=RANK, lora_alpha=scale * RANK, target_modules=list(layers))
        wrapped = get_peft_model(torch.nn.ModuleDict(layers), config).base_model.model
    found = []
    with torch.no_grad():
        for (name, x), m in zip(zip(layers, inputs, strict=True), LAYERS.modules, strict=True):
            arrays = LAYERS.arrays(np.array(vector))
            wrapped[name].lora_A["default"].weight.copy_(torch.from_numpy(arrays[f"{m.name}.lora_A"]))
            wrapped[name].lora_B["default"].weight.copy_(torch.from_numpy(arrays[f"{m.name}.lora_B"]))
            found.append(wrapped[name](x).numpy())
    return found


# units: ranks and scales -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=by_name)
@pytest.mark.parametrize(("rank", "scale"), MIXED)
def test_a_client_starts_from_the_servers_product_cut_to_its_slots_whatever_its_scale(rule, rank, scale):
    """alpha / r may change from client to client if B is divided by as much."""
    model = some_model()
    c = visited(rule, rule.init(model), model, 0, rank=rank, scale=scale, move=0.0)
    cut = np.where(slot_mask(0, rank), model.adapter.vector, 0)

    np.testing.assert_allclose(dense(c.start, scale), dense(cut), rtol=1e-5, atol=1e-6)
    assert not np.any(c.start[slot_mask(rank)])


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_clients_in_their_own_scale_count_as_if_they_all_had_the_servers(rule):
    """The same moves of the product, once in own scales and once in the common one, give the same model."""
    model = some_model()
    state = rule.init(model)
    own, common = [], []
    for k, (rank, scale) in enumerate(MIXED):
        move = rng_of(k).standard_normal(LAYERS.size)
        units = np.where(slot_mask(0, which="B"), SCALE / scale, 1.0)
        own.append(visited(rule, state, model, k, rank=rank, scale=scale, move=move * units))
        common.append(visited(rule, state, model, k, rank=rank, move=move))

    np.testing.assert_allclose(after(rule, model, own), after(rule, model, common), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_where_nothing_is_cut_all_clients_start_from_one_array(rule):
    model = some_model()
    starts = [visited(rule, rule.init(model), model, k).start for k in range(2)]

    assert starts[0] is starts[1]


def test_what_a_client_writes_above_its_rank_never_counts():
    honest = clients(FedIT(), some_model())
    junk = [landed(c.start, c.end + 9 * slot_mask(c.rank), client=c.client, rank=c.rank, scale=c.scale,
                   weight=c.examples) for c in honest]  # fmt: skip

    for rule in (FedIT(), FedIT(padding="rows"), HetLoRA(weights="examples"), Mixing()):
        np.testing.assert_array_equal(after(rule, some_model(), junk), after(rule, some_model(), honest))


# padding ---------------------------------------------------------------------------------------


def test_padding_with_rows_divides_a_slot_by_the_clients_that_have_it_and_zeros_by_all():
    """One slot that clients of weights 1 and 3 have (ends 4 and 8; the server is at 2), and one that the second lacks."""
    layout = Layout(modules=(Module("w", 2, (2, 1), (1, 2), 1.0),))  # A's two slots, then B's
    model = model_of([2, 2, 2, 2], layout)
    both = landed([2, 2, 2, 2], [4, 4, 4, 4], client=0, rank=2, scale=1.0, weight=1)
    first = landed([2, 0, 2, 0], [8, 0, 8, 0], client=1, rank=1, scale=1.0, weight=3)

    for rule in (FedIT, HetLoRA):
        made = {
            p: after(
                rule(padding=p, **({} if rule is FedIT else {"weights": "examples"})), model, [both, first]
            )
            for p in PADDINGS
        }

        assert made["zeros"].tolist() == [7, 1, 7, 1]  # (4 + 3 * 8) / 4 and (4 + 3 * 0) / 4
        assert made["rows"].tolist() == [7, 4, 7, 4]  # its owner alone: 4
        assert made["moves"].tolist() == [7, 2.5, 7, 2.5]  # 2 + (2 + 3 * 0) / 4
    assert after(FedIT(padding="rows", normalize="K"), model, [both, first]).tolist() == [6, 4, 6, 4]
    assert after(FedIT(padding="zeros", normalize="K"), model, [both, first]).tolist() == [6, 2, 6, 2]
    assert after(FedIT(padding="rows", normalize="none"), model, [both, first]).tolist() == [10, 4, 10, 4]


@pytest.mark.parametrize("rule", [FedIT, HetLoRA])
def test_zero_padding_dilutes_a_slot_by_the_mass_of_those_who_have_it(rule):
    """(padded mean)_j = mass_j x (mean over owners)_j with mass_j = sum over r_k > j of p_k."""
    model = some_model()
    given_ = clients(rule(), model)
    zeros, rows = (after(rule(padding=p), model, given_) for p in ("zeros", "rows"))
    weights = [c.examples if rule is FedIT else np.linalg.norm(dense(c.end, c.scale)) for c in given_]
    for slot in range(RANK):
        mass = sum(w for w, c in zip(weights, given_, strict=True) if c.rank > slot) / sum(weights)
        here = slot_mask(slot, slot + 1)
        np.testing.assert_allclose(zeros[here], mass * rows[here], rtol=1e-4)
        assert mass == pytest.approx(1) if slot == 0 else mass < 0.95


def test_a_slot_that_nobody_has_stays_unless_padding_says_zero():
    model = some_model()
    small = [visited(FedIT(), None, model, k, rank=2) for k in range(3)]
    last = slot_mask(2)

    assert not np.any(after(FedIT(padding="zeros"), model, small)[last])
    for padding in ("rows", "moves"):
        np.testing.assert_array_equal(
            after(FedIT(padding=padding), model, small)[last], model.adapter.vector[last]
        )


@pytest.mark.parametrize("kind", [FedIT, FFA, FedSA, RoLoRA, HetLoRA])
def test_for_equal_ranks_all_paddings_agree_to_the_bit(kind):
    model = some_model()
    made = [
        after(kind(padding=p), model, clients(kind(padding=p), model, ranks=[(RANK, SCALE)] * 4)).tobytes()
        for p in PADDINGS
    ]

    assert len(set(made)) == 1


def test_cutting_and_padding_is_idempotent_and_padding_keeps_the_product():
    """What an idle client of rank 2 sends back is what it got; padded, it is the same product."""
    model = some_model()
    once = model_of(model.adapter.cut(2))

    assert once.adapter.cut(2).tobytes() == model.adapter.cut(2).tobytes()
    idle = visited(FedIT(), None, model, 0, rank=2, move=0.0)
    np.testing.assert_array_equal(after(FedIT(), model, [idle]), model.adapter.cut(2))
    np.testing.assert_allclose(dense(after(FedIT(), model, [idle])), dense(idle.end))


# corners ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [*RULES, FedIT(padding="rows"), HetLoRA(weights="examples")], ids=str)
def test_identical_clients_are_returned(rule):
    """With one client, or with clones, every rule returns what they trained (Mixing at alpha = 1)."""
    rule = Mixing(alpha=1.0) if rule.kind == "mixing" else rule
    model = some_model()
    for copies in (1, 3):
        given_ = [visited(rule, rule.init(model), model, k, move=0.5, weight=k + 1.0) for k in range(copies)]
        expected = (
            given_[0].end
            if rule.kind != "fedsa"
            else np.where(slot_mask(0, which="A"), given_[0].end, model.adapter.vector)
        )
        np.testing.assert_allclose(after(rule, model, given_), expected, rtol=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
def test_hetlora_weighing_by_examples_is_fedit(padding):
    model = some_model()
    het = HetLoRA(weights="examples", padding=padding)

    np.testing.assert_array_equal(
        after(het, model, clients(het, model)), after(FedIT(padding=padding), model, clients(FedIT(), model))
    )


def test_hetlora_with_equal_ranks_and_equal_norms_is_uniform_fedit():
    """HetLoRA weighs by the norm of the product; norms are made equal by scaling each client's B."""
    model = some_model()
    ends = [rng_of(k).standard_normal(LAYERS.size) for k in range(3)]
    ends = [e * np.where(slot_mask(0, which="B"), 10 / np.linalg.norm(dense(e)), 1) for e in ends]
    given_ = [landed(model.adapter.vector, e, client=k, weight=1 + 5 * k) for k, e in enumerate(ends)]
    uniform = FedIT(normalize="K", staleness=FRESH)

    np.testing.assert_allclose(
        after(HetLoRA(), model, given_), after(uniform, model, given_), rtol=1e-4, atol=1e-5
    )
    assert np.abs(after(FedIT(), model, given_) - after(uniform, model, given_)).max() > 0.1


def test_hetlora_weighs_by_the_norm_of_the_clients_product_in_its_own_scale():
    model = some_model()
    given_ = clients(HetLoRA(), model)
    norms = [np.linalg.norm(dense(c.end, c.scale)) for c in given_]
    units = [np.where(slot_mask(0, which="B"), c.scale / SCALE, 1) for c in given_]
    by_hand = sum(w * c.end * u for w, c, u in zip(norms / np.sum(norms), given_, units, strict=True))

    np.testing.assert_allclose(after(HetLoRA(), model, given_), by_hand, rtol=1e-4, atol=1e-5)
    for c, norm in zip(given_, norms, strict=True):
        assert product_norm(LAYERS, c.end, c.rank, c.scale) == pytest.approx(norm, rel=1e-6)


def test_hetlora_counts_clients_without_a_product_alike_if_nobody_has_one_and_else_not_at_all():
    model = some_model(b=False)
    still = [
        landed(model.adapter.vector, model.adapter.vector + slot_mask(0, which="A") * (k + 1.0), client=k)
        for k in range(3)
    ]

    np.testing.assert_allclose(
        after(HetLoRA(), model, still), model.adapter.vector + 2.0 * slot_mask(0, which="A"), rtol=1e-6
    )
    moved = landed(model.adapter.vector, np.ones(LAYERS.size), client=9)
    np.testing.assert_allclose(after(HetLoRA(), model, [*still, moved]), 1.0, rtol=1e-6)


@pytest.mark.parametrize("rule", MEANS, ids=by_name)
def test_clients_of_weight_zero_are_not_there_and_one_hot_weights_replace(rule):
    """Weights are shares: a client with no share leaves no trace, and one with all of it is the mean."""
    model = some_model()
    given_ = clients(rule, model, weights=(1, 0, 0, 3))

    np.testing.assert_array_equal(after(rule, model, given_), after(rule, model, [given_[0], given_[3]]))
    np.testing.assert_array_equal(
        after(rule, model, clients(rule, model, weights=(0, 0, 0, 3))), after(rule, model, [given_[3]])
    )
    with pytest.raises(RunError, match="all weights are 0"):
        after(rule, model, clients(rule, model, weights=(0, 0, 0, 0)))


@pytest.mark.parametrize("rule", MEANS, ids=by_name)
def test_every_client_with_a_weight_changes_the_model(rule):
    """Not so in the published code of FLoRA, whose FedIT baseline returns p_1 times the first client (a typo)."""
    model = some_model()
    given_ = clients(rule, model)
    base = after(rule, model, given_)
    for k in range(4):
        others = [c for c in given_ if c.client != k]
        assert np.abs(after(rule, model, others) - base).max() > 0.05


@pytest.mark.parametrize("kind", [FedIT, FFA, RoLoRA, FedSA])
def test_fedbuff_of_equal_clients_that_are_not_stale_is_fedavg(kind):
    """Equal weights and no discount: sum of moves / K is the weighted mean."""
    model = some_model()
    made = [
        after(kind(normalize=n), model, clients(kind(), model, weights=(5, 5, 5, 5)))
        for n in ("weights", "K")
    ]

    np.testing.assert_allclose(made[0], made[1], rtol=1e-6)


# gauge -----------------------------------------------------------------------------------------


def rotated(c, seed=0):
    """The same update in other factors: (B G, G^-1 A) with an orthogonal G."""
    g = np.linalg.qr(rng_of(seed).standard_normal((RANK, RANK)))[0]
    end = np.array(c.end, np.float64)
    arrays = LAYERS.arrays(end)
    for m in LAYERS.modules:
        a, b = arrays[f"{m.name}.lora_A"], arrays[f"{m.name}.lora_B"]
        a[:] = (g.T @ a.reshape(RANK, -1)).reshape(a.shape)
        b[:] = (b.reshape(-1, RANK) @ g).reshape(b.shape)
    return landed(c.start, end, client=c.client, weight=c.examples)


@pytest.mark.parametrize("rule", [FedIT(), HetLoRA(), Mixing()], ids=by_name)
def test_averaged_factors_depend_on_how_a_client_writes_its_update(rule):
    """R B and A R^-1 have one product, so the client's product is the same to rounding; the mean of factors is not."""
    model = some_model()
    given_ = [visited(rule, rule.init(model), model, k) for k in range(3)]
    other = [rotated(given_[0]), *given_[1:]]

    np.testing.assert_allclose(dense(other[0].end), dense(given_[0].end), atol=1e-4)
    assert np.abs(dense(after(rule, model, other)) - dense(after(rule, model, given_))).max() > 0.1
    assert product_norm(LAYERS, other[0].end, RANK, SCALE) == pytest.approx(
        product_norm(LAYERS, given_[0].end, RANK, SCALE), rel=1e-5
    ), "but its weight in HetLoRA is"


# order, purity, sums ---------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)), seed=seeds)
@pytest.mark.parametrize(
    "rule", [FedIT(), FedIT(padding="rows"), FFA(), RoLoRA(), FedSA(), HetLoRA()], ids=str
)
def test_the_order_of_clients_does_not_matter(rule, order, seed):
    """A weighted sum in float64, rounded once, is the same for every order to float32."""
    model = some_model(seed)
    given_ = clients(rule, model, seed=seed)

    np.testing.assert_allclose(
        after(rule, model, [given_[i] for i in order]), after(rule, model, given_), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("rule", [*RULES, HetLoRA(prune=0.5)], ids=str)
def test_rules_over_factors_change_nothing_that_they_are_given_and_answer_alike(rule):
    model = some_model()
    state = rule.init(model)
    given_ = clients(rule, model)
    before = [x.tobytes() for c in given_ for x in (c.start, c.end)] + [model.adapter.vector.tobytes(), state]
    (one, one_state), (other, other_state) = (rule.apply(state, model, iter(given_)) for _ in range(2))

    assert one.adapter.vector.tobytes() == other.adapter.vector.tobytes()
    assert one_state == other_state
    assert len(model.personal) == 0
    assert before == [x.tobytes() for c in given_ for x in (c.start, c.end)] + [
        model.adapter.vector.tobytes(),
        state,
    ]


@pytest.mark.parametrize("rule", RULES, ids=by_name)
@pytest.mark.parametrize("b", [True, False])
def test_a_commit_of_clients_that_did_not_move_leaves_the_model(rule, b):
    """A commit of idle clients of the full rank leaves the model; all-zero factors are no special case."""
    for model in (some_model(b=b), model_of(np.zeros(LAYERS.size))):
        idle = [visited(rule, rule.init(model), model, k, move=0.0) for k in range(3)]
        np.testing.assert_allclose(after(rule, model, idle), model.adapter.vector, rtol=1e-6)


def test_sums_are_in_float64():
    """1 + 10,000 times 1e-8 is lost in float32, one by one."""
    layout = Layout(modules=(Module("w", 1, (1, 1), (1, 1), 1.0),))
    small = [landed([0, 0], [1e-8, 1e-8], client=k, rank=1, scale=1.0) for k in range(10_000)]
    big = landed([0, 0], [1, 1], client=10_000, rank=1, scale=1.0)

    made = after(FedIT(normalize="none"), model_of([0, 0], layout), [big, *small])

    np.testing.assert_allclose(made, 1.0001, rtol=1e-7)


# staleness -------------------------------------------------------------------------------------


def test_a_stale_move_of_both_factors_changes_the_product_by_more_than_was_meant():
    """(B_t + dB)(A_t + dA) - B_t A_t = meant + dB (A_t - A_v) + (B_t - B_v) dA."""
    v, t = some_model(1), some_model(2)
    stale = visited(FedIT(), None, v, 0, staleness=1)
    moved = after(FedIT(), t, [stale])
    d, shift = stale.end - stale.start, t.adapter.vector - stale.start
    a, b = slot_mask(0, which="A"), slot_mask(0, which="B")
    meant = dense(stale.end) - dense(stale.start)
    mismatch = dense(d * b + shift * a) + dense(shift * b + d * a)

    np.testing.assert_allclose(dense(moved) - dense(t.adapter.vector), meant + mismatch, atol=1e-4)
    assert np.abs(mismatch).max() > 0.1


def test_a_stale_move_of_b_alone_changes_the_product_by_exactly_what_was_meant():
    """With A frozen it does not matter which version each move comes from."""
    v = some_model(1)
    later = model_of(np.where(slot_mask(0, which="B"), some_model(2).adapter.vector, v.adapter.vector))
    rule = FFA(staleness=FRESH, normalize="K")
    fresh, stale = visited(rule, None, later, 0), visited(rule, None, v, 1, staleness=5)
    meant = [dense(c.end) - dense(c.start) for c in (fresh, stale)]

    moved = after(rule, later, [fresh, stale])

    np.testing.assert_allclose(dense(moved) - dense(later.adapter.vector), sum(meant) / 2, atol=1e-4)


def test_fedasync_mixes_factors_and_lacks_their_covariance():
    """Product of the mix = mix of the products - a (1 - a) (B - B_k)(A - A_k)."""
    model = some_model(1)
    c = visited(Mixing(), None, model, 0)
    a = 0.3
    mixed = dense(after(Mixing(alpha=a, staleness=FRESH), model, [c]))
    of_products = (1 - a) * dense(model.adapter.vector) + a * dense(c.end)

    np.testing.assert_allclose(
        mixed, of_products - a * (1 - a) * dense(model.adapter.vector - c.end), atol=1e-4
    )


def test_fedasync_leaves_slots_that_the_client_does_not_have():
    model = some_model()
    c = visited(Mixing(), None, model, 0, rank=1)
    made = after(Mixing(alpha=1.0, staleness=FRESH), model, [c])

    np.testing.assert_array_equal(made[slot_mask(1)], model.adapter.vector[slot_mask(1)])
    np.testing.assert_array_equal(made[slot_mask(0, 1)], c.end[slot_mask(0, 1)])


@pytest.mark.parametrize("kind", [FedIT, FFA, RoLoRA, FedSA, HetLoRA])
def test_late_updates_are_discounted(kind):
    """s(3) = (1 + 3)^-1/2 = 1/2 beside a fresh one of equal weight: shares 2/3 and 1/3."""
    model = some_model()
    rule = kind(staleness=Polynomial(a=0.5)) if kind is not HetLoRA else kind(weights="examples")
    state = rule.init(model)
    fresh = visited(rule, state, model, 0)
    late = visited(rule, state, model, 1, staleness=3)

    expected = (2 / 3) * after(rule, model, [fresh]) + (1 / 3) * after(rule, model, [late])

    np.testing.assert_allclose(after(rule, model, [fresh, late]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", [FedIT, FFA, RoLoRA, FedSA, HetLoRA, Mixing])
def test_every_rule_takes_the_discount_in_product_space(rule):
    """An update of an earlier version counts in full as long as the model is what it was."""
    model = some_model()
    made = {}
    for staleness in (0, 4):
        given_ = [visited(rule(), rule().init(model), model, k, staleness=k * staleness) for k in range(2)]
        made[staleness] = after(rule(staleness=Product(a=3)), model, given_)

    np.testing.assert_array_equal(made[0], made[4])
    elsewhere = ServerModel(Adapter(LAYERS, 2 * model.adapter.vector))
    late = [visited(rule(), rule().init(model), model, k, staleness=4 * k) for k in range(2)]
    assert (
        np.abs(
            after(rule(staleness=Product(a=3)), elsewhere, late)
            - after(rule(staleness=FRESH), elsewhere, late)
        ).max()
        > 1e-3
    )


def test_parts_of_a_vector_are_what_the_helpers_say():
    vector = np.arange(LAYERS.size, dtype=np.float32)
    assert sorted([*parts(vector, "A"), *parts(vector, "B")]) == vector.tolist()
    assert np.array_equal(vector[slot_mask(0, which="A")], parts(vector, "A"))
