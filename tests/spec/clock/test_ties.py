"""What is equal on paper is one instant: landings at a deadline, a window's end, a beat and the budget's end, far from time 0."""

import math

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import plan, simulated
from worlds.cases import tried

from fedsim.instants import At, Closing, Instant, in_time, tie_s
from fedsim.runs.simulation import simulate

TWO = [100.123456, 300.7654321]


SLOW = {"server_up_mbps": 1e12, "server_down_mbps": 1e-4}


def lengths(train_s, **blocks):
    """Each client's exact duration from time 0, on links of 37 bytes a second."""
    once = {"rate": 37.0, "budget": {"commits": 1}, **blocks}
    made = plan({"kind": "synchronous", "cohort": len(train_s)}, train_s, **once)
    visits = simulate(made, timeline_only=True).visits.sort_values("client")
    return visits.landed_s.tolist()


def test_a_deadline_as_long_as_the_slower_visit_takes_it_in_every_round():
    """2,000 rounds: now + (t1 - now) and the sum of the phases differ in the last bit in one of eight."""
    protocol = {"kind": "synchronous", "cohort": 2, "deadline_s": max(lengths(TWO))}

    run = simulated(protocol, TWO, rate=37.0, budget={"commits": 2000})

    assert run.commits.updates.tolist() == [2] * 2000
    assert set(run.visits.outcome) == {"landed"}


def test_a_deadline_a_microsecond_shorter_takes_it_in_none():
    protocol = {"kind": "synchronous", "cohort": 2, "deadline_s": max(lengths(TWO)) - 1e-6}

    run = simulated(protocol, TWO, rate=37.0, budget={"commits": 300})

    assert run.commits.updates.tolist() == [1] * 300


@pytest.mark.parametrize("on_close", ["lost", "pause"])
@pytest.mark.parametrize("sharing", ["private", "max-min"])
def test_a_window_as_long_as_a_visit_never_loses_it(on_close, sharing):
    train_s = [53.123456789]
    network = {**SLOW, "sharing": sharing}
    (length_s,) = lengths(train_s, network=network)
    rng = np.random.default_rng(0)
    starts = np.cumsum(rng.uniform(2.0, 4.0, 300) * length_s).tolist()
    made = plan(
        {"kind": "buffered", "concurrency": 1, "buffer": 1},
        train_s,
        rate=37.0,
        online=[[(start, start + length_s) for start in starts]],
        population={"preset": "homogeneous", "clients": 1, "on_close": on_close},
        network=network,
        budget={"time_s": starts[-1] + 1000.0},
    )
    run = simulate(made, timeline_only=True)

    assert run.visits.outcome.tolist() == ["landed"] * 300
    assert run.visits.dispatched_s.tolist() == pytest.approx(starts, rel=1e-12)
    assert run.visits.paused_s.max() == 0.0


@settings(deadline=None, max_examples=tried(30))
@given(beat_s=st.floats(0.1, 1e4), rounds=st.integers(1, 20))
def test_what_lands_at_the_end_of_the_budget_is_in_its_version(beat_s, rounds):
    """Visits of t, and a budget of k t: k commits, whatever t."""
    made = plan({"kind": "buffered", "concurrency": 1, "buffer": 1}, [beat_s], budget={"commits": 1})
    length_s = float(simulate(made, timeline_only=True).visits.landed_s.iloc[0])

    blocks = {"budget": {"time_s": rounds * length_s}}
    run = simulated({"kind": "buffered", "concurrency": 1, "buffer": 1}, [beat_s], **blocks)

    assert len(run.commits) == len(run.visits) == rounds
    assert in_time(run.info.end_time_s, rounds * length_s)


def test_an_update_that_lands_at_a_beat_counts_in_it_for_ever():
    (length_s,) = lengths([17.3])
    protocol = {"kind": "semi-synchronous", "concurrency": 1, "beat_s": length_s}

    run = simulated(protocol, [17.3], rate=37.0, budget={"commits": 500})

    assert run.commits.time_s.tolist() == pytest.approx([length_s * (k + 1) for k in range(500)], rel=1e-9)


@given(st.floats(0, 1e9))
def test_a_tie_is_wider_than_rounding_and_narrower_than_anything_that_happens(at_s):
    assert 1000 * np.spacing(at_s) <= tie_s(at_s) <= max(1e-9, 1e-12 * at_s)
    assert in_time(at_s, at_s)
    assert in_time(at_s + 4 * np.spacing(at_s), at_s)
    assert not in_time(at_s * (1 + 1e-9) + 1e-6, at_s)
    assert in_time(at_s, math.inf)
    assert not in_time(math.inf, at_s)


def test_a_closing_waits_for_what_is_due_in_its_instant_and_for_nothing_else():
    env = simpy.Environment(initial_time=1e6)
    due = [1e6 + 10.0 + 2e-10, 1e6 + 10.0 + 1e-5]
    happened = []
    for at_s in due:
        At(env, at_s - env.now, Instant.LANDING).callbacks.append(lambda _, at_s=at_s: happened.append(at_s))
    closing = Closing(
        env, 10.0, Instant.COMMIT, lambda: min((d for d in due if d > env.now), default=math.inf)
    )
    closing.callbacks.append(lambda _: happened.append("closed"))
    env.run()

    assert happened == [due[0], "closed", due[1]]
