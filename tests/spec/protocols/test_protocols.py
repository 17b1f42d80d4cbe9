"""Protocols against times, versions and models drawn by hand: beats, timely rounds, and what all must agree on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import plan, simulated
from worlds.by_hand import FEDBUFF, NEAR, committed, gaps, losses, schedule, times

from fedsim.component import find
from fedsim.config.experiment import Experiment
from fedsim.errors import RunError
from fedsim.protocols.timely import interval, largest
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

# semi-synchronous ----------------------------------------------------------------------------------


def beat(concurrency=3, beat_s=10.0, **more):
    return {"kind": "semi-synchronous", "concurrency": concurrency, "beat_s": beat_s, **more}


def test_each_beat_commits_what_has_landed_and_visits_go_on_across_beats():
    """Client 0 takes 4 s, 1 takes 14 s, 2 takes 25 s; a beat every 10 s."""
    run = simulated(beat(), [4.0, 14.0, 25.0], budget={"commits": 3})
    rows = committed(run)

    assert [10.0, 20.0, 30.0] == times(run)
    assert rows[["committed_version", "client", "staleness"]].to_numpy().tolist() == [
        [1, 0, 0],
        [2, 0, 0],
        [2, 1, 1],  # asked at 0 s from version 0, landed at 14 s
        [3, 0, 0],
        [3, 2, 2],  # asked at 0 s, landed at 25 s: it has missed the commits at 10 s and 20 s
    ]
    assert sorted(set(run.visits.dispatched_s.round(3))) == [0.0, 10.0, 20.0]
    assert run.visits[run.visits["round"] == 1].dispatched_s.round(3).tolist() == [10.0]


def test_a_beat_at_which_nothing_has_landed_makes_no_version():
    run = simulated(beat(1), [25.0], budget={"commits": 2})

    assert [30.0, 60.0] == times(run)


def test_an_update_that_lands_at_the_beat_counts_in_it():
    landing = float(simulated(beat(1, 9.0), [7.0], budget={"commits": 1}).visits.landed_s.max())

    assert len(simulated(beat(1, landing), [7.0], budget={"time_s": 8.0}).commits) == 1
    assert len(simulated(beat(1, landing - 1e-7), [7.0], budget={"time_s": 8.0}).commits) == 0


def test_a_slot_may_ask_again_at_once():
    run = simulated(beat(1, refill="landing"), [3.9], budget={"commits": 2})

    assert run.commits.updates.tolist() == [2, 3]  # landings at 3.9, 7.8 | 11.7, 15.6, 19.5
    assert committed(run).staleness.tolist() == [0, 0, 1, 0, 0]


def test_beats_longer_than_every_visit_are_synchronous_rounds():
    beats = losses(beat(3, 7.0), [1.0, 2.0, 5.0], task={"kind": "quadratic"})
    rounds = losses({"kind": "synchronous", "cohort": 3}, [1.0, 2.0, 5.0], task={"kind": "quadratic"})

    assert beats == rounds


# TimelyFL --------------------------------------------------------------------------------------------

TEN = {"optimizer": "sgd", "lr": 0.1, "steps": 10}


def timely(**more):
    return {"kind": "timely", "cohort": 3, "k": 2, **more}


def steps_made(run):
    """Steps by client in the first round, from the FLOPs that were charged; a whole visit of client 1 is ten."""
    first = run.visits[run.visits["round"] == 0].set_index("client").flops
    return [round(10 * first[k] / first[1], 6) for k in range(3)]


def test_everybody_works_as_long_as_the_kth_fastest_takes():
    """5.1 s, 10 s and 40 s for ten steps: T = 10 s, so floor(10 / 0.51) = 19, 10 and floor(10 / 4) = 2 steps."""
    run = simulated(timely(), [5.1, 10.0, 40.0], local=TEN, budget={"commits": 2})

    assert steps_made(run) == [19, 10, 2]
    assert [10.0, 20.0] == times(run)
    assert run.commits.updates.tolist() == [3, 3]
    assert run.visits[run.visits["round"] == 0].sort_values("client").landed_s.tolist() == pytest.approx(
        [9.69, 10.0, 8.0], abs=NEAR
    )


def test_a_fast_client_may_be_bounded_in_whole_visits():
    for most, expected in ((1.0, 10), (1.5, 15), (9.0, 19)):
        run = simulated(timely(most=most), [5.1, 10.0, 40.0], local=TEN, budget={"commits": 1})
        assert steps_made(run) == [expected, 10, 2]


def test_with_k_as_large_as_the_cohort_nobody_does_less_than_a_whole_visit():
    run = simulated(timely(k=3, most=1.0), [5.1, 10.0, 40.0], local=TEN, budget={"commits": 1})

    assert steps_made(run) == [10, 10, 10]
    assert [40.0] == times(run)


@pytest.mark.parametrize(("epochs", "examples"), [(3, 9), (4, 9), (2, 33), (1, 9)])
@pytest.mark.parametrize("most", [1.0, None])
def test_a_whole_visit_of_short_batches_is_in_time_though_fewer_full_ones_are_not(epochs, examples, most):
    """Nine examples in batches of eight: an epoch ends with a batch of one, which a number of steps does not have."""
    local = {"optimizer": "sgd", "lr": 0.1, "epochs": epochs, "batch": 8}
    task = {"kind": "quadratic", "examples": examples}
    run = simulated(timely(k=3, most=most), [10.0] * 3, local=local, task=task, budget={"commits": 1})

    assert run.visits.landed_s.tolist() == pytest.approx([10.0] * 3, abs=NEAR)
    assert run.visits.work_share.tolist() == [1.0] * 3


def test_a_client_whose_single_step_is_too_long_is_late():
    run = simulated(timely(grace=0.25), [1.0, 1.0, 40.0], local=TEN, budget={"commits": 1})

    assert run.visits.set_index("client").outcome.to_dict() == {0: "landed", 1: "landed", 2: "late"}
    assert [1.25] == times(run)  # the round waits for it as long as it may


def test_transfers_come_off_the_time_to_train():
    """100 B/s each way: what is left of T after both transfers is cut into steps."""
    made = plan(timely(), [5.1, 10.0, 40.0], local=TEN, rate=100.0, budget={"commits": 1})
    row = simulate(made, timeline_only=True).visits.set_index("client")
    transfers = row.landed_s - row.trained_s + row.downloaded_s
    left = row.landed_s[1] - transfers

    assert transfers.min() > 0.3
    done = {k: round(10 * row.flops[k] / row.flops[1]) for k in row.index}
    assert done == {k: math.floor(left[k] / (t / 10) + 1e-9) for k, t in enumerate((5.1, 10.0, 40.0))}


def test_partial_work_trains_what_was_charged():
    """Gaps after 19, 10 and 2 steps, averaged (K) over three clients with one optimum."""
    gap = 4 * (0.9**19 + 0.9**10 + 0.9**2) / 3

    assert losses(timely(), [5.1, 10.0, 40.0], local=TEN, aggregator=FEDBUFF, budget={"commits": 1}) == gaps(
        4, gap
    )


def test_a_slow_client_trains_the_most_rank_slots_that_land_in_time():
    """Against the estimate of every rank, one by one; only the transfers depend on it much."""
    made = plan(
        timely(partial="rank", most=1.0),
        [3.0, 3.0, 3.2],
        local=TEN,
        rate=100.0,
        lora={"r": 8, "alpha": 8.0},
        task={"kind": "quadratic", "layout": "lora", "dimension": 8},
        aggregator={"kind": "flexlora"},
        budget={"commits": 1},
    )
    run = simulate(made, timeline_only=True)
    row = run.visits.set_index("client").sort_index()

    assert row["rank"].tolist()[:2] == [8, 8]
    assert 1 <= row["rank"][2] < 8
    assert row.flops[2] == pytest.approx(row.flops[1], rel=0.2)  # all its steps
    assert row.landed_s[2] <= row.landed_s[:2].max() + NEAR
    one_more = (row.landed_s[2] - row.trained_s[2]) * 2 * (row["rank"][2] + 1) / row["rank"][2]
    assert 3.2 * 0.98 + one_more > row.landed_s[:2].max()
    assert row.up_bytes[2] == pytest.approx(row.up_bytes[1] * row["rank"][2] / 8, abs=1)


@pytest.mark.parametrize(
    ("totals", "k", "expected"),
    [([3.0, 1.0, 2.0], 1, 1.0), ([3.0, 1.0, 2.0], 3, 3.0), ([3.0, math.inf, 2.0], 3, 3.0)],
)
def test_the_interval_is_the_kth_smallest_total_of_those_who_can(totals, k, expected):
    assert interval(totals, k) == expected
    assert interval([math.inf], 1) == math.inf


@given(st.integers(-5, 60), st.integers(1, 8), st.none() | st.integers(0, 60))
def test_largest_finds_the_last_number_that_holds(edge, low, span):
    high = None if span is None else low + span
    expected = max(low, edge if high is None else min(edge, high))

    assert largest(lambda n: n <= edge, low, high) == expected


def test_a_cohort_that_only_refuses_is_waited_for_and_not_asked_again():
    with pytest.raises(RunError, match="too little memory"):
        simulated({"kind": "timely", "cohort": 2, "k": 1}, [1.0, 1.0], memory=[1.0, 1.0], gated=False)


# equalities between protocols ----------------------------------------------------------------------

EVERYBODY = [
    {"kind": "synchronous", "cohort": 4},
    {"kind": "buffered", "concurrency": 4, "buffer": 4},
    {"kind": "tiers", "tiers": 1, "cohort": 4},
    {"kind": "tiers", "tiers": 1, "cohort": 4, "across": "asynchronous"},
    {"kind": "timely", "cohort": 4, "k": 3},
]


@pytest.mark.parametrize("protocol", EVERYBODY[1:], ids=lambda p: p["kind"] + p.get("across", ""))
def test_with_equal_durations_and_everybody_at_work_every_protocol_is_the_synchronous_one(protocol):
    columns = "client visit version dispatched_s landed_s outcome staleness committed_version"
    found = simulated(protocol, [2.0] * 4)
    rounds = simulated(EVERYBODY[0], [2.0] * 4)

    assert schedule(found, columns) == schedule(rounds, columns)
    assert found.commits.time_s.tolist() == rounds.commits.time_s.tolist()
    blocks = {"task": {"kind": "quadratic"}}
    learned, expected = losses(protocol, [2.0] * 4, **blocks), losses(EVERYBODY[0], [2.0] * 4, **blocks)
    blends = protocol.get("across") == "asynchronous"  # adds the same move in another order
    assert learned == (pytest.approx(expected, rel=1e-6) if blends else expected)


ANY = [
    {"kind": "synchronous", "cohort": 3, "over_select": 1.4, "deadline_s": 4.0},
    {"kind": "buffered", "concurrency": 4, "buffer": 2},
    beat(4, 3.0),
    {"kind": "tiers", "tiers": 2, "cohort": 2},
    {"kind": "tiers", "tiers": 2, "cohort": 2, "across": "asynchronous"},
    {"kind": "timely", "cohort": 4, "k": 2},
]
WORK_S = [0.71, 1.3, 2.9, 3.7, 5.3, 6.1]


def slower(protocol, factor):
    return {k: v * factor if k.endswith("_s") else v for k, v in protocol.items()}


@pytest.mark.parametrize("protocol", ANY, ids=lambda p: p["kind"] + p.get("across", ""))
def test_a_world_three_times_slower_learns_the_same_in_three_times_the_time(protocol):
    blocks = {"timeline_only": False, "evaluate": {"every_commits": 1}, "budget": {"commits": 12}, "seed": 2}
    run = simulated(protocol, WORK_S, **blocks)
    slow = simulated(slower(protocol, 3.0), [3.0 * t for t in WORK_S], **blocks)

    assert schedule(run) == schedule(slow)
    np.testing.assert_allclose(slow.commits.time_s, 3.0 * run.commits.time_s, atol=12 * NEAR)
    assert run.scores.value.tolist() == slow.scores.value.tolist()


@pytest.mark.parametrize("protocol", ANY, ids=lambda p: p["kind"] + p.get("across", ""))
def test_every_protocol_passes_the_audit_with_refusals_windows_and_slow_links(protocol):
    online = [[(k * 0.7, 40.0 + k), (60.0 + k, 1e4)] for k in range(6)]
    run = simulated(
        slower(protocol, 2.0), WORK_S, online=online, memory=[1e12] * 5 + [1.0], rate=2e3, rtt_s=0.05,
        budget={"time_s": 110.0},
    )  # fmt: skip

    assert len(run.commits) > 3
    assert verify(run) == []


def test_one_at_a_time_in_turn_each_update_has_missed_the_others():
    """C clients a C-th of a visit apart, one update a commit: in steady state each has missed C - 1."""
    c = 5
    online = [[(k * 1.0, 1e6)] for k in range(c)]
    run = simulated(
        {"kind": "buffered", "concurrency": c, "buffer": 1},
        [5.0] * c,
        online=online,
        budget={"commits": 40},
    )

    assert committed(run).staleness.tolist()[c:] == [c - 1] * (40 - c)


def test_fedbuff_with_a_buffer_of_the_whole_cohort_is_fedavg():
    buff = losses(EVERYBODY[1], [2.0] * 4, task={"kind": "quadratic"}, aggregator=FEDBUFF)
    average = losses(EVERYBODY[0], [2.0] * 4, task={"kind": "quadratic"})

    np.testing.assert_allclose(buff, average, rtol=1e-6)


@pytest.mark.parametrize("kind", ["semi-synchronous", "tiers", "timely"])
def test_the_protocols_are_kinds_of_an_experiment(kind):
    made = Experiment.model_validate(
        {
            "task": {"kind": "quadratic"},
            "population": {"preset": "homogeneous", "clients": 9},
            "budget": {"commits": 1},
            "protocol": {"kind": kind},
        }
    )

    assert made.protocol == find("protocols", kind)()
