"""What every rule owes the others, by discovery: alone, on a Linear, a Conv1D and a Conv2d.

A user's own rule, that of docs/extending.md by import path, goes through all of it.
"""

import dataclasses

import numpy as np
import pytest
from worlds.contracts import (
    EQUAL,
    IN_ORDER,
    MIXED,
    OWN_RULE,
    RULES,
    WHOLE_MODEL,
    WIRES,
    applied,
    at_home,
    course,
    effect,
    print_of,
    ranks_of,
    rule_of,
    travels,
)
from worlds.factors import LAYERS, SCALE, dense, slot_mask, some_model

from fedsim.adapters.adapter import Adapter
from fedsim.aggregators._base import Invitation, ServerModel
from fedsim.checks.limits import Choice, refusals
from fedsim.network.messages import bytes_of, decode, encode
from fedsim.rng import stream

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.mark.parametrize("kind", RULES)
def test_a_rule_changes_nothing_that_it_is_given_and_answers_alike(kind):
    rule = rule_of(kind)
    for ranks in ranks_of(rule):
        for state, model, came, _ in course(rule, ranks):
            before = print_of([state, model, came])
            first, again = (print_of(applied(rule, state, model, came)) for _ in range(2))

            assert first == again
            assert print_of([state, model, came]) == before


@pytest.mark.parametrize("kind", RULES)
def test_the_order_of_the_contributions_does_not_matter(kind):
    rule = rule_of(kind)
    for ranks in ranks_of(rule):
        for state, model, came, _ in course(rule, ranks):
            one, other = (effect(applied(rule, state, model, order)[0]) for order in (came, came[::-1]))

            if kind in IN_ORDER:
                assert np.abs(one - other).max() > 1e-3
            else:
                np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", RULES)
def test_models_keep_their_shape_and_the_base_moves_once_a_commit_or_never(kind):
    rule = rule_of(kind)
    for ranks in ranks_of(rule):
        for now, (state, model, came, _) in enumerate(course(rule, ranks)):
            after, _ = applied(rule, state, model, came)
            vector = after.adapter.vector

            assert (vector.dtype, vector.shape) == (np.float32, (LAYERS.size,))
            assert np.isfinite(vector).all()
            assert after.adapter.layout is model.adapter.layout
            assert (0 if after.base is None else after.base.version) == (
                now + 1 if rule.traits.moves_base else 0
            )


@pytest.mark.parametrize("kind", RULES)
def test_nobody_moved_leaves_the_model(kind):
    rule = rule_of(kind)
    for state, model, came, _ in course(rule, EQUAL, stale=False):
        still = [dataclasses.replace(c, end=c.start) for c in came]

        np.testing.assert_allclose(
            effect(applied(rule, state, model, still)[0]), effect(model), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("kind", [k for k in RULES if k != OWN_RULE])
def test_an_exact_rule_takes_the_weighted_mean_of_products_and_the_others_do_not(kind):
    """From LoRA's own beginning, B = 0, on; default settings, nobody stale."""
    rule = rule_of(kind)
    for ranks in ranks_of(rule):
        for state, model, came, _ in course(rule, ranks, first=some_model(b=False), stale=False):
            whole = sum(c.examples for c in came)
            base = 0.0 if model.base is None else model.base.vector.astype(np.float64)
            mean = base + sum(c.examples / whole * dense(c.end) for c in came)
            error = np.abs(effect(applied(rule, state, model, came)[0]) - mean).max() / np.abs(mean).max()

            assert error < 1e-4 if rule.traits.exact else error > 1e-2


@pytest.mark.parametrize("kind", RULES)
def test_an_offer_is_pure_and_keeps_to_the_clients_slots(kind):
    rule = rule_of(kind)
    for ranks in ranks_of(rule):
        for state, model, came, offers in course(rule, ranks):
            before = print_of([state, model])
            for c, offer in zip(came, offers, strict=True):
                again = [
                    rule.offer(state, model, Invitation(c.client, 0, c.rank, SCALE, seen))
                    for seen in (None, c.version)
                ]

                assert print_of(again[0].start) == print_of(again[1].start)
                assert (offer.start.dtype, offer.start.shape) == (np.float32, (LAYERS.size,))
                assert not offer.start[slot_mask(c.rank)].any()
                for payload in (offer.down, offer.up):
                    assert set(payload.arrays or ()) <= set(LAYERS.slices)
                    assert 0 <= payload.floats(LAYERS)
            assert print_of([state, model]) == before


@pytest.mark.parametrize("kind", RULES)
def test_whattravels_depends_on_ranks_and_versions_and_never_on_values(kind):
    rule = rule_of(kind)

    def payloads(seed):
        return [(o.down, o.up, o.trains, o.phase) for *_, offers in course(rule, MIXED if
                rule.traits.unequal_ranks else EQUAL, seed=seed) for o in offers]  # fmt: skip

    assert payloads(1) == payloads(2)


@pytest.mark.parametrize("kind", RULES)
def test_what_does_not_travel_up_does_not_reach_the_shared_model(kind):
    """FedSA's B, all of local-only: whatever a client has made of them."""
    rule = rule_of(kind)
    for ranks in ranks_of(rule):
        for state, model, came, offers in course(rule, ranks):
            secret = [
                dataclasses.replace(c, end=np.where(at_home(c, o), c.end + 100.0, c.end).astype(np.float32))
                for c, o in zip(came, offers, strict=True)
            ]
            (seen, _), (unseen, _) = (applied(rule, state, model, given) for given in (came, secret))

            assert print_of(seen.adapter.vector) == print_of(unseen.adapter.vector)
            assert print_of(seen.base) == print_of(unseen.base)


@pytest.mark.parametrize("kind", [k for k in RULES if k != OWN_RULE])
def test_a_rule_without_personal_parts_keeps_nothing_for_a_client(kind):
    rule = rule_of(kind)
    *_, (state, model, came, _) = course(rule, EQUAL)
    after, _ = applied(rule, state, model, came)

    assert (rule.client_model(after, 0) is not None) == rule.traits.personal


@pytest.mark.parametrize("kind", RULES)
def test_rules_for_whole_models_keep_every_contract_on_them(kind):
    rule = rule_of(kind)
    first = ServerModel(Adapter(WHOLE_MODEL, np.arange(17, dtype=np.float32)))
    if not rule.traits.full_model:
        assert refusals(Choice(kind, rule.traits, whole=True))
        return
    for state, model, came, offers in course(rule, (0, 0, 0), first=first, stale=False):
        before = print_of([state, model, came])
        after, _ = applied(rule, state, model, came)
        still, _ = applied(rule, state, model, [dataclasses.replace(c, end=c.start) for c in came])

        assert after.adapter.vector.dtype == np.float32
        assert print_of([state, model, came]) == before
        assert {o.up.floats(WHOLE_MODEL) for o in offers} <= {0, WHOLE_MODEL.size}
        np.testing.assert_allclose(effect(still), effect(model), rtol=1e-5)


@pytest.mark.parametrize(
    ("bug", "caught_by"),
    [
        ("WearsOut", test_a_rule_changes_nothing_that_it_is_given_and_answers_alike),
        ("FirstOnly", test_the_order_of_the_contributions_does_not_matter),
        ("NeverMovesTheBase", test_models_keep_their_shape_and_the_base_moves_once_a_commit_or_never),
        ("Forgets", test_nobody_moved_leaves_the_model),
        ("ClaimsToBeExact", test_an_exact_rule_takes_the_weighted_mean_of_products_and_the_others_do_not),
        ("GivesTooMuch", test_an_offer_is_pure_and_keeps_to_the_clients_slots),
        ("SendsWhatMoved", test_whattravels_depends_on_ranks_and_versions_and_never_on_values),
        ("Peeks", test_what_does_not_travel_up_does_not_reach_the_shared_model),
    ],
)
def test_these_contracts_catch_the_bugs_they_are_for(bug, caught_by):
    with pytest.raises(AssertionError):
        caught_by(f"worlds.broken_rules:{bug}")


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("wire", WIRES)
def test_every_payload_has_as_many_bytes_as_are_counted_and_arrives(kind, wire):
    rule, how = rule_of(kind), WIRES[wire]
    for ranks in ranks_of(rule):
        for *_, came, offers in course(rule, ranks, commits=2):
            for c, offer in zip(came, offers, strict=True):
                for direction, payload, vector in (
                    ("down", offer.down, offer.start), ("up", offer.up, c.end - c.start),
                ):  # fmt: skip
                    sent = encode(how, LAYERS, payload, direction, vector, stream(0, kind, c.client))
                    got = decode(how, LAYERS, payload, direction, sent)

                    assert len(sent) + 4 * payload.extra_floats == bytes_of(how, LAYERS, payload, direction)
                    if wire == "float32":
                        np.testing.assert_array_equal(got, np.where(travels(payload), vector, 0.0))
