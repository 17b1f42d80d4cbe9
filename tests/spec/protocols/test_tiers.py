"""Latency tiers in turns (TiFL) and at the same time (FedAT), against hand calculation."""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import plan, simulated
from worlds.by_hand import NEAR, Q, committed, gaps, losses, schedule, times

from fedsim.errors import ExperimentError, RunError
from fedsim.protocols.tiers import (
    Tiers,
    adaptive_probabilities,
    draw_tier,
    latency_tiers,
    mean_loss,
    mirrored_shares,
)
from fedsim.rng import stream


@dataclass
class Landed:
    loss: float
    outcome: str = "landed"


@pytest.mark.parametrize(
    ("visits", "mean"),
    [
        ([Landed(1.0), Landed(3.0)], 2.0),
        ([Landed(1.0), Landed(math.nan, "rejected")], 1.0),
        ([Landed(1.0), Landed(9.0, "rejected")], 1.0),
        ([Landed(math.nan, "rejected")], 7.0),
    ],
)
def test_a_refused_update_says_nothing_of_its_tier(visits, mean):
    assert mean_loss(visits, 7.0) == mean


@pytest.mark.parametrize(("across", "at_work"), [("turns", 4), ("asynchronous", 12)])
def test_tiers_that_run_side_by_side_have_a_cohort_each_at_work(across, at_work):
    assert Tiers(tiers=3, cohort=4, across=across).clients_at_work == at_work


# tiers: who is in which --------------------------------------------------------------------------------


def test_tiers_are_equal_cuts_of_the_clients_by_latency():
    assert [t.tolist() for t in latency_tiers([9.0, 1.0, 5.0, 1.0, 7.0], 2)] == [[1, 2, 3], [0, 4]]


@given(st.lists(st.floats(0.1, 100) | st.just(math.inf), min_size=4, max_size=40), st.integers(1, 4))
def test_tiers_cover_everybody_who_fits_once_and_no_tier_is_faster_than_the_one_before(expected, tiers):
    able = [k for k, t in enumerate(expected) if math.isfinite(t)]
    if len(able) < tiers:
        with pytest.raises(RunError, match=f"there are {len(able)}"):
            latency_tiers(expected, tiers)
        return
    found = latency_tiers(expected, tiers)

    assert sorted(np.concatenate(found).tolist()) == able
    assert max(map(len, found)) - min(map(len, found)) <= 1
    for faster, slower in pairwise(found):
        assert max(expected[k] for k in faster) <= min(expected[k] for k in slower)


def test_a_client_that_does_not_have_the_memory_is_in_no_tier():
    run = simulated({"kind": "tiers", "tiers": 2, "cohort": 2}, [1.0] * 5, memory=[1e12, 1.0] + [1e12] * 3)

    assert 1 not in run.visits.client.tolist()


# tiers in turns (TiFL) -----------------------------------------------------------------------------

SIX = [1.0, 1.0, 5.0, 5.0, 9.0, 9.0]
TIER_OF = {client: client // 2 for client in range(6)}


def turns(**more):
    return {"kind": "tiers", "tiers": 3, "cohort": 2, **more}


def tiers_asked(run):
    rounds = (
        run.visits[run.visits["round"] >= 0].groupby("round").client.agg(lambda c: {TIER_OF[k] for k in c})
    )
    assert all(len(tiers) == 1 for tiers in rounds)
    return [tiers.pop() for tiers in rounds]


def test_a_round_asks_one_tier_and_lasts_as_long_as_that_tier_takes():
    run = simulated(turns(), SIX, budget={"commits": 30})
    lasts = np.diff(run.commits.time_s, prepend=0.0)

    np.testing.assert_allclose(lasts, [(1.0, 5.0, 9.0)[tier] for tier in tiers_asked(run)], atol=NEAR)
    assert run.commits.max_staleness.tolist() == [0] * 30


def test_weights_of_the_tiers_are_given_from_the_fastest_to_the_slowest():
    assert [1.0, 2.0, 3.0] == times(simulated(turns(probabilities=[1, 0, 0]), SIX, budget={"commits": 3}))
    assert [9.0, 18.0] == times(simulated(turns(probabilities=[0, 0, 2.5]), SIX, budget={"commits": 2}))


def test_tiers_are_drawn_in_proportion_to_their_weights():
    asked = Counter(tiers_asked(simulated(turns(probabilities=[3, 2, 1]), SIX, budget={"commits": 600})))
    chi2 = sum((asked[tier] - expected) ** 2 / expected for tier, expected in enumerate((300, 200, 100)))

    assert chi2 < 13.8  # 2 degrees of freedom, p = 0.001


def test_credits_bound_how_often_a_tier_is_drawn_and_are_given_out_again_when_used_up():
    asked = tiers_asked(simulated(turns(credits=[3, 2, 1]), SIX, budget={"commits": 18}))

    for block in range(3):
        assert Counter(asked[6 * block : 6 * block + 6]) == {0: 3, 1: 2, 2: 1}


def test_credits_of_a_tier_that_is_never_drawn_do_not_hold_up_the_others():
    run = simulated(turns(credits=2, probabilities=[1, 1, 0]), SIX, budget={"commits": 12})

    assert set(tiers_asked(run)) == {0, 1}


def test_the_tier_with_the_highest_loss_is_most_probable():
    """n = 3: 3/6, 2/6, 1/6 from the highest loss to the lowest."""
    assert adaptive_probabilities([0.5, 2.0, 1.0], [9, 9, 9]) == [1 / 6, 3 / 6, 2 / 6]
    assert adaptive_probabilities([0.5, 2.0, 1.0], [9, 0, 9]) == [1 / 3, 0.0, 2 / 3]
    assert adaptive_probabilities([0.5, math.nan, 9.0], [9, 9, 9]) == [1 / 6, 3 / 6, 2 / 6]


@given(st.lists(st.floats(0, 9) | st.just(math.nan), min_size=1, max_size=8))
def test_adaptive_probabilities_are_a_distribution(found):
    assert sum(adaptive_probabilities(found, [1] * len(found))) == pytest.approx(1.0)


@pytest.mark.parametrize("adapt", ["stalled", "always"])
def test_adaptive_turns_follow_the_losses_that_have_landed(adapt):
    """Redrawn from the tables: which tier, given the losses of the rounds before.

    TiFL, algorithm 2: chances change only if the tier of the last round is no better than at the look before.
    """
    run = simulated(
        turns(probabilities="adaptive", interval=2, adapt=adapt),
        SIX,
        timeline_only=False,
        budget={"commits": 25},
        task={"kind": "quadratic", "spread": 3.0},
        seed=4,
    )
    asked, known, before, weights = tiers_asked(run), [math.nan] * 3, [math.nan] * 3, [1 / 3] * 3
    looks, changes = 0, 0
    for round_, tier in enumerate(asked[:25]):
        if round_ and round_ % 2 == 0:
            last = asked[round_ - 1]
            looks += 1
            if adapt == "always" or known[last] >= before[last]:
                weights = adaptive_probabilities(known, [math.inf] * 3)
                changes += 1
            before = list(known)
        assert tier == draw_tier(weights, [math.inf] * 3, stream(4, "tier", round_))
        known[tier] = run.visits[run.visits["round"] == round_].loss.mean()
    assert changes == looks if adapt == "always" else changes < looks


def test_adaptive_turns_with_credits_give_every_tier_its_share():
    adaptive = turns(probabilities="adaptive", interval=2, credits=2)
    asked = tiers_asked(simulated(adaptive, SIX, timeline_only=False, budget={"commits": 18}))

    for block in range(3):
        assert Counter(asked[6 * block : 6 * block + 6]) == {0: 2, 1: 2, 2: 2}


def test_a_schedule_that_follows_losses_has_no_timeline():
    with pytest.raises(ExperimentError, match="what training has computed"):
        simulated(turns(probabilities="adaptive"), SIX)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"probabilities": [1, 2]}, "2 entries for 3 tiers"),
        ({"probabilities": [0, 0, 0]}, "leaves no tier"),
        ({"probabilities": [1, 0, 0], "credits": [0, 1, 1]}, "both a probability and credits"),
        ({"prior": 1.0}, "no meaning with `across: turns`"),
        ({"across": "asynchronous", "credits": 3}, "no meaning with `across: asynchronous`"),
    ],
)
def test_settings_of_tiers_that_contradict_each_other_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Tiers.model_validate(turns(**wrong))


def test_more_tiers_than_clients_are_refused_before_anything_starts():
    from fedsim.checks.blocks import misfits

    asked = plan({"kind": "synchronous", "cohort": 2}, [1.0] * 4).experiment
    wrong = asked.model_copy(update={"protocol": Tiers(tiers=5, cohort=1)})

    assert [p.path for p in misfits(wrong)] == [("protocol", "tiers")]


# tiers at the same time (FedAT) --------------------------------------------------------------------

PAIRS = [1.0, 1.0, 3.5, 3.5]


def fedat(**more):
    return {"kind": "tiers", "tiers": 2, "cohort": 2, "across": "asynchronous", **more}


def test_tiers_run_their_own_rounds_and_staleness_counts_the_others_commits():
    run = simulated(fedat(), PAIRS, budget={"commits": 5})
    rows = committed(run).drop_duplicates("committed_version")

    assert [1.0, 2.0, 3.0, 3.5, 4.0] == times(run)
    assert rows.client.tolist() == [0, 0, 0, 2, 0]
    assert rows.staleness.tolist() == [0, 0, 0, 3, 1]


def test_a_tier_that_waits_for_its_clients_does_not_hold_up_the_others():
    run = simulated(fedat(), PAIRS, online=[[(0.0, 1e6)]] * 2 + [[(12.2, 1e6)]] * 2, budget={"commits": 16})

    assert [*range(1, 16), 15.7] == times(run)
    assert committed(run)[lambda v: v.client >= 2].staleness.tolist() == [3, 3]


def test_a_tier_weighs_as_much_as_its_mirror_image_has_done():
    assert mirrored_shares([6, 3, 1]) == [0.1, 0.3, 0.6]
    assert mirrored_shares([1, 0]) == [0.0, 1.0]
    assert mirrored_shares([1, 0], prior=1.0) == [pytest.approx(1 / 3), pytest.approx(2 / 3)]


@given(st.lists(st.integers(0, 99), min_size=1, max_size=9).filter(any))
def test_fedat_shares_are_a_distribution_that_reverses_the_counts(rounds):
    shares = mirrored_shares(rounds)

    assert sum(shares) == pytest.approx(1.0)
    assert [s * sum(rounds) for s in reversed(shares)] == pytest.approx(rounds)


def test_fedat_s_tiers_commit_at_their_own_beat_with_weights_by_hand():
    """Fast rounds at 1, 2, 3, 4 s; the slow tier's, of version 0, at 3.5 s.

    Until the slow tier has landed, the fast one has weight zero (its mirror image has made no round).
    At 3.5 s both tiers' models have the gap 4 Q, so the shared one has. At 4 s the fast tier, which was
    sent the gap 4 at 3 s, is at 4 Q again: nothing changes.
    """
    assert losses(fedat(), PAIRS) == gaps(4, 4, 4, 4, 4 * Q, 4 * Q)


def test_fedat_with_a_prior_by_hand():
    """Counts start at 1: the first fast round weighs 1/3 (mirror 1 of 3), the second 1/4."""
    first = (1 / 3) * 4 * Q + (2 / 3) * 4
    second = (1 / 4) * first * Q + (3 / 4) * 4

    assert losses(fedat(prior=1.0), PAIRS, budget={"commits": 2}) == gaps(4, first, second)


def test_one_tier_is_a_synchronous_server():
    rounds = {"kind": "synchronous", "cohort": 3}
    for across in ("turns", "asynchronous"):
        one = {"kind": "tiers", "tiers": 1, "cohort": 3, "across": across}
        blocks = {"task": {"kind": "quadratic"}}

        assert losses(one, [1.0, 2.0, 4.0], **blocks) == pytest.approx(
            losses(rounds, [1.0, 2.0, 4.0], **blocks), rel=1e-6
        )
        assert schedule(simulated(one, [1.0, 2.0, 4.0])) == schedule(simulated(rounds, [1.0, 2.0, 4.0]))


@pytest.mark.parametrize(
    "aggregator",
    [
        {"kind": "mixing", "alpha": 1.0},
        {"kind": "mixing", "alpha": 0.25},
        {"kind": "fedit"},
        {"kind": "fedit", "normalize": "K", "staleness": {"kind": "polynomial", "a": 2.0}},
    ],
    ids=str,
)
def test_a_tiers_model_is_what_the_rule_makes_of_what_the_tier_was_sent(aggregator):
    """One client a tier. The slow one lands at 3.5 s, three versions after version 0 that it was sent; then both weigh 1:3.

    From the gap 4 a visit ends at 4 Q, whatever the fast tier has made meanwhile: mixed with alpha into what was sent
    that is 4 (1 - alpha + alpha Q), and nothing is discounted.
    """
    alpha = aggregator.get("alpha", 1.0)
    fast, slow = 4.0, 4.0 * (1 - alpha + alpha * Q)
    expected = [4.0, 4.0, 4.0, 4.0]  # the fast tier has no weight until the slow one has landed
    fast = fast * (1 - alpha + alpha * Q)
    expected.append(0.25 * fast + 0.75 * slow)
    one_a_tier = {**fedat(), "cohort": 1}

    assert losses(one_a_tier, [1.0, 3.5], aggregator=aggregator, budget={"commits": 4}) == gaps(*expected)


@pytest.mark.parametrize("own", [2, 4])
def test_a_tier_of_small_clients_counts_as_the_synchronous_rule_would(own):
    """One tier of one client, of rank 2 by its memory: what a round becomes is what `synchronous` makes of it."""
    blocks = {
        "task": {"kind": "quadratic", "layout": "lora", "dimension": 5},
        "lora": {"r": 4, "alpha": 8.0, "rank_by": "memory", "ranks": [2, 4]},
        "budget": {"commits": 3},
    }
    rounds = {"kind": "synchronous", "cohort": 1}
    one = {"kind": "tiers", "tiers": 1, "cohort": 1, "across": "asynchronous"}
    room = [plan(rounds, [1.0], **blocks).sizing.training_plan(1e12, own).memory.memory_bytes]

    assert plan(one, [1.0], memory=room, **blocks).ranks.tolist() == [own]
    tiered, synchronous = (losses(p, [1.0], memory=room, **blocks) for p in (one, rounds))
    assert tiered == pytest.approx(synchronous, rel=1e-6)


# too stale -----------------------------------------------------------------------------------------


def test_a_tiers_round_that_is_too_stale_is_dropped_and_the_tier_goes_on():
    run = simulated(fedat(max_staleness=2), PAIRS, budget={"commits": 8})
    slow = run.visits[run.visits.client >= 2].sort_values(["order"])

    assert slow.outcome.tolist()[:2] == ["stale", "stale"]
    assert run.info.totals.outcomes["stale"] == (run.visits.outcome == "stale").sum()
    assert committed(run).client.max() == 1
    assert slow.dispatched_s.tolist()[2:4] == pytest.approx([3.5, 3.5], abs=1e-4)


def test_turns_are_never_stale_so_a_maximum_is_refused():
    with pytest.raises(ValueError, match="no meaning with `across: turns`"):
        Tiers.model_validate(turns(max_staleness=3))
