"""What becomes of a visit whose device goes away: lost, paused, or cut to the steps it had made."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from worlds import experiment, plan, simulated
from worlds.cases import tried

from fedsim.checks.blocks import check
from fedsim.errors import ExperimentError
from fedsim.executors.inline import Inline
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

ONE = {"kind": "synchronous", "cohort": 1}
NEAR = 1e-4
TWICE = [[(0.0, 4.0), (100.0, 200.0)]]


def population(policy, n=1, **more):
    return {"population": {"preset": "homogeneous", "clients": n, "on_close": policy, **more}}


def one(policy, train_s=10.0, online=TWICE, protocol=ONE, **blocks):
    blocks = {"budget": {"commits": 1}, **population(policy), **blocks}
    run = simulated(protocol, [train_s], online=online, **blocks)
    assert verify(run) == []
    return run.visits.iloc[0], run


def test_a_lost_visit_says_that_its_window_closed():
    visit, _ = one("lost")

    assert (visit.outcome, visit.ended_s, visit.away, visit.paused_s) == ("offline", 4.0, "window", 0.0)


def test_a_paused_visit_goes_on_with_the_next_window_and_is_charged_for_its_work_only():
    visit, run = one("pause")

    assert (visit.outcome, visit.away, visit.work_share) == ("landed", "window", 1.0)
    assert visit.landed_s == pytest.approx(106.0, abs=NEAR)
    assert visit.paused_s == pytest.approx(96.0, abs=NEAR)
    assert visit.joules == pytest.approx(20.0, abs=1e-3)
    assert len(run.visits) == 1  # the server did not think it lost


def test_pauses_cost_neither_flops_nor_bytes():
    whole, _ = one("pause", online=None)
    paused, _ = one("pause")

    for name in ("flops", "down_bytes", "up_bytes", "tokens"):
        assert paused[name] == whole[name]


def test_the_deadline_of_a_round_holds_for_a_paused_visit_too():
    visit, _ = one("pause", protocol={**ONE, "deadline_s": 50.0}, budget={"time_s": 60.0})

    assert (visit.outcome, visit.ended_s) == ("late", 50.0)
    assert visit.paused_s == 46.0
    assert visit.joules == pytest.approx(8.0, abs=1e-3)


def test_a_run_may_end_in_the_middle_of_a_pause():
    visit, _ = one("pause", budget={"time_s": 60.0})

    assert (visit.outcome, visit.ended_s, visit.paused_s) == ("in_flight", 60.0, 56.0)
    assert visit.joules == pytest.approx(8.0, abs=1e-3)


@pytest.mark.parametrize("policy", ["pause", "partial"])
def test_a_device_that_never_comes_back_is_lost(policy):
    visit, _ = one(policy, online=[[(0.0, 6.0)]], budget={"time_s": 30.0})

    assert (visit.outcome, visit.ended_s) == ("offline", 6.0)


def test_a_transfer_pauses_and_all_its_bytes_arrive_once():
    """32 bytes each way at 8 bytes/s: 4 s down, 10 s of training, 4 s up."""
    online = [[(0.0, 2.0), (50.0, 63.0), (100.0, 200.0)]]
    visit, _ = one("pause", online=online, rate=8.0)

    assert (visit.downloaded_s, visit.trained_s) == pytest.approx((52.0, 62.0), abs=NEAR)
    assert visit.landed_s == pytest.approx(103.0, abs=NEAR)
    assert visit.paused_s == pytest.approx(48.0 + 37.0, abs=NEAR)
    assert (visit.down_bytes, visit.up_bytes) == (32, 32)


def test_a_transfer_that_pauses_leaves_its_share_of_the_server_s_link_to_the_others():
    """Uploads of 32 bytes from 1 s on share 8 bytes/s; client 0 is away from 3 s, with 24 left, to 100 s."""
    run = simulated(
        {**ONE, "cohort": 2},
        [1.0, 1.0],
        online=[[(0.0, 3.0), (100.0, 200.0)], [(0.0, 200.0)]],
        network={"sharing": "max-min", "server_up_mbps": 1e9, "server_down_mbps": 64e-6},
        budget={"commits": 1},
        **population("pause", n=2),
    )

    assert verify(run) == []
    assert run.visits.sort_values("client").landed_s.tolist() == pytest.approx([103.0, 6.0], abs=NEAR)
    assert run.visits.up_bytes.tolist() == [32, 32]


def test_the_radio_draws_nothing_while_the_device_is_away():
    online = [[(0.0, 2.0), (50.0, 63.0), (100.0, 200.0)]]
    visit, _ = one("pause", online=online, rate=8.0, radio_w=0.5)

    assert visit.joules == pytest.approx(0.5 * 8.0 + 2.0 * 10.0, abs=1e-3)


def test_a_window_that_ends_where_the_next_begins_changes_nothing():
    whole, _ = one("pause", online=[[(0.0, 200.0)]])
    cut, _ = one("pause", online=[[(0.0, 3.0), (3.0, 7.0), (7.0, 200.0)]])

    assert cut.landed_s == pytest.approx(whole.landed_s, rel=1e-12)
    for name in ("flops", "joules", "gross_joules", "paused_s", "up_bytes"):
        assert cut[name] == pytest.approx(whole[name], rel=1e-12)


@given(
    lengths=st.lists(st.tuples(st.floats(0.01, 5.0), st.floats(0.01, 5.0)), min_size=1, max_size=12),
    train_s=st.floats(0.1, 20.0),
)
@settings(max_examples=tried(25), deadline=None)
def test_a_paused_training_ends_when_its_windows_add_up_to_it(lengths, train_s):
    cuts = np.cumsum(np.array(lengths).ravel())
    online = [[(float(a), float(b)) for a, b in zip([0.0, *cuts[1::2]], [*cuts[::2], 1e9], strict=True)]]
    left = train_s
    for start, stop in online[0]:
        assume(abs(left - (stop - start)) > 1e-3)  # transfers take microseconds
        if left <= stop - start:
            break
        left -= stop - start
    visit, _ = one("pause", train_s=train_s, online=online)

    assert visit.landed_s == pytest.approx(start + left, abs=1e-3)
    assert visit.landed_s - visit.paused_s == pytest.approx(train_s, abs=1e-3)
    assert visit.joules == pytest.approx(2.0 * train_s, rel=1e-4)


# partial work -----------------------------------------------------------------------------------

FIVE_STEPS = {"local": {"optimizer": "sgd", "lr": 0.1, "steps": 5}}


def test_partial_work_is_the_last_whole_step_and_is_uploaded_when_the_device_is_back():
    """Steps of 2 s; the window closes in the third."""
    visit, _ = one("partial", online=[[(0.0, 5.0), (100.0, 200.0)]], **FIVE_STEPS)

    assert (visit.outcome, visit.away, visit.work_share) == ("landed", "window", 0.4)
    assert visit.trained_s == 5.0
    assert visit.landed_s == pytest.approx(100.0, abs=NEAR)
    assert visit.paused_s == pytest.approx(95.0, abs=NEAR)
    assert visit.joules == pytest.approx(10.0, abs=1e-3)  # the half step that was in vain is charged


def test_partial_work_of_no_whole_step_is_lost():
    visit, _ = one("partial", online=[[(0.0, 1.9), (100.0, 200.0)]], **FIVE_STEPS)

    assert (visit.outcome, visit.work_share) == ("offline", 1.0)


def test_a_download_that_is_cut_has_no_partial_work():
    visit, _ = one("partial", online=[[(0.0, 2.0), (50.0, 200.0)]], rate=8.0, **FIVE_STEPS)

    assert (visit.outcome, visit.ended_s) == ("offline", 2.0)


def test_steps_that_are_whole_but_for_rounding_are_all_kept():
    visit, _ = one("partial", train_s=10.0, online=[[(0.0, 4.000001), (9.0, 99.0)]], **FIVE_STEPS)

    assert visit.work_share == 0.4


def scores(policy, online, steps, **blocks):
    local = {"optimizer": "sgd", "lr": 0.1, "steps": steps}
    made = plan(
        ONE, [2.0 * steps], online=online, local=local, budget={"commits": 1}, **population(policy), **blocks
    )
    run = simulate(made, Inline())
    assert verify(run) == []
    return run.scores[run.scores.version == 1].value.tolist()


def test_what_is_trained_is_the_first_steps_of_the_visit_and_no_more():
    assert scores("partial", [[(0.0, 5.0), (100.0, 200.0)]], steps=5) == scores("lost", None, steps=2)


def both(policy="partial", timeline_only=False, seed=0):
    """Client 0 lands every 3 s and has client 1's training done in passing; client 1 is cut at 5 s."""
    made = plan(
        {"kind": "buffered", "concurrency": 2, "buffer": 1},
        [3.0, 10.0],
        online=[[(0.0, 50.0)], [(0.0, 5.0), (20.0, 50.0)]],
        budget={"commits": 8},
        seed=seed,
        **population(policy, n=2),
        **FIVE_STEPS,
    )
    run = simulate(made, None if timeline_only else Inline(), timeline_only=timeline_only)
    assert verify(run) == []
    return run


def test_a_visit_that_was_trained_in_full_with_another_commit_is_trained_again_with_fewer_steps():
    """Five steps of client 0 and two of client 1, by the closed form of the task."""
    run = both()
    optima = plan(ONE, [1.0, 1.0], **FIVE_STEPS).task.optima
    cut = run.visits[run.visits.client == 1].iloc[0]
    assert (cut.work_share, cut.committed_version > 1, cut.staleness > 0) == (0.4, True, True)
    x, sent = np.zeros(8), {0: np.zeros(8)}
    for row in run.visits[run.visits.committed_version > 0].sort_values("committed_version").itertuples():
        start = sent[row.version]
        steps = 2 if row.order == cut.order else 5
        end = optima[row.client] + 0.9**steps * (start - optima[row.client])
        x = x + (1 + row.staleness) ** -0.5 * (end - start)  # FedBuff's discount, K = 1
        sent[row.committed_version] = x
    loss = 0.5 * np.mean(np.sum((x - optima) ** 2, axis=1))
    last = run.scores[(run.scores.version == 8) & (run.scores.metric == "loss")].value.item()
    assert last == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_visit_that_is_computed_twice_counts_once_in_what_was_saved(seed):
    run, timeline = both(seed=seed), both(seed=seed, timeline_only=True)

    assert run.visits[run.visits.work_share < 1].computed.any()
    assert run.info.saved_share == 1 - run.visits.computed.mean()
    assert 0 <= run.info.saved_share < 1
    assert run.info.totals.handed_over == timeline.info.totals.handed_over == run.visits.computed.sum()


@pytest.mark.parametrize("policy", ["lost", "pause", "partial"])
def test_the_schedule_is_the_same_to_the_bit_without_training(policy):
    trained, timeline = both(policy), both(policy, timeline_only=True)

    same = [name for name in trained.visits.columns if name not in ("loss", "loss_square", "computed")]
    assert trained.visits[same].equals(timeline.visits[same])


def test_a_late_visit_that_finishes_in_vain_may_be_cut_too_and_trains_nobody():
    """Its round is over at 4 s, its window closes at 5 s, and it uploads from 20 s on."""
    made = plan(
        {**ONE, "deadline_s": 4.0, "late": "finish"},
        [10.0],
        online=[[(0.0, 5.0), (20.0, 24.5)]],
        budget={"time_s": 24.0},
        **population("partial"),
        **FIVE_STEPS,
    )
    run = simulate(made, Inline())

    assert verify(run) == []
    first = run.visits.iloc[0]
    assert (first.outcome, first.work_share, first.computed) == ("late", 0.4, False)
    assert first.ended_s == pytest.approx(20.0, abs=NEAR)


def test_a_second_training_beside_the_first_cannot_be_cut():
    with pytest.raises(ExperimentError, match=r"population.on_close: cannot cut .* ditto"):
        check(experiment(ONE, 1, personal={"kind": "ditto"}, **population("partial")))


# heat and time ----------------------------------------------------------------------------------


def test_a_device_cools_while_its_training_pauses():
    """5 W on 6 K/W heats for 60 s, cools for 200 s, and goes on from there: by the closed forms."""
    thermal = {"ambient_c": 20, "cap_c": 40, "throttled_speed": 0.5, "tiers": ["phone-mid"]}
    made = plan(
        ONE,
        [100.0],
        online=[[(0.0, 60.0), (260.0, 9e9)]],
        compute={"thermal": thermal},
        budget={"commits": 1},
        **population("pause"),
    )
    made.population.profiles[:] = [
        replace(p, tier="phone-mid", train_w=5.0) for p in made.population.profiles
    ]
    (visit,) = simulate(made, timeline_only=True).visits.itertuples()

    heated_k = 30 * (1 - math.exp(-60 / 90))
    cooled_k = heated_k * math.exp(-200 / 135)
    onset_s = 90 * math.log((30 - cooled_k) / 10)
    assert onset_s > 40  # so the rest goes at full speed, and without the pause it would not
    assert visit.landed_s == pytest.approx(300.0, abs=NEAR)
    straight = 90 * math.log(30 / 10)
    assert straight < 100
