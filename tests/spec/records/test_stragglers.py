"""Stragglers: whom commits waited for, fairness and Little's law, on runs counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import simulated
from worlds.small_runs import INFO, small, without_rows

from fedsim.records import stragglers
from fedsim.report import straggler_sections


def test_a_commit_waits_for_the_last_of_its_updates_and_its_time_is_cut_along_that_visit():
    found = stragglers.waits(small())

    assert found["client"].tolist() == [3, 0]
    assert found["tier"].tolist() == ["fast", "slow"]
    # commit 1 at 4 s: client 3 from its dispatch on; commit 2 at 16 s: of client 0 only what came after 4 s
    assert found[list(stragglers.PHASES)].to_numpy().tolist() == [[0, 1, 2, 1, 0], [0, 0, 8, 4, 0]]


def test_whom_the_server_waited_for_adds_up_to_the_virtual_time():
    found = stragglers.waited_by_tier(small())

    assert found["total_s"].to_dict() == {"slow": 12.0, "fast": 4.0}
    assert found["share"].to_dict() == {"slow": 0.75, "fast": 0.25}
    assert found["commits"].to_dict() == {"slow": 1, "fast": 1}
    assert found.attrs["after_s"] == 14.0


def test_a_deadline_is_a_wait_after_landing_and_a_late_start_a_wait_before_asking():
    run = small()
    commits = run.commits.copy()
    commits["time_s"] = [6.0, 16.0]
    visits = run.visits.copy()
    visits.loc[visits["order"] == 0, ["dispatched_s", "downloaded_s"]] = [1.5, 2.0]

    found = stragglers.waits(small(commits=commits, visits=visits))

    assert found.loc[0, list(stragglers.PHASES)].tolist() == [1.5, 0.5, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("counts", "gini", "top"),
    [
        ([5, 5, 5, 5], 0.0, 0.3),
        ([0, 0, 0, 4], 0.75, 1.0),
        ([1, 3], 0.25, 0.45),  # the larger half has 3/4; 30 % of two clients are 0.6 of it
        (list(range(1, 11)), 0.3, 27 / 55),
    ],
)
def test_gini_and_the_share_of_the_top_by_hand(counts, gini, top):
    assert stragglers.gini(counts) == pytest.approx(gini)
    assert stragglers.top_share(counts) == pytest.approx(top)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any))
def test_gini_is_the_mean_difference_of_all_pairs(counts):
    x = np.array(counts, dtype=float)

    pairs = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())

    assert stragglers.gini(counts) == pytest.approx(pairs)
    assert stragglers.gini(counts) == pytest.approx(stragglers.gini(counts[::-1]))


def test_nobody_who_did_anything_is_neither_fair_nor_unfair():
    assert math.isnan(stragglers.gini([0, 0]))
    assert math.isnan(stragglers.top_share([0, 0]))


def test_fairness_counts_clients_without_any_part():
    found = stragglers.fairness(small())

    # committed: client 0 once, client 3 twice, 1 and 2 never
    assert found.loc["committed", "zero_share"] == 0.5
    assert found.loc["committed", "mean"] == 0.75
    assert found.loc["committed", "gini"] == pytest.approx((2 * 4 - 5) * 2 / (4 * 3) + (2 * 3 - 5) / (4 * 3))
    assert found.loc["visits", "zero_share"] == 0.0


def test_the_lorenz_curve_starts_at_nothing_ends_at_all_and_bends_as_gini_says():
    curve = stragglers.lorenz(small())

    assert curve["committed"].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1])
    area = float(np.trapezoid(curve["committed"], curve["clients"]))
    assert 1 - 2 * area == pytest.approx(stragglers.fairness(small()).loc["committed", "gini"])


def test_little_s_law_by_hand_rate_times_time_in_flight_is_the_number_in_flight():
    found = stragglers.little(small())

    # all seven visits of 30 s ended: 4 + 16 + 5 + 4 + 0.5 + 4 + 14 seconds
    assert found.loc["visit", ["departures_per_s", "mean_s"]].tolist() == pytest.approx([7 / 30, 47.5 / 7])
    assert found.loc["visit", ["mean_number", "product"]].tolist() == pytest.approx([47.5 / 30, 47.5 / 30])
    # uploads: 1 + 4 + 1 + 1 seconds, and the late one's 2
    assert found.loc["upload", "mean_s"] == pytest.approx(9 / 5)


def test_little_holds_in_a_long_asynchronous_run():
    run = simulated(
        {"kind": "buffered", "concurrency": 4, "buffer": 2}, [3.0, 5.0, 7.0, 11.0], budget={"time_s": 1e4}
    )

    found = stragglers.little(run)

    assert found.loc["visit", "mean_number"] == pytest.approx(
        4.0, rel=1e-3
    )  # every slot is busy all the time
    assert found.loc["visit", "relative_gap"] < 3e-3


def test_little_sees_a_run_that_is_too_short_for_its_visits():
    run = simulated(
        {"kind": "buffered", "concurrency": 4, "buffer": 1}, [1.0, 90.0, 90.0, 90.0], budget={"time_s": 80}
    )

    found = stragglers.little(run)

    # the three slow ones never leave: 4 under way at a time, 1 by the law
    assert found.loc["visit", "mean_number"] == pytest.approx(4.0, rel=0.05)
    assert found.loc["visit", "product"] == pytest.approx(1.0, rel=0.05)


def test_the_report_says_whom_the_run_waited_for():
    section = straggler_sections.waiting(small())

    assert "75.0 %" in section.text[0]
    assert "waiting for slow" in section.text[0]
    assert section.tables[0].rows[0][:3] == ("slow", "1", "75.0 %")


def test_the_report_says_how_even_participation_was_and_that_the_queues_add_up():
    section = straggler_sections.fairness(small())

    assert "50.0 % of the clients gave none" in section.text[0]
    assert "Little's law" in section.text[1]


@pytest.mark.parametrize("missing", ["visits", "commits"])
def test_a_run_without_rows_has_nothing_to_wait_for(missing):
    run = without_rows(missing)
    assert straggler_sections.waiting(run).figure is None
    assert straggler_sections.fairness(run).text


def gone():
    """The small run, in which client 1 is lost to its window, and two landed visits met something."""
    visits = small().visits
    visits["away"] = ["", "battery", "window", "", "", "battery", "window"]
    visits["paused_s"] = [0.0, 30.0, 0.0, 0.0, 0.0, 12.0, 3.0]
    visits["work_share"] = [1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 1.0]
    return small(visits=visits)


def test_what_devices_that_went_away_cost_by_cause():
    found = stragglers.away(gone())

    assert found.index.tolist() == ["window", "battery"]
    assert found.loc["window"].tolist() == [2, 1, 0, 3.0, 0.5]
    assert found.loc["battery"].tolist() == [2, 0, 1, 42.0, 0.0]


def test_the_report_says_why_devices_went_away():
    section = straggler_sections.waiting(gone())

    assert "In 4 visits (57.1 %) the device went away, mostly because its window closed." in section.text[1]
    assert "waited 45 s in all" in section.text[1]
    assert [row[0] for row in section.tables[1].rows] == ["its window closed", "its battery was low"]
    assert len(straggler_sections.waiting(small()).tables) == 1


def test_the_report_says_how_much_of_their_time_watched_devices_were_away():
    run = small(info=replace(INFO, away_share={"window": 0.2, "battery": 0.125}))
    (_, said) = straggler_sections.waiting(run).text

    assert said == (
        "Of the devices' time, 32.5 % went by away: 20.0 % because its window closed and 12.5 % because its "
        "battery was low."
    )
