"""Slots that a client has and was not asked for: it says nothing about them. Slots that it never has: as `padding` says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds.factors import FRESH, LAYERS, RANK, SCALE, after, dense, landed, model_of, slot_mask, some_model
from worlds.factors import visited as moved_visit

from fedsim.aggregators._base import Invitation
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.flexlora import FlexLoRA
from fedsim.aggregators.hetlora import HetLoRA, norm_beyond
from fedsim.aggregators.local_only import LocalOnly
from fedsim.aggregators.rolora import Phases, RoLoRA


def cut(rule, client, rank, own, *, weight=1.0, still=False):
    """The contribution of a client that has `own` slots and was asked for `rank`."""
    model = some_model()
    move = np.zeros(LAYERS.size) if still else None
    c = moved_visit(rule, rule.init(model), model, client, rank=rank, move=move)
    return replace(c, own_rank=own, examples=weight)


# (rank asked for, own rank, n_k)
CLIENTS = ((4, 4, 1.0), (2, 4, 2.0), (2, 2, 3.0), (1, 3, 4.0))


@pytest.mark.parametrize("padding", ["zeros", "moves", "rows"])
@pytest.mark.parametrize("normalize", ["weights", "K", "none"])
def test_every_slot_by_hand(padding, normalize):
    rule = FedIT(padding=padding, normalize=normalize, staleness=FRESH)
    model = some_model()
    given = [cut(rule, k, rank, own, weight=n) for k, (rank, own, n) in enumerate(CLIENTS)]
    w = [n if normalize == "weights" else 1.0 for _, _, n in CLIENTS]
    whole = {"weights": sum(w), "K": 4.0, "none": 1.0}[normalize]
    made = after(rule, model, given)

    for slot in range(RANK):
        there = slot_mask(slot, slot + 1)
        owners = [k for k, (rank, _, _) in enumerate(CLIENTS) if slot < rank]
        absent = [k for k, (_, own, _) in enumerate(CLIENTS) if slot >= own]
        x = model.adapter.vector[there].astype(np.float64)
        step = sum(w[k] * (given[k].end[there].astype(np.float64) - given[k].start[there]) for k in owners)
        divided = whole
        if padding == "zeros":
            step = step - x * sum(w[k] for k in absent)
        if padding == "rows" and normalize != "none":
            divided = sum(w[k] for k in owners)
        np.testing.assert_allclose(made[there], x + step / divided, rtol=1e-5, atol=1e-6)


def test_silence_of_those_who_never_have_a_slot_shrinks_it_by_their_share():
    """Nobody moves: slot j is left with the share of weight of those whose own rank reaches it."""
    rule, model = FedIT(staleness=FRESH), some_model()
    given = [cut(rule, k, rank, own, weight=n, still=True) for k, (rank, own, n) in enumerate(CLIENTS)]

    made = after(rule, model, given)

    for slot, share in enumerate((1.0, 1.0, (1 + 2 + 4) / 10, (1 + 2) / 10)):
        there = slot_mask(slot, slot + 1)
        np.testing.assert_allclose(made[there], share * model.adapter.vector[there], rtol=1e-6)


def orthogonal_model():
    """A model in the form that FlexLoRA gives it, so that its slots are singular."""
    rule, model = FlexLoRA(staleness=FRESH), some_model()
    return rule.apply(None, model, [moved_visit(rule, None, model, 0)])[0]


@pytest.mark.parametrize("tail", ["voted", "kept"])
def test_flexlora_takes_the_silence_of_own_slots_alone_for_zero(tail):
    """Nobody moves; half of the weight has own rank 2, and a quarter is asked for one slot of its four."""
    rule, model = FlexLoRA(tail=tail, staleness=FRESH), orthogonal_model()
    given = []
    for client, (rank, own, n) in enumerate(((4, 4, 1.0), (2, 2, 2.0), (1, 4, 1.0))):
        offer = rule.offer(None, model, Invitation(client, 0, rank, SCALE, None, own))
        c = landed(offer.start, offer.start, client=client, rank=rank, weight=n)
        given.append(replace(c, own_rank=own))

    made = after(rule, model, given)

    head, tail_part = (
        dense(np.where(slot_mask(first, stop), model.adapter.vector, 0)) for first, stop in ((0, 2), (2, 4))
    )
    expected = head + tail_part * (0.5 if tail == "voted" else 1.0)
    np.testing.assert_allclose(dense(made), expected, rtol=1e-4, atol=1e-5)


# HetLoRA -----------------------------------------------------------------------------------------


def test_a_visit_that_was_cut_says_so_in_its_tag_and_is_penalised_beyond_the_clients_own_pruned_rank():
    rule, model = HetLoRA(prune=0.5, penalty=0.3), some_model()

    whole, less = (rule.offer({}, model, Invitation(0, 0, rank, SCALE, None, 4)) for rank in (4, 3))
    pruned = rule.offer({0: 2}, model, Invitation(0, 0, 3, SCALE, None, 4))

    assert (whole.phase, less.phase, pruned.phase) == ("4", "3 of 4", "2")
    assert (whole.slot_penalty, less.slot_penalty, pruned.slot_penalty) == ((0.3, 2), (0.3, 2), (0.3, 1))


def shrunk(rule, *, rank=4, own=4, phase=None):
    """A visit whose last slots ended smaller than they began."""
    model = some_model()
    start = model.adapter.cut(rank)
    end = np.where(slot_mask(rank // 2), 0.5 * start, start + 0.25 * slot_mask(0, rank // 2)).astype(
        np.float32
    )
    c = replace(landed(start, end, rank=rank, phase=phase or str(rank)), own_rank=own)
    return rule.apply({}, model, [c]), c, model


def test_a_visit_that_was_cut_prunes_nothing():
    assert shrunk(HetLoRA(prune=0.5))[0][1] == {0: 2}
    assert shrunk(HetLoRA(prune=0.5), rank=2, own=4, phase="2 of 4")[0][1] == {}


def test_pruned_slots_are_not_sent_any_more_as_published_or_from_the_next_visit_on():
    (at_once, ranks), c, model = shrunk(HetLoRA(prune=0.5, staleness=FRESH))
    (later, same), *_ = shrunk(HetLoRA(prune=0.5, prune_at="next_visit", staleness=FRESH))

    assert ranks == same == {0: 2}
    assert norm_beyond(LAYERS, c.end, 2, 4) < norm_beyond(LAYERS, c.start, 2, 4)
    np.testing.assert_allclose(later.adapter.vector, c.end, rtol=1e-6)
    np.testing.assert_allclose(
        at_once.adapter.vector, np.where(slot_mask(0, 2), c.end, 0.0), rtol=1e-6, atol=1e-9
    )
    kept = shrunk(HetLoRA(prune=0.5, padding="moves", staleness=FRESH))[0][0].adapter.vector
    np.testing.assert_allclose(kept, np.where(slot_mask(0, 2), c.end, model.adapter.vector), rtol=1e-6)


# what a client does not have yet -----------------------------------------------------------------


def test_local_only_keeps_version_0_where_a_first_visit_did_not_train():
    rule, model = LocalOnly(), some_model()
    c = moved_visit(rule, None, model, 3, rank=1)

    own = rule.apply(None, model, [c])[0].personal.get(3)

    np.testing.assert_array_equal(own, np.where(slot_mask(0, 1), c.end, model.adapter.vector))


def test_rolora_sends_slots_that_a_client_did_not_have_at_its_last_visit():
    """It has two slots of both factors of version 3, in which A was changed last at 2; now it needs four."""
    rule, model, state = RoLoRA(), some_model(), Phases(version=4, changed_a=2, changed_b=3)
    same, more = (
        rule.offer(state, model, Invitation(0, 1, rank, SCALE, 2, 4, last)).down
        for rank, last in ((2, 2), (4, 2))
    )
    sent = {name[-1] for name in same.arrays}

    assert sent == {"B"}
    assert {name[-1] for name in more.arrays} == {"A", "B"}
    assert model_of(model.adapter.vector).adapter.layout is LAYERS
