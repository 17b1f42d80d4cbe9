"""What happens when: visits, rounds, buffers and the order inside one instant, drawn by hand.

Transfers take a microsecond each, so times are compared to 1e-4 s unless an exact tie is the point.
"""

import math

import pytest
from worlds import plan, simulated
from worlds.by_hand import NEAR, times

from fedsim.clock.estimate import estimate
from fedsim.cost.formulas import train_flops
from fedsim.errors import RunError
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

SYNC = {"kind": "synchronous", "cohort": 3}


def outcome(run, client):
    return run.visits[run.visits.client == client].outcome.tolist()


def test_a_round_lasts_as_long_as_its_slowest_client():
    run = simulated(SYNC, [1.0, 2.0, 5.0], budget={"commits": 3})

    assert [5.0, 10.0, 15.0] == times(run)
    assert run.commits.updates.tolist() == [3, 3, 3]
    assert run.commits.max_staleness.tolist() == [0, 0, 0]


def test_a_deadline_ends_the_round_without_the_stragglers():
    run = simulated({**SYNC, "deadline_s": 3.0}, [1.0, 2.0, 50.0], budget={"commits": 2})

    assert [3.0, 6.0] == times(run)
    assert run.commits.updates.tolist() == [2, 2]
    assert outcome(run, 2) == ["late", "late"]
    late = run.visits[run.visits.client == 2].iloc[0]
    assert late.ended_s == pytest.approx(3.0, abs=NEAR)
    assert late.joules == pytest.approx(2.0 * 3.0, abs=1e-3)  # 2 W above idle for the 3 s it really trained


def test_an_update_that_lands_exactly_at_the_deadline_counts():
    exact = simulated(SYNC, [1.0, 1.0, 1.0], budget={"commits": 1}).visits.landed_s.max()

    run = simulated({**SYNC, "deadline_s": float(exact)}, [1.0, 1.0, 1.0], budget={"commits": 1})
    short = simulated({**SYNC, "deadline_s": float(exact) - 1e-7}, [1.0, 1.0, 1.0], budget={"time_s": 1.5})

    assert run.commits.updates.tolist() == [3]
    assert run.commits.time_s.tolist() == [exact]
    assert len(short.commits) == 0
    assert set(short.visits.outcome) == {"late", "in_flight"}


def test_over_selection_takes_the_first_k_and_stops_the_rest():
    run = simulated(
        {"kind": "synchronous", "cohort": 2, "over_select": 2.0}, [1.0, 2.0, 3.0, 4.0], budget={"commits": 1}
    )

    assert [2.0] == times(run)
    assert sorted(run.visits[run.visits.outcome == "landed"].client) == [0, 1]
    assert sorted(run.visits[run.visits.outcome == "surplus"].client) == [2, 3]
    assert run.visits.set_index("client").loc[3, "ended_s"] == pytest.approx(2.0, abs=NEAR)


def test_landings_of_one_instant_beyond_the_cohort_are_surplus():
    run = simulated(
        {"kind": "synchronous", "cohort": 2, "over_select": 1.5}, [1.0, 1.0, 1.0], budget={"commits": 1}
    )

    assert run.commits.updates.tolist() == [2]
    assert run.visits.sort_values("order").outcome.tolist() == ["landed", "landed", "surplus"]


def test_late_devices_that_finish_are_busy_and_charged_until_their_own_end():
    protocol = {"kind": "synchronous", "cohort": 2, "deadline_s": 3.0, "late": "finish"}
    run = simulated(protocol, [1.0, 8.0, 1.0], budget={"time_s": 12.0}, seed=3)

    slow = run.visits[run.visits.client == 1].iloc[0]
    assert slow.outcome == "late"
    assert slow.ended_s - slow.dispatched_s == pytest.approx(8.0, abs=NEAR)
    assert slow.joules == pytest.approx(16.0, abs=1e-3)
    assert slow.up_bytes == slow.serialized_up_bytes
    others = run.visits[
        (run.visits.dispatched_s > slow.dispatched_s) & (run.visits.dispatched_s < slow.ended_s)
    ]
    assert 1 not in others.client.tolist()


def test_a_round_with_too_few_reports_is_dropped_and_its_updates_rejected():
    protocol = {"kind": "synchronous", "cohort": 3, "deadline_s": 2.0, "min_reports": 3}
    run = simulated(protocol, [1.0, 1.0, 5.0], budget={"time_s": 7.0}, gated=False)

    assert len(run.commits) == 0
    assert run.visits.outcome.value_counts().to_dict() == {"rejected": 6, "late": 3, "in_flight": 3}


def test_a_closing_window_ends_a_visit_and_the_server_learns_it_later():
    run = simulated(
        {"kind": "synchronous", "cohort": 1},
        [10.0],
        online=[[(0.0, 4.0), (100.0, 200.0)]],
        budget={"commits": 1},
    )

    first, second = run.visits.iloc[0], run.visits.iloc[1]
    assert (first.outcome, first.ended_s) == ("offline", 4.0)
    assert first.joules == pytest.approx(8.0, abs=1e-3)
    assert first.flops == pytest.approx(0.4 * second.flops, rel=1e-4)
    assert math.isnan(first.trained_s)
    assert second.dispatched_s == 100.0
    assert [110.0] == times(run)


def test_the_server_asks_again_only_after_it_has_noticed_that_the_client_is_gone():
    run = simulated(
        {"kind": "synchronous", "cohort": 1},
        [10.0],
        online=[[(0.0, 4.0), (5.0, 500.0)]],
        budget={"commits": 1},
    )

    assert run.visits.dispatched_s.tolist() == [0.0, 34.0]  # gone at 4 s, noticed 30 s later


def test_a_transfer_that_completes_as_the_window_closes_counts():
    landing_s = simulated(SYNC, [1.0, 1.0, 1.0], budget={"commits": 1}).visits.landed_s.max()

    run = simulated(SYNC, [1.0] * 3, online=[[(0.0, float(landing_s))]] * 3, budget={"commits": 1})
    cut = simulated(SYNC, [1.0] * 3, online=[[(0.0, float(landing_s) - 1e-7)]] * 3, budget={"time_s": 9})

    assert run.visits.outcome.tolist() == ["landed"] * 3
    assert cut.visits.outcome.tolist() == ["offline"] * 3


def test_what_does_not_fit_into_memory_is_refused_after_the_download_and_costs_no_training():
    run = simulated(SYNC, [1.0] * 3, memory=[1e12, 1e12, 1.0], budget={"commits": 1})

    refused = run.visits[run.visits.client == 2].iloc[0]
    assert refused.outcome == "memory"
    assert refused.down_bytes == refused.serialized_down_bytes > 0
    assert (refused.flops, refused.joules, refused.up_bytes, refused.serialized_up_bytes) == (0.0, 0.0, 0, 0)
    assert 0 < refused.ended_s - refused.downloaded_s < 0.01
    assert run.commits.updates.tolist() == [2]


def test_a_client_that_refused_for_lack_of_memory_is_not_asked_again():
    run = simulated(
        {"kind": "buffered", "concurrency": 2, "buffer": 1},
        [1.0] * 4,
        memory=[1e12, 1.0, 1e12, 1.0],
        budget={"commits": 30},
    )

    assert sorted(run.visits[run.visits.outcome == "memory"].client) == [1, 3]


def test_a_server_that_meets_only_refusals_says_so():
    with pytest.raises(RunError, match="2 have too little memory"):
        simulated(
            {"kind": "buffered", "concurrency": 1, "buffer": 1}, [1.0, 1.0], memory=[1.0, 1.0], gated=False
        )


def test_a_buffer_commits_when_full_and_staleness_counts_the_commits_in_between():
    """Two slots, buffer 1: A lands every 1 s, B every 2.5 s and has missed two of A's commits."""
    run = simulated({"kind": "buffered", "concurrency": 2, "buffer": 1}, [1.0, 2.5], budget={"commits": 4})

    assert [1.0, 2.0, 2.5, 3.0] == times(run)
    landed = run.visits[run.visits.committed_version > 0].sort_values("committed_version")
    assert landed.client.tolist() == [0, 0, 1, 0]
    assert landed.staleness.tolist() == [0, 0, 2, 1]


def test_landings_of_one_instant_fill_buffers_before_anyone_is_dispatched_again():
    run = simulated({"kind": "buffered", "concurrency": 4, "buffer": 2}, [1.0] * 4, budget={"commits": 4})

    assert [1.0, 1.0, 2.0, 2.0] == times(run)
    assert run.commits.mean_staleness.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert run.visits[run.visits.dispatched_s > 0].version.tolist() == [2, 2, 2, 2]


def test_a_fast_client_fills_a_buffer_alone_unless_it_may_be_there_only_once():
    train_s = [1.0, 100.0, 100.0, 100.0]
    greedy = simulated({"kind": "buffered", "concurrency": 4, "buffer": 3}, train_s, budget={"commits": 1})
    fair = simulated(
        {"kind": "buffered", "concurrency": 4, "buffer": 3, "once_per_buffer": True},
        train_s,
        budget={"commits": 2},
    )

    assert [3.0] == times(greedy)
    assert greedy.visits[greedy.visits.committed_version == 1].client.tolist() == [0, 0, 0]
    assert [100.0, 200.0] == times(fair)
    for version in (1, 2):
        assert fair.visits[fair.visits.committed_version == version].client.is_unique
    assert verify(fair) == []


def test_a_buffer_that_cannot_be_filled_by_different_clients_any_more_is_an_error():
    protocol = {"kind": "buffered", "concurrency": 3, "buffer": 3, "once_per_buffer": True}

    with pytest.raises(RunError, match="1 have too little memory"):
        simulated(protocol, [1.0] * 3, memory=[1e12, 1e12, 1.0], budget={"commits": 2})


def test_a_wait_whose_end_rounds_to_just_before_the_window_goes_on():
    """gone + (start - gone) is one ulp short of start for these numbers."""
    gone_s, start_s = 0.9068171279807309, 3011.6641061244086
    run = simulated(
        {"kind": "synchronous", "cohort": 1},
        [10.0],
        online=[[(0.0, gone_s), (start_s, 1e9)]],
        budget={"commits": 1},
    )

    assert run.visits.outcome.tolist() == ["offline", "landed"]
    assert run.visits.dispatched_s.iloc[1] == pytest.approx(start_s)


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"congestion": "loss-based", "loss": 0.05},
        {"server_up_mbps": 0.04, "server_down_mbps": 0.02, "sharing": "private"},
        {"model": "size-over-rate"},
        {"model": "size-over-rate", "server_up_mbps": 0.04},
    ],
)
def test_a_visit_takes_as_long_and_costs_as_much_as_its_estimate_says(network):
    unlimited = {"server_up_mbps": 1e12, "server_down_mbps": 1e12, **network}
    made = plan(
        SYNC, [1.0, 2.0, 4.0], rate=1e4, rtt_s=0.08, radio_w=0.5, budget={"commits": 1}, network=unlimited
    )
    run = simulate(made, timeline_only=True)

    for row in run.visits.itertuples():
        work, config = made.work(row.client), made.experiment.network
        expected = estimate(made.population.profile(row.client), work, row.dispatched_s, network=config)
        assert expected.fits
        assert expected.lands
        assert row.downloaded_s - row.dispatched_s == pytest.approx(expected.download_s)
        assert row.trained_s - row.downloaded_s == pytest.approx(expected.train_s)
        assert row.landed_s - row.trained_s == pytest.approx(expected.upload_s)
        assert row.joules == pytest.approx(expected.joules)
    cut = estimate(made.population.profile(0), made.work(0), 0.0, until_s=0.5)
    assert cut.fits
    assert not cut.lands


def test_the_run_stops_at_the_horizon_and_accounts_what_is_under_way():
    run = simulated(SYNC, [1.0, 2.0, 10.0], budget={"time_s": 4.0})

    under_way = run.visits[run.visits.client == 2].iloc[0]
    assert under_way.outcome == "in_flight"
    assert under_way.ended_s == 4.0
    assert under_way.joules == pytest.approx(8.0, abs=1e-3)
    assert outcome(run, 0) == ["landed"]  # landed, never committed: its round is still open
    assert run.visits.committed_version.max() == -1
    assert run.info.end_time_s == 4.0


def test_what_lands_as_the_budget_ends_counts_and_nobody_is_asked_any_more():
    probe = simulated(SYNC, [1.0] * 3, budget={"commits": 1})
    instant = float(probe.commits.time_s.iloc[0])

    run = simulated(SYNC, [1.0] * 3, budget={"time_s": instant})
    short = simulated(SYNC, [1.0] * 3, budget={"time_s": instant - 1e-7})

    assert (len(run.commits), len(run.visits), run.info.end_time_s) == (1, 3, instant)
    assert len(short.commits) == 0
    assert set(short.visits.outcome) == {"in_flight"}


def test_a_budget_of_uploaded_bytes_ends_the_run():
    one = simulated(SYNC, [1.0] * 3, budget={"commits": 1})
    payload = int(one.visits.up_bytes.iloc[0])

    run = simulated(SYNC, [1.0] * 3, budget={"up_bytes": 7 * payload})

    assert len(run.commits) == 3  # the seventh update lands in the third round; its whole instant counts
    assert run.info.totals.up_bytes == run.visits.up_bytes.sum() == 9 * payload


def test_an_upload_that_is_stopped_by_the_commit_does_not_cost_the_round_its_commit():
    run = simulated(
        {"kind": "synchronous", "cohort": 2, "over_select": 1.5},
        [1.0, 1.0, 1.2],
        rate=100.0,
        budget={"up_bytes": 65},
    )

    assert run.commits.updates.tolist() == [2]


def test_nobody_to_ask_is_an_error_that_says_who_was_there():
    with pytest.raises(RunError, match=r"2 idle clients online at once were needed, at most 1 of 2"):
        simulated(
            {"kind": "synchronous", "cohort": 2},
            [1.0, 1.0],
            online=[[(0.0, 9.0)], [(20.0, 30.0)]],
            gated=False,
        )


def test_waiting_longer_than_the_stall_limit_is_an_error():
    never_both = [[(float(t), t + 1.0) for t in range(0, 9000, 10)], [(8000.5, 8000.6)]]

    with pytest.raises(RunError, match="nobody to ask"):
        simulated(
            {"kind": "synchronous", "cohort": 2},
            [1.0, 1.0],
            online=never_both,
            runtime={"executor": "inline", "stall_s": 1000.0},
        )


def test_a_run_without_a_horizon_that_never_commits_is_an_error_that_says_how_visits_ended():
    with pytest.raises(RunError, match=r"no commit in 500 s.*late"):
        simulated(
            {**SYNC, "deadline_s": 0.5},
            [1.0, 1.0, 1.0],
            budget={"commits": 1},
            runtime={"executor": "inline", "stall_s": 500.0},
            gated=False,
        )


def test_the_backbone_is_downloaded_once_where_the_network_says_so():
    run = simulated(SYNC, [1.0] * 3, budget={"commits": 2}, network={"backbone": "first_visit"})
    again = simulated(SYNC, [1.0] * 3, budget={"commits": 2})

    first, second = run.visits[run.visits.visit == 0], run.visits[run.visits.visit == 1]
    assert (first.down_bytes.to_numpy() > second.down_bytes.to_numpy()).all()
    assert second.down_bytes.tolist() == again.visits[again.visits.visit == 1].down_bytes.tolist()


def test_flops_and_seconds_agree_with_the_cost_model():
    made = plan(SYNC, [1.0, 2.0, 4.0], budget={"commits": 1})
    run = simulate(made, timeline_only=True)

    expected = train_flops(made.shape, made.task.tokens(0, made.experiment.local))
    assert run.visits.flops.tolist() == [expected] * 3


@pytest.mark.parametrize(
    ("protocol", "online"),
    [
        ({"kind": "synchronous", "cohort": 4, "over_select": 1.5, "deadline_s": 6.0}, None),
        ({"kind": "synchronous", "cohort": 4, "over_select": 1.5, "deadline_s": 6.0, "late": "finish"}, None),
        (
            {"kind": "buffered", "concurrency": 5, "buffer": 3},
            [[(k * 1.0, k + 7.5), (k + 40.0, 1e4)] for k in range(8)],
        ),
    ],
)
def test_every_run_passes_its_own_audit(protocol, online):
    train_s = [0.5, 1.0, 2.0, 3.0, 4.5, 5.0, 8.0, 13.0]
    run = simulated(
        protocol,
        train_s,
        online=online,
        memory=[1e12] * 7 + [1.0],
        rate=1e6,
        rtt_s=0.05,
        budget={"time_s": 120.0},
    )

    assert len(run.commits) > 3
    assert verify(run) == []
