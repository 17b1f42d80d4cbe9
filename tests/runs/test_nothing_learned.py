"""Where nobody learns, nothing changes: all rules, protocols, ranks and ways to personalise that the table allows.

Everything is discovered. Clients train with a learning rate of 1e-12 for twelve commits; the shared model, the average
that is scored and what every client keeps stay those of version 0, but for rounding. With ranks of their own that are
unequal, rules that let a missing slot vote for 0 (`padding: zeros`, `tail: voted`, as published) are run without that
vote; what the vote alone does has a closed form of its own in `tests/spec/aggregators/test_own_ranks.py`.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from worlds.contracts import IN_ORDER, OWN_RULE, RULES
from worlds.still import RANK, at_the_end, product, still_plan

from fedsim.checks.blocks import misfits
from fedsim.checks.page import protocols
from fedsim.component import kinds

pytestmark = pytest.mark.usefixtures("extensions")

SMALL = {"cohort": 3, "concurrency": 4, "buffer": 2, "beat_s": 3.0, "tiers": 2, "k": 2}
RANKS = ("fixed", "short", "tier", "memory")
NO_VOTE = {
    **{rule: {"padding": "rows"} for rule in ("fedit", "ffa", "fedsa", "hetlora", "rolora")},
    "flexlora": {"tail": "kept"},
}
"""How a rule that counts silence as 0 is told not to."""
NEAR = {"rtol": 2e-5, "atol": 2e-5}
EXACT = {"rtol": 1e-6, "atol": 1e-6}


def blocks_of_protocols():
    """Every protocol that ships, in every variant that the table tells apart."""
    found = {}
    for protocol in protocols():
        sizes = {name: value for name, value in SMALL.items() if name in type(protocol).model_fields}
        variant = protocol.model_dump(exclude_defaults=True)
        found[" ".join(map(str, (protocol.kind, *variant.values())))] = {
            "kind": protocol.kind,
            **sizes,
            **variant,
        }
    return found


PROTOCOLS = blocks_of_protocols()


def made(rule, protocol, ranks, personal="none", **blocks):
    """The plan of a combination; None where the table refuses it."""
    unequal = ranks in ("tier", "memory")
    settings = NO_VOTE.get(rule, {}) if unequal else {}
    plan = still_plan(
        PROTOCOLS[protocol],
        ranks,
        aggregator={"kind": rule, **settings},
        personal={"kind": personal},
        **blocks,
    )
    return None if misfits(plan.experiment) else plan


def check_nothing_changed(plan):
    server, ranks = at_the_end(plan)
    layout, first = plan.task.layout, plan.task.initial()
    traits = plan.parts.aggregator.traits
    assert server.version == plan.experiment.budget.commits
    whole = product(first, layout)
    if traits.refactors or traits.moves_base:  # other factors, or a base, of the same product
        np.testing.assert_allclose(product(server.vector, layout, server.model.base), whole, **NEAR)
    else:
        np.testing.assert_allclose(server.vector, first, **EXACT)
        np.testing.assert_allclose(server.average.model.adapter.vector, first, **EXACT)
    check_clients(server, layout, first, whole)
    return ranks


def check_clients(server, layout, first, whole):
    kept = server.private_parts.kept
    for client in kept:
        expected = server.private_parts.kind.keeps(server.private_parts.home, first)
        np.testing.assert_allclose(kept.get(client), first if expected is None else expected, **EXACT)
    if server.model.personal and server.versions.rule.kind != "fedsa":
        for client in server.model.personal:
            np.testing.assert_allclose(server.model.personal.get(client), first, **EXACT)
    models = server.versions.client_models()
    for client in range(server.clients) if models is not None and not server.model.personal else ():
        np.testing.assert_allclose(product(models(client), layout), whole, **NEAR)


def in_turns(*sides):
    """Every combination of values; of those that differ in one side of four values, one is not for `slow`, in turns."""
    found = []
    for chosen in itertools.product(*map(enumerate, sides)):
        places, values = zip(*chosen, strict=True)
        found.append(pytest.param(*values, marks=[pytest.mark.slow] * bool(sum(places) % 4)))
    return found


@pytest.mark.parametrize(("rule", "protocol", "ranks"), in_turns(RULES, PROTOCOLS, RANKS))
def test_a_rule_takes_nothing_from_the_model(rule, protocol, ranks):
    plan = made(rule, protocol, ranks)
    if plan is None:
        pytest.skip("the table refuses it")

    visited = check_nothing_changed(plan)

    if plan.parts.protocol.cuts_ranks:
        assert min(visited) < min(plan.own_rank(client) for client in range(6)), "somebody was asked for less"


PERSONAL = [kind for kind in kinds("personal") if kind != "none"]
SOME = ["synchronous", "buffered", "timely rank", "tiers asynchronous"]


@pytest.mark.parametrize(
    ("personal", "protocol", "ranks", "scale"), in_turns(PERSONAL, SOME, RANKS, ["common", "own"])
)
def test_what_a_client_keeps_stays_as_it_is(personal, protocol, ranks, scale):
    plan = made("fedit", protocol, ranks, personal, scale=scale)
    assert plan is not None

    check_nothing_changed(plan)


@pytest.mark.parametrize(
    ("rule", "personal", "ranks"),
    in_turns([rule for rule in RULES if rule != "fedit"], PERSONAL, ["fixed", "tier"]),
)
def test_so_it_does_under_every_rule_that_goes_with_it(rule, personal, ranks):
    plan = made(rule, "timely rank", ranks, personal)
    if plan is None:
        pytest.skip("the table refuses it")

    check_nothing_changed(plan)


@pytest.mark.parametrize("rule", ["fedit", "hetlora", "local-only"])
def test_a_vote_by_silence_does_not_reach_what_is_private(rule):
    """With zeros for missing slots, as published: the shared layers shrink, the private ones are those of version 0."""
    personal = {"kind": "none" if rule == "local-only" else "fedper"}
    plan = still_plan(PROTOCOLS["timely rank"], "tier", aggregator={"kind": rule}, personal=personal)
    server, _ = at_the_end(plan)
    parts, first = server.private_parts, plan.task.initial()

    kept = server.model.personal if rule == "local-only" else parts.kept
    expected = first if rule == "local-only" else parts.kind.keeps(parts.home, first)
    assert len(list(kept)) > 2
    for client in kept:
        np.testing.assert_allclose(kept.get(client), expected, **EXACT)
    if rule != "local-only":
        np.testing.assert_array_equal(parts.kind.keeps(parts.home, server.vector), expected)
        assert np.abs(server.vector - first).max() > 0.1, "the shared layers have shrunk"


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in {*IN_ORDER, OWN_RULE}])
def test_neither_does_a_rule_whose_clients_have_scales_of_their_own(rule):
    for ranks in ("tier", "short"):
        plan = made(rule, "timely rank", ranks, scale="own")
        if plan is not None:
            check_nothing_changed(plan)


@pytest.mark.parametrize("optimizer", kinds("optimizers"))
def test_nor_a_server_optimiser_or_an_average_of_versions(optimizer):
    for ranks in ("fixed", "short"):
        plan = made(
            "fedit",
            "timely rank",
            ranks,
            server_optimizer={"kind": optimizer},
            evaluate={"ema": 0.5},
        )
        assert plan is not None
        check_nothing_changed(plan)


def test_the_world_has_something_to_lose():
    plan = still_plan(PROTOCOLS["timely rank"])

    arrays = plan.task.layout.arrays(plan.task.initial())
    assert all(np.abs(array).min(axis=None) > 0 for array in arrays.values())
    assert plan.task.layout.rank == RANK
