"""Rules and what is trained beside the factors, and modules that differ in rank and scale: by hand, and by the contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedsim.adapters.adapter import Adapter, Layout, Module, Tensor
from fedsim.adapters.products import pairs, scales
from fedsim.adapters.units import in_client_units, in_server_units
from fedsim.aggregators._base import Contribution, Invitation, ServerModel
from fedsim.component import build, kinds
from fedsim.personal.fedper import FedPer

MODULES = (
    Module("h.0.q", 2, (2, 3), (4, 2), 2.0),
    Module("h.1.q", 2, (2, 3), (4, 2), 2.0),
)
BESIDE = Layout(
    MODULES,
    (
        Tensor("h.0.q.lora_magnitude_vector", (4,), "magnitude"),
        Tensor("h.1.q.bias", (4,), "bias"),
        Tensor("head.weight", (2, 5), "saved"),
    ),
)
UNEQUAL = Layout((Module("a", 2, (2, 3), (4, 2), 2.0), Module("b", 3, (3, 5), (4, 3), 0.5)))
PLACES = [BESIDE.slices[t.name][0] for t in BESIDE.tensors]
WHERE = np.concatenate([np.arange(BESIDE.size)[place] for place in PLACES])


def rule_of(kind):
    return build("aggregators", {"kind": kind})


def rules_with(trait):
    return [kind for kind in kinds("aggregators") if getattr(rule_of(kind).traits, trait)]


def model_of(layout, seed=0):
    return ServerModel(
        Adapter(layout, np.random.default_rng(seed).normal(size=layout.size).astype(np.float32))
    )


def visits(rule, state, model, count=3, scale=2.0):
    """Contributions of clients that moved all that their offer lets them move."""
    layout, rng, landed = model.adapter.layout, np.random.default_rng(1), []
    for client in range(count):
        offer = rule.offer(state, model, Invitation(client, 0, layout.rank, scale, None))
        free = layout.slots(None, offer.trains)
        end = offer.start + np.where(free, rng.normal(size=layout.size), 0.0).astype(np.float32)
        landed.append(
            Contribution(client, 0, offer.start, end, 1.0 + client, 0, 0, layout.rank, scale, offer.phase, 0,
                         offer.trains)
        )  # fmt: skip
    return landed


def test_the_layout_knows_what_is_beside_its_factors():
    assert not BESIDE.full
    assert BESIDE.beside == BESIDE.tensors
    assert Layout(tensors=BESIDE.tensors).full
    assert Layout(tensors=BESIDE.tensors).beside == ()
    assert BESIDE.size == 2 * (6 + 8) + 4 + 4 + 10
    assert BESIDE.of_factor("A").sum() == 12
    assert BESIDE.of_factor("B").sum() == 16
    assert BESIDE.slots(1)[WHERE].all()


@pytest.mark.parametrize("kind", [k for k in rules_with("beside") if k not in ("local-only", "mixing")])
def test_what_is_beside_the_factors_becomes_the_weighted_mean_of_the_clients_and_travels(kind):
    rule, model = rule_of(kind), model_of(BESIDE)
    state = rule.init(model)
    landed = visits(rule, state, model)
    after, _ = rule.apply(state, model, landed)
    weights = np.array([c.examples for c in landed]) / sum(c.examples for c in landed)
    mean = sum(w * c.end[WHERE].astype(np.float64) for w, c in zip(weights, landed, strict=True))
    np.testing.assert_allclose(after.adapter.vector[WHERE], mean, rtol=1e-5, atol=1e-6)
    offer = rule.offer(state, model, Invitation(0, 1, 2, 2.0, 0))
    for sent in (offer.up, offer.down):
        assert set(sent.arrays or BESIDE.slices) >= {t.name for t in BESIDE.tensors}


def test_under_fedsa_the_clients_keep_b_alone_and_share_what_is_beside():
    rule, model = rule_of("fedsa"), model_of(BESIDE)
    state = rule.init(model)
    after, _ = rule.apply(state, model, visits(rule, state, model))
    assert rule.kept_floats(BESIDE) == 16
    own = rule.client_model(after, 1)
    assert np.array_equal(own[WHERE], after.adapter.vector[WHERE])


def test_local_only_keeps_everything_and_mixing_mixes_everything():
    rule, model = rule_of("local-only"), model_of(BESIDE)
    landed = visits(rule, rule.init(model), model)
    after, _ = rule.apply(None, model, landed)
    assert np.array_equal(after.personal.get(2), landed[2].end)
    mixing = rule_of("mixing")
    mixed, _ = mixing.apply(None, model, landed[:1])
    expected = 0.4 * model.adapter.vector[WHERE] + 0.6 * landed[0].end[WHERE]
    np.testing.assert_allclose(mixed.adapter.vector[WHERE], expected, rtol=1e-5, atol=1e-6)


def test_scales_of_clients_multiply_b_and_nothing_else():
    vector = np.ones(BESIDE.size, np.float32)
    there = in_server_units(BESIDE, vector, 4.0)
    assert np.array_equal(there, np.where(BESIDE.of_factor("B"), 2.0, 1.0))
    assert np.array_equal(in_client_units(BESIDE, there, 4.0), vector)


def dense(layout, vector):
    return [s * pair.b @ pair.a for s, pair in zip(scales(layout), pairs(layout, vector), strict=True)]


@pytest.mark.parametrize("kind", rules_with("unequal_modules"))
def test_modules_of_unequal_rank_and_scale_start_as_the_server_has_them(kind):
    rule, model = rule_of(kind), model_of(UNEQUAL)
    offer = rule.offer(rule.init(model), model, Invitation(0, 0, UNEQUAL.rank, 2.0, None))
    assert np.array_equal(offer.start, model.adapter.vector)


@pytest.mark.parametrize("kind", ["ffa", "fedsvd"])
def test_exact_rules_are_exact_over_modules_of_unequal_rank_and_scale(kind):
    rule, model = rule_of(kind), model_of(UNEQUAL)
    state = rule.init(model)
    landed = visits(rule, state, model)
    after, _ = rule.apply(state, model, landed)
    whole = sum(c.examples for c in landed)
    for i, found in enumerate(dense(UNEQUAL, after.adapter.vector)):
        mean = sum(c.examples / whole * dense(UNEQUAL, c.end)[i] for c in landed)
        np.testing.assert_allclose(found, mean, atol=1e-4)


def test_flexlora_decomposes_each_module_at_its_own_rank():
    rule, model = rule_of("flexlora"), model_of(UNEQUAL)
    landed = visits(rule, None, model)
    after, _ = rule.apply(None, model, landed)
    whole = sum(c.examples for c in landed)
    for i, (found, m) in enumerate(zip(dense(UNEQUAL, after.adapter.vector), UNEQUAL.modules, strict=True)):
        mean = sum(c.examples / whole * dense(UNEQUAL, c.end)[i] for c in landed)
        u, s, vt = np.linalg.svd(mean)
        best = (u[:, : m.rank] * s[: m.rank]) @ vt[: m.rank]
        np.testing.assert_allclose(found, best, atol=1e-4)


def test_fedpers_private_layers_keep_their_magnitudes_and_biases():
    private = FedPer(layers=1).private(BESIDE)
    assert private == ("h.1.q.lora_A", "h.1.q.lora_B", "h.1.q.bias")
    other = replace(BESIDE, tensors=(Tensor("h.1.q.lora_magnitude_vector", (4,), "magnitude"),))
    assert FedPer(layers=1).private(other)[-1] == "h.1.q.lora_magnitude_vector"
