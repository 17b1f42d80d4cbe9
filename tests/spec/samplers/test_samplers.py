"""Whom to ask: samplers by hand, what they may see, and what a poll costs."""

import inspect
import math
from typing import ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import oort
from worlds import plan, windows

import fedsim.samplers
from fedsim.clock.online.roster import Roster
from fedsim.component import Component
from fedsim.config.experiment import Experiment
from fedsim.devices.availability import Availability
from fedsim.errors import ExperimentError, RunError, RunFolderError
from fedsim.records.run import load
from fedsim.records.verify import verify
from fedsim.rng import stream
from fedsim.runs.replay import replay
from fedsim.runs.simulation import simulate
from fedsim.samplers.least_available import LeastAvailable
from fedsim.samplers.oort import Oort
from fedsim.samplers.power_of_choice import PowerOfChoice
from fedsim.samplers.seen import Records
from fedsim.samplers.uniform import Uniform
from fedsim.server.requests import Desk, PoolRequest

SYNC = {"kind": "synchronous", "cohort": 2}
GREEDY = {"explore": 0.0, "explore_min": 0.0}


def records(n, *, examples=10, availability=None, reports=(), expected_s=60.0):
    """Notes after one commit of `reports`: (client, mean square of the losses, duration)."""
    sizes, times_s = np.broadcast_to(examples, n), np.broadcast_to(expected_s, n)
    notes = Records(
        availability or Availability.always(n),
        lambda client: int(sizes[client]),
        lambda client: float(times_s[client]),
    )
    for client, square, duration_s in reports:
        notes.ask(client)
        notes.land(client, duration_s)
        notes.report(client, math.sqrt(square), square)
    if len(reports):
        notes.commit()
    return notes


def rng(*address):
    return stream(3, "test", *address)


def times_chosen(sampler, seen, n_idle, n, trials=2000):
    idle, counts = np.arange(n_idle), np.zeros(n_idle)
    for trial in range(trials):
        counts[sampler.choose(idle, n, rng(trial), seen)] += 1
    return counts / trials


# what the server has noted --------------------------------------------------------------------------


def test_notes_are_of_landings_and_commits():
    notes = records(3)
    notes.ask(1)
    notes.ask(2)
    notes.land(1, 40.0)
    before = notes.now(50.0)
    assert (before.asked.tolist(), before.landed.tolist()) == ([0, 1, 1], [0, 1, 0])
    assert before.duration_s[1] == 40.0
    assert np.isnan(before.loss).all()
    assert before.reported.sum() == 0

    notes.report(1, 2.0, 5.0)
    notes.commit()
    after = notes.now(50.0)
    assert (after.version, after.reported.tolist(), after.last_version.tolist()) == (1, [0, 1, 0], [0, 1, 0])
    assert (after.loss[1], after.square[1]) == (2.0, 5.0)
    assert after.gains == (pytest.approx(10 * math.sqrt(5.0)),)


def test_samplers_cannot_write_into_the_notes():
    seen = records(3).now(0.0)
    with pytest.raises(ValueError, match="read-only"):
        seen.loss[0] = 1.0
    with pytest.raises(AttributeError):
        seen.version = 3


def test_sizes_of_shards_are_asked_only_if_a_sampler_wants_them():
    notes = Records(Availability.always(3), lambda client: client // 0, lambda client: client / 0)
    Uniform().choose(np.arange(3), 2, rng(), notes.now(0.0))
    with pytest.raises(ZeroDivisionError):
        PowerOfChoice(candidates=2).choose(np.arange(3), 2, rng(), notes.now(0.0))


# the desk -----------------------------------------------------------------------------------------


class Served:
    """A desk over clients who are always there, and what it has granted, by name."""

    def __init__(self, n, sampler="uniform"):
        made = plan(SYNC, [1.0] * n, sampler={"kind": sampler})
        self.roster = Roster(made.population.availability)
        self.desk = Desk(made, self.roster, records(n))
        self.granted = {}

    def ask(self, name, n, among=None):
        self.desk.ask(PoolRequest(n, lambda chosen: self.granted.update({name: sorted(chosen)}), 0.0, among))


def test_requests_of_one_pool_are_served_in_their_order():
    """Two clients are busy, so the first request waits, and the smaller one behind it too."""
    served = Served(4)
    served.roster.reserve(np.array([0, 1]))
    served.ask("three", 3)
    served.ask("one", 1)
    served.desk.serve(0.0)
    assert served.granted == {}
    served.roster.release(0)
    served.desk.serve(1.0)
    assert set(served.granted) == {"three"}
    served.roster.release(1)
    served.desk.serve(2.0)
    assert served.granted["one"] == [1]


def test_requests_of_different_pools_do_not_wait_for_one_another():
    served, low, high = Served(6), np.array([0, 1, 2]), np.array([3, 4, 5])
    served.roster.reserve(np.array([0]))
    served.ask("all of the low", 3, low)
    served.ask("two of the high", 2, high)
    served.ask("one of the low", 1, low)
    served.desk.serve(0.0)
    assert set(served.granted) == {"two of the high"}
    assert set(served.granted["two of the high"]) <= {3, 4, 5}
    served.roster.release(0)
    served.desk.serve(1.0)
    assert served.granted["all of the low"] == [0, 1, 2]
    assert "one of the low" not in served.granted


def test_nobody_is_granted_twice_in_one_instant():
    served, mixed = Served(5), np.array([1, 2, 3])
    served.ask("everybody's", 2)
    served.ask("the pool's", 3, mixed)
    served.ask("the rest", 1)
    served.desk.serve(0.0)
    found = [client for chosen in served.granted.values() for client in chosen]
    assert len(found) == len(set(found))
    assert len(served.granted["everybody's"]) == 2


def test_a_pool_that_is_too_small_is_said_to_be():
    served = Served(6)
    served.roster.exclude(1)
    served.ask("two", 2, np.array([0, 1]))
    with pytest.raises(
        RunError, match=r"2 idle clients online at once were needed, at most 1 of 2 were there"
    ):
        served.desk.serve(0.0)


def test_held_clients_are_not_granted_until_they_are_free():
    served = Served(2)
    served.roster.reserve(np.array([1]))  # at work, so that there is something to wait for
    served.desk.hold(0)
    served.ask("one", 1)
    served.desk.serve(0.0)
    assert served.granted == {}
    served.desk.free([0])
    served.desk.serve(1.0)
    assert served.granted == {"one": [0]}


class Rarest(Component):
    """Ask those who were asked least: the example of `fedsim.samplers`."""

    kind: Literal["test_samplers:Rarest"] = "test_samplers:Rarest"

    def choose(self, idle, n, rng, seen):
        shuffled = rng.permutation(idle)
        return shuffled[np.argsort(seen.asked[shuffled], kind="stable")[:n]]


def test_a_sampler_of_one_s_own_is_one_class_by_import_path():
    _, run = run_of({"kind": "test_samplers:Rarest"}, [1.0] * 6, protocol={**SYNC, "cohort": 2}, commits=6)
    assert run.visits.client.value_counts().tolist() == [2] * 6


def test_the_documented_sampler_is_that_one():
    """Line by line, but for its name."""
    shown = fedsim.samplers.__doc__.split("return shuffled")[0].split("def choose")[1]
    assert [line.strip() for line in shown.splitlines() if line.strip()] == [
        "(self, idle, n, rng, seen):",
        "shuffled = rng.permutation(idle)",
    ]
    made = inspect.getsource(Rarest.choose)
    assert made.split("return")[1].strip() == fedsim.samplers.__doc__.split("return")[-1].strip()


# Oort ---------------------------------------------------------------------------------------------


def test_the_statistical_utility_by_hand():
    """n sqrt(mean loss^2): 10 * 3 = 30, 20 * 1 = 20, 40 * 1 = 40, from 0.999 * 20 up; ln 1 of the first round is 0."""
    notes = records(3, examples=[10, 20, 40], reports=[(0, 9.0, 1.0), (1, 1.0, 1.0), (2, 1.0, 1.0)])
    notes.version = 0  # R = 1
    assert Oort(clip=1.0).utility(np.arange(3), notes.now(0.0)) == pytest.approx(
        [10.02 / 20.02, 0.02 / 20.02, 1.0]
    )


def test_the_temporal_term_by_hand():
    """R = 5 and L = 1, 4, 4: sqrt(0.1 ln 5 / L) is added to the scaled utility."""
    notes = records(3, reports=[(0, 4.0, 1.0)])
    notes.commit()
    notes.commit()
    for client, square in ((1, 4.0), (2, 16.0)):
        notes.land(client, 1.0)
        notes.report(client, 0.0, square)
    notes.commit()

    found = Oort(clip=1.0).utility(np.arange(3), notes.now(0.0))

    first, later = math.sqrt(0.1 * math.log(5)), math.sqrt(0.1 * math.log(5) / 4)
    least = 0.02 / 20.02  # of 20, 20, 40
    assert found == pytest.approx([least + first, least + later, 1 + later])


def test_the_system_penalty_by_hand():
    """The preferred duration of 1, 2, 4, 8 s at the 25th percentile is 2 s: (2 / t)^2 beyond it."""
    notes = records(4, reports=[(c, 1.0, 2.0**c) for c in range(4)])
    found = Oort(alpha=2.0, pacer_percentile=25.0).speed(np.arange(4), notes.now(0.0))
    assert found == pytest.approx([1.0, 1.0, 0.25, 0.0625])


def test_no_duration_is_too_long_at_the_hundredth_percentile():
    notes = records(2, reports=[(0, 1.0, 1.0), (1, 1.0, 100.0)])
    assert Oort(pacer_percentile=100.0).speed(np.arange(2), notes.now(0.0)).tolist() == [1.0, 1.0]


def test_without_a_penalty_speed_has_no_effect():
    slow = records(6, reports=[(c, 1.0 + c, 10.0**c) for c in range(6)]).now(0.0)
    equal = records(6, reports=[(c, 1.0 + c, 7.0) for c in range(6)]).now(0.0)
    for trial in range(20):
        one, other = (Oort(alpha=0.0).choose(np.arange(6), 3, rng(trial), s) for s in (slow, equal))
        assert one.tolist() == other.tolist()
    assert not np.allclose(Oort().utility(np.arange(6), slow), Oort().utility(np.arange(6), equal))


def test_utilities_above_the_quantile_count_no_more():
    """Of 1, 2, 3, 100 the third counts for the fourth too, in a range of 100 - 0.999 (the authors do not clip it)."""
    notes = records(4, examples=1, reports=[(0, 1.0, 1.0), (1, 4.0, 1.0), (2, 9.0, 1.0), (3, 1e4, 1.0)])
    notes.version = 0
    assert Oort(clip=0.5).utility(np.arange(4), notes.now(0.0)) == pytest.approx(
        [0.001 / 99.001, 1.001 / 99.001, 2.001 / 99.001, 2.001 / 99.001]
    )


@given(
    sizes=st.lists(st.integers(1, 500), min_size=3, max_size=25),
    seed=st.integers(0, 999),
    percentile=st.sampled_from([10.0, 30.0, 95.0]),
)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_a_second_implementation(sizes, seed, percentile):
    """With as many commits as clients, so that every time stamp is another one."""
    draw, n = rng("oracle", seed), len(sizes)
    squares, durations = draw.exponential(4.0, n) + 0.01, draw.lognormal(3.0, 1.0, n)
    notes = records(n, examples=sizes)
    for client in range(n):
        notes.land(client, durations[client])
        notes.report(client, math.sqrt(squares[client]), squares[client])
        notes.commit()
    sampler = Oort(pacer_percentile=percentile, pacer_rounds=10_000)
    rewards = [n_k * math.sqrt(square) for n_k, square in zip(sizes, squares, strict=True)]
    at = oort.preferred(durations, percentile)
    expected = oort.scores(rewards, range(1, n + 1), durations, at, round_=n + 1)
    assert sampler.utility(np.arange(n), notes.now(0.0)) == pytest.approx(expected, rel=1e-9)


def test_explored_are_the_fast_and_the_large():
    """Algorithm 1, line 16: chances by size and speed, of the `explore_window` best; nobody was tried yet."""
    sizes, times_s = [10, 10, 40, 5, 80, 1], [20.0, 40.0, 30.0, 10.0, 300.0, 500.0]
    seen = records(6, examples=sizes, expected_s=times_s).now(0.0)
    sampler = Oort(explore=1.0, explore_min=1.0)
    expected = oort.first_chances(sizes, times_s, oort.preferred(times_s, 30), 1)
    assert expected[5] == 0  # the sixth best of five
    assert np.allclose(times_chosen(sampler, seen, 6, 1), expected, atol=0.045)
    assert np.allclose(times_chosen(Oort(explore=1.0, explore_by="chance"), seen, 6, 1), 1 / 6, atol=0.045)


def test_who_cannot_hold_the_training_is_explored_last():
    seen = records(4, expected_s=[math.inf, 30.0, math.inf, 40.0]).now(0.0)
    sampler = Oort(explore=1.0, explore_min=1.0)
    for trial in range(20):
        assert set(sampler.choose(np.arange(4), 2, rng(trial), seen).tolist()) == {1, 3}
    assert len(set(sampler.choose(np.arange(4), 4, rng(), seen).tolist())) == 4


def test_expected_durations_are_of_the_whole_visit_on_the_client_s_own_device():
    """Training of 10, 20 and 30 s and links that take no time to speak of: as Oort is told them in a run."""
    seen_s = {}

    class Spy(Oort):
        def choose(self, idle, n, draw, seen):
            seen_s.update(enumerate(seen.expected_s))
            return super().choose(idle, n, draw, seen)

    _, spied = run_of(Spy(), [10.0, 20.0, 30.0], commits=1)
    for visit in spied.visits[spied.visits.outcome == "landed"].itertuples():
        assert seen_s[visit.client] == pytest.approx(visit.landed_s - visit.dispatched_s)


def test_the_pacer_hears_of_exploited_clients_only():
    """The mean of examples sqrt(square) over those whom an earlier commit had taken; one that comes twice is new twice."""
    notes = records(3, examples=[10, 20, 30], reports=[(0, 4.0, 1.0), (1, 9.0, 1.0), (1, 1.0, 1.0)])
    assert notes.now(0.0).exploited_gains == (0.0,)
    for client, square in ((0, 1.0), (1, 4.0), (2, 100.0)):
        notes.report(client, 0.0, square)
    notes.commit()
    assert notes.now(0.0).exploited_gains == (0.0, pytest.approx((10 * 1 + 20 * 2) / 2))


def test_exploring_only_is_uniform_sampling_draw_by_draw():
    seen, all_new = records(30).now(0.0), Oort(explore=1.0, explore_min=1.0, explore_by="chance")
    for trial in range(20):
        idle = np.flatnonzero(rng("idle", trial).random(30) < 0.7)
        found = all_new.choose(idle, 5, rng(trial), seen)
        assert found.tolist() == Uniform().choose(idle, 5, rng(trial)).tolist()


def test_equal_utilities_are_equal_chances():
    seen = records(8, reports=[(c, 2.0, 3.0) for c in range(8)]).now(0.0)
    assert np.allclose(times_chosen(Oort(**GREEDY), seen, 8, 3), 3 / 8, atol=0.045)


def test_chances_are_in_proportion_to_utility_above_the_cut_off():
    """Scaled utilities 0, 1/4, 3/4, 1 and no temporal term; the best is 1, the bar 0.7: 3/4 and 1 remain."""
    notes = records(4, examples=1, reports=[(0, 0.0, 1.0), (1, 1.0, 1.0), (2, 9.0, 1.0), (3, 16.0, 1.0)])
    greedy = Oort(cut_off=0.7, clip=1.0, ucb=0.0, **GREEDY)
    assert np.allclose(times_chosen(greedy, notes.now(0.0), 4, 1), [0, 0, 3 / 7, 4 / 7], atol=0.045)


def test_the_cut_off_by_hand():
    utility = np.array([0.1, 1.0, 0.96, 0.94, 0.95])
    assert Oort(cut_off=0.95).eligible(utility, 1).tolist() == [False, True, True, False, True]
    assert Oort(cut_off=1.0).eligible(utility, 2).tolist() == [False, True, True, False, False]
    assert Oort(cut_off=0.0).eligible(utility, 1).all()


def test_all_clients_may_be_wanted():
    """The published code reads one client beyond the last one here."""
    seen = records(5, reports=[(c, 1.0 + c, 1.0) for c in range(5)]).now(0.0)
    assert sorted(Oort(**GREEDY).choose(np.arange(5), 5, rng(), seen)) == [0, 1, 2, 3, 4]


def test_with_too_few_tried_clients_the_rest_is_explored():
    seen = records(6, reports=[(2, 1.0, 1.0)]).now(0.0)
    assert Oort(**GREEDY).choose(np.arange(6), 4, rng(), seen)[0] == 2
    assert len(set(Oort(**GREEDY).choose(np.arange(6), 4, rng(), seen))) == 4


def test_clients_of_no_worth_are_asked_when_nobody_else_is_there():
    seen = records(4, reports=[(c, 0.0, 1.0) for c in range(3)] + [(3, 4.0, 1.0)]).now(0.0)
    found = Oort(ucb=0.0, cut_off=0.0, clip=1.0, **GREEDY).choose(np.arange(4), 3, rng(), seen)
    assert found[0] == 3
    assert len(set(found.tolist())) == 3


def test_the_share_of_oort_s_exploration_falls_to_its_floor():
    sampler = Oort(explore=0.8, explore_decay=0.5, explore_min=0.3)
    assert [sampler.epsilon(version) for version in range(3)] == [0.8, 0.4, 0.3]


def test_a_server_that_asks_one_by_one_explores_as_much():
    """A quarter of 1 client is 0 or 1 client, 1 on average in 4."""
    seen = records(4, reports=[(0, 1.0, 1.0), (1, 1.0, 1.0)]).now(0.0)
    one_by_one = times_chosen(Oort(explore=0.25, explore_decay=1.0), seen, 4, 1)
    assert np.allclose(one_by_one, [0.375, 0.375, 0.125, 0.125], atol=0.045)


@pytest.mark.parametrize(
    ("gains", "percentile"),
    [
        ([1, 1, 1], 30),  # not two windows yet
        ([1, 1, 1, 1], 35),  # flat: 2 against 2
        ([1, 1, 1, 1.1], 35),  # 2.1 is within a tenth
        ([1, 1, 1, 1.3], 30),
        ([1, 1, 7, 6], 25),  # 13 - 2 is more than five times 2
        ([1, 1, 1, 1, 1], 35),
        ([1, 1, 1, 1, 1, 1], 40),  # twice
    ],
)
def test_the_pacer_by_hand(gains, percentile):
    assert Oort(pacer_rounds=2).percentile(gains) == percentile


def test_the_pacer_stays_between_its_step_and_all():
    assert Oort(pacer_rounds=1, pacer_step=50.0).percentile([1.0] * 9) == 100.0
    assert Oort(pacer_rounds=1, pacer_step=20.0).percentile([10.0**k for k in range(9)]) == 20.0


@given(
    tried=st.sets(st.integers(0, 11)),
    n=st.integers(1, 12),
    explore=st.floats(0, 1),
    cut_off=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_known_n_different_idle_clients_are_chosen(tried, n, explore, cut_off, seed):
    draw = rng(seed)
    reports = [(c, float(draw.integers(0, 3)), float(draw.exponential())) for c in sorted(tried)]
    seen = records(14, examples=draw.integers(1, 9, 14), reports=reports).now(0.0)
    idle = np.sort(draw.choice(14, size=12, replace=False))
    found = Oort(explore=explore, explore_min=0.0, cut_off=cut_off).choose(idle, n, draw, seen)
    assert len(found) == len(set(found.tolist())) == n
    assert set(found.tolist()) <= set(idle.tolist())


def test_a_visit_in_flight_changes_nothing():
    reports = [(c, 1.0 + c, 1.0 + c) for c in range(6)]
    quiet, busy = records(9, reports=reports), records(9, reports=reports)
    for client in (2, 7, 8):
        busy.ask(client)
    for trial in range(20):
        one, other = (Oort().choose(np.arange(9), 4, rng(trial), notes.now(9.0)) for notes in (quiet, busy))
        assert one.tolist() == other.tolist()


# power of choice ------------------------------------------------------------------------------------


def test_candidates_are_drawn_by_their_share_of_the_examples():
    seen = records(4, examples=[10, 20, 30, 40]).now(0.0)
    assert np.allclose(
        times_chosen(PowerOfChoice(candidates=1), seen, 4, 1), [0.1, 0.2, 0.3, 0.4], atol=0.045
    )


def test_as_many_candidates_as_wanted_are_sampling_by_share():
    seen = records(9, examples=np.arange(1, 10)).now(0.0)
    found = PowerOfChoice(candidates=3).choose(np.arange(9), 3, rng(), seen)
    p = np.arange(1, 10) / 45
    assert found.tolist() == rng().choice(np.arange(9), 3, replace=False, p=p).tolist()


def test_the_largest_losses_are_kept():
    clients = np.array([5, 3, 8, 1])
    keep = PowerOfChoice().keep
    assert keep(clients, np.array([1.0, 4.0, 2.0, 3.0]), 2).tolist() == [3, 1]
    assert keep(clients, np.array([2.0, 2.0, 2.0, 1.0]), 2).tolist() == [5, 3]
    assert keep(clients, np.array([math.nan, 1.0, math.inf, 0.0]), 3).tolist() == [8, 3, 1]
    assert keep(clients[:1], np.array([1.0]), 3).tolist() == [5]
    assert keep(clients[:0], np.array([]), 3).tolist() == []


def test_there_are_never_more_candidates_than_idle_clients():
    seen = records(9).now(0.0)
    assert len(PowerOfChoice(candidates=20).choose(np.arange(6), 2, rng(), seen)) == 6
    assert len(PowerOfChoice(candidates=2).choose(np.arange(6), 4, rng(), seen)) == 4


OF_ALL = {"kind": "power-of-choice", "candidates": 20}


def run_of(sampler, train_s, *, protocol=SYNC, commits=3, **rest):
    prepared = plan(protocol, train_s, sampler=sampler, budget={"commits": commits}, **rest)
    run = simulate(prepared)
    assert verify(run) == []
    return prepared, run


def test_with_all_as_candidates_the_clients_of_largest_loss_are_asked():
    """f_k(0) = |c_k|^2 / 2 on the quadratic task: the two farthest optima."""
    prepared, run = run_of(OF_ALL, [1.0] * 6, commits=1)
    losses = 0.5 * np.sum(prepared.task.optima**2, axis=1)
    asked = run.visits[run.visits.outcome == "landed"].client
    assert set(asked) == set(np.argsort(losses)[-2:])
    assert set(run.visits[run.visits.outcome == "polled"].client) == set(range(6))


def test_what_a_poll_costs_by_hand():
    """Training: 16 examples. A poll: all 32, at a third of the FLOPs (no backward pass), so 2/3 of the time.

    8 numbers come down, 4 bytes go up; 2 W above idle for as long as it computes. Who is then chosen has
    the model already.
    """
    _, run = run_of(OF_ALL, [3.0, 6.0, 9.0, 12.0], commits=1)
    v = run.visits
    polls, trained = v[v.outcome == "polled"].sort_values("client"), v[v.outcome == "landed"]

    assert polls.down_bytes.tolist() == polls.serialized_down_bytes.tolist() == [32] * 4
    assert polls.up_bytes.tolist() == polls.serialized_up_bytes.tolist() == [4] * 4
    assert polls.tokens.tolist() == [512] * 4
    assert polls.ended_s.tolist() == pytest.approx([2.0, 4.0, 6.0, 8.0], abs=1e-4)
    assert polls.joules.tolist() == pytest.approx([4.0, 8.0, 12.0, 16.0], abs=1e-3)
    assert polls.flops.tolist() == [512 * (2 * 8 + 4 * 16 * 8 * 0.5)] * 4

    assert trained.dispatched_s.tolist() == pytest.approx([8.0, 8.0], abs=1e-4)  # all have answered
    assert trained.down_bytes.tolist() == [0, 0]
    assert trained.up_bytes.tolist() == [32, 32]
    assert run.info.totals.up_bytes == 4 * 4 + 2 * 32
    assert run.info.totals.down_bytes == 4 * 32
    assert run.info.totals.joules == pytest.approx(40.0 + 2 * sum((trained.client + 1) * 3.0), abs=1e-3)


def test_a_poll_cannot_be_trained_again(tmp_path):
    simulate(plan_of_preset(), out=tmp_path / "run", report=False)
    run = load(tmp_path / "run")
    polls, trained = (run.visits[run.visits.outcome == name].iloc[-1] for name in ("polled", "landed"))
    assert replay(tmp_path / "run", int(trained.client), int(trained.visit)).update.loss == trained.loss
    with pytest.raises(RunFolderError, match="answered a poll: nothing was trained"):
        replay(tmp_path / "run", int(polls.client), int(polls.visit))


def plan_of_preset():
    return Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": 8},
            "task": {"kind": "quadratic"},
            "local": {"optimizer": "sgd", "lr": 0.1},
            "protocol": SYNC,
            "sampler": {"kind": "power-of-choice", "candidates": 4},
            "wire": {"dtype": "int4", "down_dtype": "int8", "top_k": 0.5, "error_feedback": True},
            "runtime": {"executor": "inline"},
            "budget": {"commits": 4},
        }
    )


def test_polls_are_neither_lost_nor_in_vain():
    from fedsim.cli.verdict import verdict
    from fedsim.records import views

    _, run = run_of(OF_ALL, [3.0, 6.0, 9.0, 12.0], commits=2)
    assert views.work(run).loc["polled", "visits"] == 8
    assert views.wasted_work(run).empty
    assert "did not land" not in verdict(run)


def test_as_many_candidates_as_wanted_need_no_poll():
    _, run = run_of({"kind": "power-of-choice", "candidates": 2}, [1.0] * 5)
    assert set(run.visits.outcome) == {"landed"}


def test_a_client_that_goes_offline_does_not_answer():
    """Client 3's window closes in its poll; client 0's after its answer, before the choice."""
    online = [[(0, 5.0)], *([[(0, 1e6)]] * 2), [(0, 3.0)]]
    _, run = run_of(OF_ALL, [3.0, 6.0, 9.0, 12.0], commits=1, online=online)
    by_client = {client: rows.outcome.tolist() for client, rows in run.visits.groupby("client")}
    assert by_client == {0: ["polled"], 1: ["polled", "landed"], 2: ["polled", "landed"], 3: ["offline"]}
    trained = run.visits[run.visits.outcome == "landed"]
    assert trained.dispatched_s.min() == pytest.approx(33.0, abs=1e-4)  # the server notices after 30 s


def test_while_all_wait_for_a_choice_nobody_is_missed():
    """One slot polls everybody; the others wait for whom it lets go."""
    buffered = {"kind": "buffered", "concurrency": 3, "buffer": 1}
    _, run = run_of(OF_ALL, [1.0, 2.0, 4.0], protocol=buffered, commits=6)
    first = run.visits.sort_values("order").outcome.tolist()[:3]
    assert first == ["polled"] * 3


def test_with_nobody_left_others_are_polled():
    """All but one are gone when the last has answered; then the next windows open."""
    online = [[(0, 1.0), (100, 1e6)], [(0, 1.0), (100, 1e6)], [(0, 1.0), (100, 1e6)]]
    _, run = run_of(OF_ALL, [3.0] * 3, commits=1, online=online)
    assert run.visits.outcome.value_counts().to_dict() == {"offline": 3, "polled": 3, "landed": 2}
    assert run.visits[run.visits.outcome == "polled"].dispatched_s.min() >= 100.0


def test_a_device_that_could_not_train_says_so_when_it_is_polled():
    _, run = run_of(OF_ALL, [1.0] * 4, memory=[1e12, 1e12, 1e12, 1.0])
    assert run.visits[run.visits.client == 3].outcome.tolist() == ["memory"]


def test_an_asynchronous_server_polls_too():
    buffered = {"kind": "buffered", "concurrency": 3, "buffer": 2}
    _, run = run_of({"kind": "power-of-choice", "candidates": 3}, [1.0, 2.0, 3.0] * 3, protocol=buffered)
    assert set(run.visits.outcome) <= {"landed", "polled", "in_flight"}
    again = run.visits[(run.visits.outcome == "landed") & (run.visits.down_bytes == 0)]
    assert len(again) > 0


# losses of a language model ---------------------------------------------------------------------------


@pytest.mark.parametrize("training", ["sequential", "fused"])
def test_what_a_language_model_s_client_reports(llama, text_folder, training):
    """One step on the whole shard: its loss is that of the shard, and the square is its square; two steps: the means."""
    from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
    from fedsim.jobs import Job, TaskContext
    from fedsim.metrics.sums import add_sums
    from fedsim.tasks.language import Language

    local, twice = (LocalConfig(lr=0.01, epochs=epochs, batch=1000) for epochs in (1, 2))
    context = TaskContext(4, 0, LoraConfig(r=2), local, NumericsConfig(training=training))
    task = Language(model=llama, data=str(text_folder), sequence=16).build(context)
    start, k = task.initial(), 1

    (update,) = task.train([Job(k, 0, start, local, 0)])
    shard = task.metrics(add_sums([task.score(start, probe) for probe in task.probes("shard", client=k)]))
    assert update.loss == pytest.approx(shard["loss"], rel=1e-5)
    assert update.square == pytest.approx(update.loss**2, rel=1e-6)

    (moved,) = task.train([Job(k, 0, update.end, local, 0)])
    (both,) = task.train([Job(k, 0, start, twice, 0)])
    assert both.loss == pytest.approx((update.loss + moved.loss) / 2, rel=1e-5)
    assert both.square == pytest.approx((update.square + moved.square) / 2, rel=1e-5)
    assert sum(task.probes("shard", client=k)[-1].stop for k in range(4)) == sum(map(task.examples, range(4)))


# least available ------------------------------------------------------------------------------------


def seen_at(now_s, per_client, period_s=np.inf):
    return records(len(per_client), availability=windows(per_client, period_s)).now(now_s)


def test_those_who_leave_first_are_asked_first():
    """At 50 s the clients stay for 40, 5, 100 and 20 s more."""
    seen = seen_at(50.0, [[(0, 90)], [(10, 55)], [(50, 150)], [(0, 70)]])
    assert seen.remaining_s(np.arange(4)).tolist() == [40.0, 5.0, 100.0, 20.0]
    assert LeastAvailable().choose(np.arange(4), 3, rng(), seen).tolist() == [1, 3, 0]


def test_those_who_cannot_make_it_come_last_the_longest_first():
    seen = seen_at(50.0, [[(0, 90)], [(10, 55)], [(50, 150)], [(0, 70)]])
    assert LeastAvailable(at_least_s=30.0).choose(np.arange(4), 4, rng(), seen).tolist() == [0, 2, 3, 1]


def test_a_window_over_the_end_of_the_period_counts_whole():
    """Until 120 s of the next day's clock, seen at 90 s of a day of 100 s."""
    seen = seen_at(90.0, [[(80, 120)], [(50, 95)]], period_s=100.0)
    assert seen.remaining_s(np.array([0, 1])).tolist() == [30.0, 5.0]


def test_clients_who_are_always_there_are_chosen_by_chance():
    seen = records(6).now(0.0)
    assert np.allclose(times_chosen(LeastAvailable(), seen, 6, 2, 3000), 1 / 3, atol=0.045)


def test_a_run_asks_the_least_available():
    """Visits of 1 s, windows until 25.5, 50 and 100 s, and nobody is asked who has less than 1.5 s left."""
    one, sampler = {"kind": "synchronous", "cohort": 1}, {"kind": "least-available", "at_least_s": 1.5}
    _, run = run_of(sampler, [1.0] * 3, protocol=one, online=[[(0, 100)], [(0, 50)], [(0, 25.5)]], commits=60)
    assert run.visits.client.tolist() == [2] * 24 + [1] * 25 + [0] * 11


def test_without_that_the_last_visit_of_a_window_is_lost():
    one = {"kind": "synchronous", "cohort": 1}
    online = [[(0, 100)], [(0, 2.5)]]
    _, run = run_of({"kind": "least-available"}, [1.0] * 2, protocol=one, online=online)
    assert run.visits.client.tolist() == [1, 1, 1, 0]
    assert run.visits.outcome.tolist() == ["landed", "landed", "offline", "landed"]


# in a run -------------------------------------------------------------------------------------------


class Spy(Component):
    """Uniform, and notes what it was shown."""

    kind: Literal["test_samplers:Spy"] = "test_samplers:Spy"
    notes: ClassVar[list] = []

    def choose(self, idle, n, rng, seen=None):
        Spy.notes.append(
            (seen.now_s, seen.version, seen.asked.copy(), seen.landed.copy(), seen.duration_s.copy(),
             seen.reported.copy(), seen.loss.copy())
        )  # fmt: skip
        return Uniform().choose(idle, n, rng)


def test_samplers_see_landed_information_only():
    """Every view is recomputed from the tables of the run."""
    Spy.notes.clear()
    buffered = {"kind": "buffered", "concurrency": 4, "buffer": 2}
    _, run = run_of(
        {"kind": "test_samplers:Spy"}, [1.0, 1.7, 2.9, 4.3, 7.1, 11.0], protocol=buffered, commits=8
    )
    v = run.visits
    assert len(Spy.notes) > 10
    for now_s, version, asked, landed, duration_s, reported, loss in Spy.notes:
        home = v[v.landed_s <= now_s]
        taken = v[(v.committed_version > 0) & (v.committed_version <= version)]
        assert landed.tolist() == home.client.value_counts().reindex(range(6), fill_value=0).tolist()
        assert reported.tolist() == taken.client.value_counts().reindex(range(6), fill_value=0).tolist()
        assert (asked >= landed).all()
        for client, rows in home.groupby("client"):
            last = rows.sort_values("visit").iloc[-1]
            assert duration_s[client] == last.landed_s - last.dispatched_s
        for client, rows in taken.groupby("client"):
            assert loss[client] == rows.sort_values("visit").iloc[-1].loss
        assert np.isnan(loss[reported == 0]).all()


@pytest.mark.parametrize("protocol", [SYNC, {"kind": "buffered", "concurrency": 3, "buffer": 2}])
@pytest.mark.parametrize("kind", ["oort", "power-of-choice", "least-available"])
def test_two_runs_with_one_seed_ask_the_same_clients(kind, protocol):
    (_, one), (_, other) = (run_of({"kind": kind}, [1.0, 2.0, 3.0] * 3, protocol=protocol) for _ in range(2))
    assert one.visits.equals(other.visits)
    assert one.scores.equals(other.scores)


def test_oort_prefers_the_fast_of_equal_clients():
    """Nothing to learn from anybody more than from the others: the fast half is asked again."""
    protocol = {"kind": "synchronous", "cohort": 2}
    sampler = {"kind": "oort", "explore": 1.0, "explore_decay": 0.5, "explore_min": 0.0}
    _, run = run_of(sampler, [1.0] * 4 + [50.0] * 4, protocol=protocol, commits=30, task={"kind": "quadratic", "spread": 0.0})  # fmt: skip
    late = run.visits[run.visits.version >= 10]
    assert (late.client < 4).mean() > 0.9


@pytest.mark.parametrize("kind", ["oort", "power-of-choice"])
def test_a_timeline_alone_is_refused_where_losses_decide_it(kind):
    with pytest.raises(ExperimentError, match=kind):
        simulate(plan(SYNC, [1.0] * 5, sampler={"kind": kind}), timeline_only=True)


def test_the_least_available_have_a_timeline():
    asked = plan(SYNC, [1.0] * 5, sampler={"kind": "least-available"})
    timeline, trained = simulate(asked, timeline_only=True), simulate(asked)
    assert timeline.visits.client.tolist() == trained.visits.client.tolist()
