"""How long a run will still take is learnt from its speed: the errors that `pace` states, on made-up runs."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest

from fedsim.records.watching.pace import Left, Pace, shares_of


def estimates(gaps, **pace):
    """(real time, true seconds left, estimate) after every commit of a run whose commits took `gaps` seconds."""
    times, pace = list(accumulate(gaps)), Pace(**pace)
    pace.note(0.0, {"commits": 0.0})
    told = []
    for number, at_s in enumerate(times, start=1):
        pace.note(at_s, {"commits": number / len(times)}, 1.0)
        left = pace.left(at_s)
        if left is not None:
            told.append((at_s, times[-1] - at_s, left))
    return told


def at(told, time_s):
    """The share of the truth that the estimate is, at a time."""
    _, truth_s, left = min(told, key=lambda entry: abs(entry[0] - time_s))
    return left.middle_s / truth_s


def test_at_a_constant_speed_it_is_exact_from_the_first_estimate_on():
    told = estimates([3.0] * 400)

    assert told[0][0] <= 6.0
    assert all(left.middle_s == pytest.approx(truth_s, abs=1e-6) for _, truth_s, left in told)


def test_a_run_that_becomes_half_as_fast_is_believed_by_and_by():
    told = estimates([3.0] * 200 + [6.0] * 400)

    assert at(told, 1.25 * 600) == pytest.approx(0.7, abs=0.03)
    assert at(told, 1.5 * 600) == pytest.approx(0.8, abs=0.03)
    assert at(told, 2.5 * 600) > 0.93


def test_a_run_that_becomes_twice_as_fast_is_believed_by_and_by():
    told = estimates([6.0] * 100 + [3.0] * 400)

    assert at(told, 1.5 * 600) < 1.25
    assert at(told, 2.5 * 600) < 1.07


def test_a_pause_is_forgotten():
    """A tenth of the run's age, as a laptop that was shut."""
    told = estimates([3.0] * 300 + [90.0] + [3.0] * 700)

    assert at(told, 990.0) == pytest.approx(1.45, abs=0.05)
    assert at(told, 1.2 * 990.0) == pytest.approx(1.15, abs=0.03)
    assert at(told, 2.0 * 990.0) < 1.03


def test_the_end_of_noisy_runs_is_inside_the_band_nine_times_of_ten():
    inside = total = 0
    for seed in range(20):
        noise = random.Random(seed)
        told = estimates([noise.lognormvariate(1.0, 1.0) for _ in range(400)])
        for _, truth_s, left in told[5:-5:5]:
            total += 1
            inside += left.least_s <= truth_s <= left.most_s

    assert 0.9 <= inside / total < 1.0


def test_waiting_for_scores_every_tenth_commit_is_part_of_the_speed():
    told = estimates(([2.0] * 9 + [32.0]) * 40)

    assert [at(told, time_s) for time_s in (500.0, 1000.0)] == pytest.approx([1.0, 1.0], abs=0.15)


def test_nothing_is_said_before_anything_is_known():
    pace = Pace()
    assert pace.left(0.0) is None
    pace.note(0.0, {"commits": 0.0})
    assert pace.left(100.0) is None
    pace.note(1.0, {"commits": 0.1})
    assert pace.left(1.0) is None  # too young
    pace.note(60.0, {"time_s": 0.0})
    assert pace.left(60.0) is not None


def test_no_part_of_it_is_ever_below_zero_and_a_finished_run_has_none_left():
    told = estimates([random.Random(1).uniform(0.1, 9.0) for _ in range(50)])

    assert all(0.0 <= left.least_s <= left.middle_s <= left.most_s for _, _, left in told)
    assert told[-1][2].middle_s == 0.0


def test_between_two_commits_the_time_runs_down():
    pace = Pace()
    for number in range(6):
        pace.note(10.0 * number, {"commits": number / 10})
    now, later = pace.left(50.0), pace.left(58.0)

    assert (now.middle_s, later.middle_s) == pytest.approx((50.0, 42.0))


def test_a_silence_longer_than_any_before_makes_the_estimate_grow():
    pace = Pace()
    for number in range(6):
        pace.note(10.0 * number, {"commits": number / 10})

    assert pace.left(50.0 + 29.0).middle_s < 50.0
    assert pace.left(50.0 + 300.0).middle_s > 100.0


def test_the_limit_that_is_nearest_counts():
    """Half of the virtual time, a fifth of the commits: time ends it."""
    pace = Pace()
    for number in range(11):
        pace.note(float(number), {"time_s": number / 20, "commits": number / 50})

    assert pace.left(10.0).middle_s == pytest.approx(10.0)
    assert pace.share == 0.5


def test_what_comes_after_the_budget_is_added_at_what_a_visit_took():
    told = estimates([3.0] * 100, visits_after=20)

    assert told[50][2].middle_s == pytest.approx(told[50][1] + 20 * 3.0)


def test_a_resumed_run_is_not_thought_fast_for_its_replay():
    pace = Pace()
    pace.note(0.0, {"commits": 0.0})
    for number in range(1, 51):  # replayed in a second
        pace.note(number / 50, {"commits": number / 100})
    pace.restart(1.0)
    for number in range(51, 61):
        pace.note(1.0 + 5.0 * (number - 50), {"commits": number / 100})

    assert pace.left(51.0).middle_s == pytest.approx(200.0)


def test_a_clock_that_goes_back_is_time_that_did_not_pass():
    pace = Pace()
    for at_s, share in ((0.0, 0.0), (5.0, 0.1), (3.0, 0.2), (10.0, 0.3)):
        pace.note(at_s, {"commits": share})

    assert pace.left(10.0).middle_s > 0.0


def test_memory_does_not_grow_with_the_run():
    pace = Pace()
    for number in range(10_000):
        pace.note(0.5 * number, {"commits": number / 20_000})

    assert len(pace._points) <= 64
    assert pace.left(5000.0).middle_s == pytest.approx(5000.0, rel=0.01)


def test_shares_are_between_0_and_1_and_only_of_limits_that_there_are():
    budget = {"time_s": 100.0, "commits": None, "up_bytes": 50}
    assert shares_of(budget, {"time_s": 120.0, "version": 3}) == {"time_s": 1.0}
    assert shares_of(budget, {"time_s": 25.0, "version": 3, "total_up_bytes": 5}) == {
        "time_s": 0.25,
        "up_bytes": 0.1,
    }
    assert Left(1.0, 0.5, 2.0).least_s == 0.5
