"""Clients that trained their last layers only: every layer is moved by those that trained it, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds.factored import close, dense_matrices
from worlds.factors import FRESH

from fedsim.adapters.adapter import Adapter, Layout, Module
from fedsim.aggregators._base import Contribution, Invitation, ServerModel
from fedsim.aggregators._depth import offered, refuse_moved_below
from fedsim.aggregators._staleness import Product, discount
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.fedsa import FedSA
from fedsim.aggregators.fedsvd import FedSVD
from fedsim.aggregators.ffa import FFA
from fedsim.aggregators.flexlora import FlexLoRA
from fedsim.aggregators.hetlora import HetLoRA
from fedsim.aggregators.local_only import LocalOnly
from fedsim.aggregators.mixing import Mixing
from fedsim.aggregators.rolora import RoLoRA
from fedsim.component import find, kinds
from fedsim.config.learning import LocalConfig
from fedsim.errors import RunError
from fedsim.jobs import Job

RANK, SCALE, LAYERS = 3, 2.0, 3
LAYOUT = Layout(tuple(Module(f"h.{at}.w", RANK, (RANK, 6), (5, RANK), SCALE) for at in range(LAYERS)))


def vector(seed):
    return np.random.default_rng(seed).standard_normal(LAYOUT.size).astype(np.float32)


def model_of(seed=0):
    return ServerModel(Adapter(LAYOUT, vector(seed)))


def visited(rule, model, client, depth, *, weight=1.0, rank=RANK, state=None, still=False, **facts):
    """What a client of this depth sends back that got the rule's offer and moved at random."""
    state = rule.init(model) if state is None else state
    offer = offered(rule, state, model, Invitation(client, 0, rank, SCALE, None, depth=depth))
    free = LAYOUT.slots(rank, offer.trains, depth)
    move = 0.0 if still else 0.3 * vector([1, client])
    end = np.where(free, offer.start + move, offer.start).astype(np.float32)
    return Contribution(
        client=client, visit=0, start=offer.start, end=end, examples=weight, staleness=0, version=0,
        rank=rank, scale=SCALE, phase=offer.phase, trains=offer.trains, depth=depth, **facts,
    )  # fmt: skip


def after(rule, model, contributions):
    return rule.apply(rule.init(model), model, contributions)[0]


def layer_of(vector, at):
    place = slice(at * LAYOUT.modules[0].size, (at + 1) * LAYOUT.modules[0].size)
    return np.asarray(vector, np.float64)[place]


# (depth, n_k): layer 0 has one owner, layer 1 two, layer 2 all three
CLIENTS = ((3, 1.0), (1, 2.0), (2, 4.0))


def owners(at):
    return [k for k, (depth, _) in enumerate(CLIENTS) if depth >= LAYERS - at]


@pytest.mark.parametrize("padding", ["zeros", "moves", "rows"])
@pytest.mark.parametrize("normalize", ["weights", "K", "none"])
def test_a_layer_s_mean_is_over_those_that_trained_it_whatever_the_padding(padding, normalize):
    rule = FedIT(padding=padding, normalize=normalize, staleness=FRESH)
    model = model_of()
    sent = [visited(rule, model, k, depth, weight=n) for k, (depth, n) in enumerate(CLIENTS)]
    made = after(rule, model, sent).adapter.vector

    for at in range(LAYERS):
        w = {k: CLIENTS[k][1] if normalize == "weights" else 1.0 for k in owners(at)}
        whole = 1.0 if normalize == "none" else sum(w.values())
        moves = sum(w[k] * (layer_of(sent[k].end, at) - layer_of(sent[k].start, at)) for k in w)
        np.testing.assert_allclose(
            layer_of(made, at), layer_of(model.adapter.vector, at) + moves / whole, rtol=1e-5, atol=1e-6
        )


def test_with_ranks_too_padding_is_among_those_that_trained_the_layer():
    """Client 1 has depth 1 and one slot: it says 0 about the last layer's other slots, and nothing about other layers."""
    rule, model = FedIT(staleness=FRESH), model_of()
    sent = [
        visited(rule, model, 0, 3, weight=1.0),
        visited(rule, model, 1, 1, weight=3.0, rank=1, own_rank=1),
    ]
    made = after(rule, model, sent).adapter.vector

    for at in (0, 1):
        np.testing.assert_allclose(layer_of(made, at), layer_of(sent[0].end, at), rtol=1e-6)
    ends = [layer_of(c.end, 2) for c in sent]
    np.testing.assert_allclose(layer_of(made, 2), (ends[0] + 3 * ends[1]) / 4, rtol=1e-5, atol=1e-6)


def test_fednova_s_mean_distance_of_a_layer_is_that_of_its_owners():
    rule, model = FedIT(staleness=FRESH, unequal_steps="fednova"), model_of()
    sent = [
        replace(visited(rule, model, k, depth, weight=n), effective_steps=1.0 + k)
        for k, (depth, n) in enumerate(CLIENTS)
    ]
    made = after(rule, model, sent).adapter.vector

    for at in range(LAYERS):
        n = np.array([CLIENTS[k][1] for k in owners(at)])
        p, a = n / n.sum(), np.array([1.0 + k for k in owners(at)])
        moves = [layer_of(sent[k].end, at) - layer_of(sent[k].start, at) for k in owners(at)]
        step = (p @ a) * sum(p_k * move / a_k for p_k, move, a_k in zip(p, moves, a, strict=True))
        before = layer_of(model.adapter.vector, at)
        np.testing.assert_allclose(layer_of(made, at), before + step, rtol=1e-5, atol=1e-6)


def test_fedasync_mixes_the_layers_that_it_gets_and_leaves_the_others():
    rule, model = Mixing(alpha=0.25), model_of()
    c = visited(rule, model, 0, 2)
    made = after(rule, model, [c]).adapter.vector

    assert np.array_equal(layer_of(made, 0), layer_of(model.adapter.vector, 0))
    for at in (1, 2):
        mixed = 0.75 * layer_of(model.adapter.vector, at) + 0.25 * layer_of(c.end, at)
        np.testing.assert_allclose(layer_of(made, at), mixed, rtol=1e-6)


@pytest.mark.parametrize("tail", ["voted", "kept"])
def test_flexlora_averages_the_products_of_a_layer_over_its_owners(tail):
    rule, model = FlexLoRA(tail=tail, staleness=FRESH), model_of()
    sent = [visited(rule, model, k, depth, weight=n) for k, (depth, n) in enumerate(CLIENTS)]
    made = after(rule, model, sent)

    products = [dense_matrices(c.end, LAYOUT) for c in sent]
    for at in range(LAYERS):
        n = np.array([CLIENTS[k][1] for k in owners(at)])
        mean = sum(w * products[k][at] for w, k in zip(n / n.sum(), owners(at), strict=True))
        u, s, vt = np.linalg.svd(mean)
        best = (u[:, :RANK] * s[:RANK]) @ vt[:RANK]
        close([dense_matrices(made.adapter.vector, LAYOUT)[at]], [best])


def test_fedsvd_moves_b_of_a_layer_by_its_owners_and_keeps_the_product_of_the_others():
    rule, model = FedSVD(staleness=FRESH), model_of()
    sent = [visited(rule, model, k, depth, weight=n) for k, (depth, n) in enumerate(CLIENTS[1:])]
    made = after(rule, model, sent)

    before = dense_matrices(model.adapter.vector, LAYOUT)
    found = dense_matrices(made.adapter.vector, LAYOUT)
    products = [dense_matrices(c.end, LAYOUT) for c in sent]
    close(found, [before[0], products[1][1], (2 * products[0][2] + 4 * products[1][2]) / 6])


def test_hetlora_weighs_a_layer_s_owners_by_the_size_of_what_they_have():
    rule, model = HetLoRA(staleness=FRESH), model_of()
    sent = [visited(rule, model, k, depth) for k, (depth, _) in enumerate(CLIENTS)]
    made = after(rule, model, sent).adapter.vector

    norms = [np.sqrt(sum((m**2).sum() for m in dense_matrices(c.end, LAYOUT))) for c in sent]
    for at in range(LAYERS):
        w = np.array([norms[k] for k in owners(at)])
        moves = [layer_of(sent[k].end, at) - layer_of(sent[k].start, at) for k in owners(at)]
        step = sum(p * move for p, move in zip(w / w.sum(), moves, strict=True))
        np.testing.assert_allclose(
            layer_of(made, at), layer_of(model.adapter.vector, at) + step, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "rule",
    [FedIT(), FFA(), RoLoRA(), FedSA(), HetLoRA(), FlexLoRA(), Mixing(), LocalOnly()],
    ids=lambda r: r.kind,
)
def test_a_layer_that_nobody_trained_keeps_its_bits(rule):
    model = model_of()
    made = after(rule, model, [visited(rule, model, 0, 1), visited(rule, model, 1, 2)])

    assert layer_of(made.adapter.vector, 0).tobytes() == layer_of(model.adapter.vector, 0).tobytes()


@pytest.mark.parametrize("rule", [FedSA(), LocalOnly()], ids=lambda r: r.kind)
def test_what_a_client_keeps_has_version_0_below_its_depth(rule):
    model = model_of()
    made = after(rule, model, [visited(rule, model, 7, 1)])
    own = rule.client_model(made, 7)

    b = LAYOUT.slots(None, "B") if rule.kind == "fedsa" else LAYOUT.slots()
    below = b & ~LAYOUT.slots(depth=1)
    assert np.array_equal(own[below], model.adapter.vector[below])
    assert not np.array_equal(own[~below], model.adapter.vector[~below])


@pytest.mark.parametrize(
    "kind", [k for k in kinds("aggregators") if find("aggregators", k).traits.unequal_depths]
)
def test_nothing_below_a_client_s_depth_is_offered_or_sent(kind):
    rule, model = find("aggregators", kind)(), model_of()
    whole = offered(rule, rule.init(model), model, Invitation(0, 0, RANK, SCALE, None))
    offer = offered(rule, rule.init(model), model, Invitation(0, 0, RANK, SCALE, None, depth=2))

    below = LAYOUT.below(2)
    assert not offer.start[~LAYOUT.slots(depth=2)].any()
    assert np.array_equal(offer.start[LAYOUT.slots(depth=2)], whole.start[LAYOUT.slots(depth=2)])
    for payload, all_layers in ((offer.down, whole.down), (offer.up, whole.up)):
        sent = LAYOUT.slices if payload.arrays is None else payload.arrays
        assert not below & set(sent) or kind == "local-only"
        assert 3 * (payload.floats(LAYOUT) - payload.extra_floats) == 2 * (
            all_layers.floats(LAYOUT) - all_layers.extra_floats
        )


def test_how_far_the_model_has_moved_is_measured_in_the_client_s_layers():
    model = model_of()
    c = replace(visited(FedIT(), model, 0, 1, still=True), staleness=2)
    lower = model.adapter.vector.copy()
    lower[~LAYOUT.slots(depth=1)] += 1.0

    assert discount(Product(), c, replace(model, adapter=model.adapter.replace(lower))) == 1.0


def test_a_training_that_moves_what_its_client_does_not_have_is_named():
    start = model_of().adapter.above(vector(0), 1)
    job = Job(4, 2, start, LocalConfig(), 0, depth=1)

    refuse_moved_below(LAYOUT, job, np.where(LAYOUT.slots(depth=1), 5.0, start).astype(np.float32))
    with pytest.raises(RunError, match="client 4, visit 2 moved an adapter below its depth of 1 layers"):
        refuse_moved_below(LAYOUT, job, start + np.float32(1))
