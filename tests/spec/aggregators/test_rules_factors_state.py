"""What rules over the factors send and remember: payloads by hand, phases, private parts, pruned ranks."""

import numpy as np
import pytest
from pydantic import ValidationError
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
from fedsim.aggregators._base import Invitation, ServerModel
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.fedsa import FedSA
from fedsim.aggregators.ffa import FFA
from fedsim.aggregators.hetlora import HetLoRA, norm_beyond
from fedsim.aggregators.local_only import LocalOnly
from fedsim.aggregators.mixing import Mixing
from fedsim.aggregators.rolora import Phases, RoLoRA
from fedsim.errors import RunError

IN = 5 + 6 + 2 * 3 * 2
OUT = 7 + 3 + 5
"""Floats of one slot of all A, and of all B, of the three layers: (5 -> 7), (6 -> 3), (2 channels, 3 x 2 -> 5)."""
SEED = 2
"""A 64-bit seed in floats of four bytes."""
A_NAMES = {"linear.lora_A", "conv1d.lora_A", "conv2d.lora_A"}
B_NAMES = {"linear.lora_B", "conv1d.lora_B", "conv2d.lora_B"}


def offered(rule, state=None, *, last_seen=None, rank=RANK, model=None, client=0):
    model = some_model() if model is None else model
    return rule.offer(
        rule.init(model) if state is None else state, model, Invitation(client, 0, rank, SCALE, last_seen)
    )


def floats(rule, *args, **kwargs):
    offer = offered(rule, *args, **kwargs)
    return offer.down.floats(LAYERS), offer.up.floats(LAYERS)


# what travels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 2, 1])
def test_rules_of_both_factors_send_the_clients_slots_of_both_ways(rank):
    for rule in (FedIT(), Mixing(), HetLoRA(), HetLoRA(prune=0.5, penalty=0.1)):
        assert floats(rule, rank=rank) == floats(rule, rank=rank, last_seen=7) == (rank * (IN + OUT),) * 2


@pytest.mark.parametrize("rank", [4, 2, 1])
def test_ffa_sends_b_and_a_seed_the_first_time(rank):
    assert floats(FFA(), rank=rank) == (rank * OUT + SEED, rank * OUT)
    assert floats(FFA(), rank=rank, last_seen=0) == (rank * OUT, rank * OUT)
    assert floats(FFA(first_a="values"), rank=rank) == (rank * (OUT + IN), rank * OUT)
    assert set(offered(FFA()).up.arrays) == set(offered(FFA(first_a="values")).down.arrays) == B_NAMES


def test_fedsa_sends_a_alone_and_never_b():
    """By the names of the arrays in its offers."""
    committed = True
    assert floats(FedSA(), rank=2) == (SEED, 2 * IN), "nobody has moved A: it is drawn from a seed"
    assert floats(FedSA(), committed, rank=2) == (2 * IN, 2 * IN)
    assert floats(FedSA(), committed, rank=2, last_seen=3) == (2 * IN, 2 * IN)
    for state in (False, True):
        offer = offered(FedSA(), state, last_seen=0)
        assert set(offer.up.arrays) == set(offer.down.arrays) == A_NAMES


def test_rolora_begins_with_b_and_sends_the_factor_of_the_phase():
    for version, (phase, names, size) in enumerate([("B", B_NAMES, OUT), ("A", A_NAMES, IN)] * 2):
        offer = offered(RoLoRA(), Phases(version))
        assert (offer.phase, offer.trains, set(offer.up.arrays)) == (phase, phase, names)
        assert offer.up.floats(LAYERS) == RANK * size
    assert [RoLoRA(period=3).phase(v) for v in range(7)] == list("BBBAAAB")


def test_a_client_that_takes_part_in_every_round_of_rolora_downloads_one_factor_a_round():
    """Always the one that the round before has moved, which is the one that it trained itself."""
    rule, model = RoLoRA(), some_model(b=False)
    state, seen, got = rule.init(model), None, []
    for version in range(5):
        offer = offered(rule, state, last_seen=seen, model=model)
        got.append((offer.phase, offer.down.floats(LAYERS)))
        c = visited(rule, state, model, 0, seed=version)
        (model, state), seen = rule.apply(state, model, [c]), version

    assert got == [("B", SEED), ("A", RANK * OUT), ("B", RANK * IN), ("A", RANK * OUT), ("B", RANK * IN)]
    assert state == Phases(5, changed_a=4, changed_b=5)


def test_what_a_client_of_rolora_that_was_away_must_download():
    state = Phases(version=6, changed_a=6, changed_b=5)
    both = RANK * (IN + OUT)

    assert floats(RoLoRA(), state)[0] == both, "a new one"
    assert floats(RoLoRA(), state, last_seen=2)[0] == both, "both have moved since"
    assert floats(RoLoRA(), state, last_seen=5)[0] == RANK * IN, "it has B of version 5, and trained A on it"
    assert floats(RoLoRA(), state, last_seen=6)[0] == RANK * OUT, "only the B that it trained over"
    assert floats(RoLoRA(), Phases(3, changed_a=0, changed_b=3))[0] == RANK * OUT + SEED, "A from its seed"


# frozen factors --------------------------------------------------------------------------------


def test_ffa_never_changes_a_bit_of_a_nor_looks_at_it():
    rule, model = FFA(), some_model(b=False)
    first = parts(model.adapter.vector, "A").tobytes()
    for version in range(20):
        given_ = [
            visited(rule, None, model, k, rank=r, weight=k + 1.0, seed=version)
            for k, r in enumerate((4, 2, 1))
        ]
        model, _ = rule.apply(None, model, given_)
        assert parts(model.adapter.vector, "A").tobytes() == first
    assert np.abs(parts(model.adapter.vector, "B")).max() > 1


@pytest.mark.parametrize(
    ("rule", "state", "moved"),
    [(FFA(), None, "A"), (RoLoRA(), Phases(0), "A"), (RoLoRA(), Phases(1), "B")],
    ids=str,
)
def test_a_client_that_moved_the_frozen_factor_is_an_error(rule, state, moved):
    """So a training that does not freeze (as where PEFT is wrapped after freezing) cannot pass for FFA-LoRA."""
    model = some_model()
    honest = visited(rule, state, model, 3)
    end = honest.end.copy()
    end[np.flatnonzero(slot_mask(0, which=moved))[0]] += 1e-6

    with pytest.raises(RunError, match=f"client 3, visit 0 moved linear.lora_{moved}"):
        rule.apply(
            state, model, [landed(honest.start, end, client=3, phase=honest.phase, trains=honest.trains)]
        )


# RoLoRA under staleness ------------------------------------------------------------------------


def late_and_fresh():
    """At version 2 (phase B): a fresh update of B, and one of A that was dispatched at version 1."""
    rule, model = RoLoRA(staleness=FRESH), some_model(2)
    fresh = visited(rule, Phases(2), model, 0)
    late = visited(rule, Phases(1), some_model(1), 1, staleness=1, version=1)
    return model, fresh, late


def test_an_update_of_the_other_phase_moves_the_factor_that_it_trained():
    model, fresh, late = late_and_fresh()
    made, state = RoLoRA(staleness=FRESH).apply(Phases(2, 2, 1), model, [fresh, late])
    both = 0.5 * (fresh.end - fresh.start) + 0.5 * (late.end - late.start)

    assert (fresh.phase, late.phase) == ("B", "A")
    np.testing.assert_allclose(made.adapter.vector, model.adapter.vector + both, rtol=1e-5, atol=1e-6)
    assert state == Phases(3, changed_a=3, changed_b=3), "clients must now download both"
    assert after(RoLoRA(), model, [late], Phases(2))[slot_mask(0, which="B")].tobytes() == parts_in_place(
        model, "B"
    )


def parts_in_place(model, which):
    return model.adapter.vector[slot_mask(0, which=which)].tobytes()


def test_a_commit_of_both_phases_has_a_cross_term():
    model, fresh, late = late_and_fresh()
    made = after(RoLoRA(staleness=FRESH), model, [fresh, late], Phases(2))
    x, a, b = model.adapter.vector, slot_mask(0, which="A"), slot_mask(0, which="B")
    d_b, d_a = 0.5 * (fresh.end - fresh.start), 0.5 * (late.end - late.start)
    linear = dense(x) + dense(d_b + x * a) + dense(x * b + d_a)

    np.testing.assert_allclose(dense(made), linear + dense(d_b + d_a), atol=1e-4)
    assert np.abs(dense(d_b + d_a)).max() > 0.1


def test_updates_of_the_other_phase_can_be_dropped():
    model, fresh, late = late_and_fresh()
    rule = RoLoRA(staleness=FRESH, other_phase="drop")

    np.testing.assert_array_equal(
        after(rule, model, [fresh, late], Phases(2)), after(rule, model, [fresh], Phases(2))
    )
    made, state = rule.apply(Phases(2, 2, 1), model, [late])
    assert made.adapter.vector.tobytes() == model.adapter.vector.tobytes()
    assert state == Phases(3, 2, 1), "the version counts all the same"


# FedSA: what stays at home ---------------------------------------------------------------------


def test_fedsa_averages_a_and_lets_no_b_near_it():
    model = some_model(b=False)
    given_ = [visited(FedSA(), False, model, k, weight=k + 1.0) for k in range(3)]
    poisoned = [
        landed(c.start, np.where(slot_mask(0, which="B"), 1e30, c.end), client=c.client, weight=c.examples)
        for c in given_
    ]
    expected = sum((k + 1) / 6 * parts(c.end, "A") for k, c in enumerate(given_))

    for contributions in (given_, poisoned):
        made = after(FedSA(), model, contributions)
        np.testing.assert_allclose(parts(made, "A"), expected, rtol=1e-5, atol=1e-6)
        assert not np.any(parts(made, "B")), "the server's own B stays as it began"


def test_a_client_of_fedsa_keeps_its_b_meets_the_present_a_and_a_new_one_has_b_0():
    rule, model = FedSA(staleness=FRESH), some_model(b=False)
    one, other = (visited(rule, False, model, k) for k in range(2))
    first, state = rule.apply(False, model, [one])
    second, state = rule.apply(state, first, [other])

    assert (
        parts(first.personal.get(0) is not None and rule.client_model(second, 0), "B").tobytes()
        == parts(one.end, "B").tobytes()
    )
    for client, end in ((0, one.end), (1, other.end)):
        mine = rule.client_model(second, client)
        assert parts(mine, "A").tobytes() == parts(second.adapter.vector, "A").tobytes()
        assert parts(mine, "B").tobytes() == parts(end, "B").tobytes()
        assert offered(rule, state, model=second, client=client).start.tobytes() == mine.tobytes()
    assert not np.any(dense(rule.client_model(second, 7))), "its adapter does nothing"
    assert not np.any(parts(offered(rule, state, model=second, client=7).start, "B"))
    assert (len(model.personal), len(first.personal), len(second.personal)) == (0, 1, 2)


@pytest.mark.parametrize("rule", [FedSA(staleness=FRESH), LocalOnly()], ids=str)
def test_private_parts_keep_their_product_in_a_scale_of_their_own(rule):
    """A client of rank 2 at scale 8: what it is scored with and what it starts from next is what it trained."""
    model = some_model(b=False)
    c = visited(rule, rule.init(model), model, 0, rank=2, scale=8.0)
    made, state = rule.apply(rule.init(model), model, [c])
    again = rule.offer(state, made, Invitation(0, 1, 2, 8.0, 0))

    np.testing.assert_allclose(
        dense(rule.client_model(made, 0), SCALE), dense(c.end, 8.0), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(dense(again.start, 8.0), dense(c.end, 8.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", [FedSA(staleness=FRESH), LocalOnly()], ids=str)
def test_a_client_that_trains_fewer_slots_this_time_keeps_the_others_at_home(rule):
    """As TimelyFL asks it to: rank 4 once, then rank 2."""
    model = some_model(b=False)
    whole, state = rule.apply(rule.init(model), model, [visited(rule, rule.init(model), model, 0)])
    part = visited(rule, state, whole, 0, rank=2, seed=1)
    made, _ = rule.apply(state, whole, [part])
    b = slot_mask(0, which="B")

    assert not np.any(part.start[slot_mask(2)])
    assert (
        rule.client_model(made, 0)[b & slot_mask(2)].tobytes()
        == rule.client_model(whole, 0)[b & slot_mask(2)].tobytes()
    )
    assert (
        rule.client_model(made, 0)[b & slot_mask(0, 2)].tobytes() == part.end[b & slot_mask(0, 2)].tobytes()
    )


def test_fedsa_discounts_in_the_product_of_the_clients_own_b():
    """With the server's B, which is 0, no change of A would ever be seen."""
    rule = FedSA(staleness={"kind": "product", "a": 1.0})
    then = some_model(1, b=False)
    kept, _ = rule.apply(False, then, [visited(rule, False, then, 0)])
    late = visited(rule, True, kept, 0, staleness=2)
    now = ServerModel(Adapter(LAYERS, kept.adapter.vector * np.float32(0.5)), personal=kept.personal)
    fresh = visited(rule, True, now, 1)

    # B_k A halved: d = |X/2 - X| / |X| = 1/2, s = 1 / (1 + 1/2) = 2/3
    moves = 2 / 3 * (late.end - late.start) + (fresh.end - fresh.start)
    expected = now.adapter.vector + moves / (2 / 3 + 1)

    np.testing.assert_allclose(
        parts(after(rule, now, [fresh, late], True), "A"), parts(expected, "A"), rtol=1e-4, atol=1e-5
    )


# HetLoRA: ranks that prune themselves ----------------------------------------------------------

ONE = Layout(modules=(Module("w", 4, (4, 2), (3, 4), 1.0),))


def with_tail(size, rank=4):
    """Factors of `rank` slots of ones whose slots from 2 on have entries of this size."""
    vector = np.zeros(ONE.size, np.float32)
    arrays = ONE.arrays(vector)
    arrays["w.lora_A"][:rank], arrays["w.lora_B"][:, :rank] = 1, 1
    arrays["w.lora_A"][2:rank], arrays["w.lora_B"][:, 2:rank] = size, size
    return vector


def pruned(rule, start_tail, end_tail, *, rank=4, state=None, client=0):
    c = landed(with_tail(start_tail, rank), with_tail(end_tail, rank), client=client, rank=rank, scale=1.0)
    return rule.apply(state or {}, model_of(with_tail(start_tail), ONE), [c])[1]


def test_the_tail_by_hand():
    """Slots 2 and 3 of A have 4 entries of 3, of B 6 entries of 3: norms 6 and 3 sqrt(6)."""
    assert norm_beyond(ONE, with_tail(3.0), 2, 4) == pytest.approx(6 * 3 * np.sqrt(6))
    assert norm_beyond(ONE, with_tail(3.0), 4, 4) == 0


def test_a_client_whose_last_slots_shrank_loses_them():
    rule = HetLoRA(prune=0.5)

    assert pruned(rule, 1.0, 0.9, client=5) == {5: 2}
    assert pruned(rule, 1.0, 1.0) == pruned(rule, 1.0, 1.1) == {}
    assert pruned(HetLoRA(), 1.0, 0.1) == {}, "only if asked to"
    assert pruned(rule, 0.0, 0.5) == {}, "at B = 0 there is nothing to shrink"
    assert pruned(HetLoRA(prune=0.6), 1.0, 0.9, rank=3) == {0: 1}, "floor(0.6 * 3)"
    assert pruned(rule, 1.0, 0.1, rank=1) == {}, "never the last one"


def test_a_pruned_client_starts_from_fewer_slots_and_what_it_sends_is_charged_as_before():
    rule, model = HetLoRA(prune=0.5, penalty=0.3), some_model()
    before, now = offered(rule, {}, model=model), offered(rule, {0: 2}, model=model)

    assert (before.slot_penalty, now.slot_penalty, offered(rule, {0: 1}, model=model).slot_penalty) == (
        (0.3, 2),
        (0.3, 1),
        None,
    )
    assert now.start.tobytes() == model.adapter.cut(2).tobytes()
    assert offered(rule, {0: 2}, model=model, client=1).start.tobytes() == before.start.tobytes(), (
        "others do not"
    )
    assert now.up == before.up
    assert now.down == before.down
    assert offered(HetLoRA(prune=0.5), {}).slot_penalty is None


def test_an_update_counts_with_the_slots_it_was_dispatched_with():
    """Dispatched before the client was pruned, and after it; slots that it had given up do not come back."""
    rule, model = HetLoRA(prune=0.5, staleness=FRESH, padding="moves"), some_model()
    late = visited(rule, {}, model, 0, staleness=1)
    early = landed(late.start, late.end, phase="2")

    assert (late.phase, visited(rule, {0: 2}, model, 0).phase) == ("4", "2")
    np.testing.assert_allclose(after(rule, model, [late], {0: 2}), late.end, rtol=1e-6)
    made = after(rule, model, [early], {0: 2})
    np.testing.assert_array_equal(made[slot_mask(2)], model.adapter.vector[slot_mask(2)])
    np.testing.assert_allclose(made[slot_mask(0, 2)], late.end[slot_mask(0, 2)], rtol=1e-6)


def test_a_rank_that_was_pruned_further_stays_as_low_as_it_was():
    rule = HetLoRA(prune=0.5)
    state = pruned(rule, 1.0, 0.9, state={0: 1, 3: 2})

    assert state == {0: 1, 3: 2}


def test_a_penalty_without_pruning_is_refused():
    with pytest.raises(ValidationError, match="add prune"):
        HetLoRA(penalty=0.1)


def test_the_clients_of_these_tests_move_what_they_were_offered():
    model = some_model()
    for rule, free in ((FFA(), "B"), (FedIT(), "AB")):
        c = visited(rule, None, model, 0, rank=2, move=rng_of(0).standard_normal(LAYERS.size))
        assert np.array_equal(c.start != c.end, slot_mask(0, 2, free))
