"""Views: frames in, frames out, on the run of `small_runs`, whose table is drawn there."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from worlds.small_runs import INFO, small, without_rows

from fedsim.errors import RunFolderError
from fedsim.records import gains as gain_views
from fedsim.records import tables, views


def test_a_score_comes_with_what_the_run_had_cost_by_its_version():
    expected = pd.DataFrame(
        {
            "version": [0, 1, 2],
            "time_s": [0.0, 4.0, 16.0],
            "up_bytes": [0, 40, 120],
            "down_bytes": [0, 100, 420],
            "joules": [0.0, 1.0, 4.75],
            "value": [40.0, 20.0, 25.0],
        }
    )

    assert_frame_equal(views.scored(small(), "perplexity"), expected)


def test_a_curve_is_the_metric_against_the_axis_asked_for():
    found = views.curve(small(), "bits", x="up_bytes")

    assert_frame_equal(found, pd.DataFrame({"up_bytes": [0, 40, 120], "value": [5.0, 4.0, 4.5]}))
    assert views.curve(small(), "perplexity", split="valid")["value"].tolist() == [41.0, 21.0, 26.0]


def test_a_metric_that_was_not_scored_is_an_error_that_names_the_nearest():
    with pytest.raises(RunFolderError, match="did you mean 'perplexity'"):
        views.curve(small(), "perplexty")
    with pytest.raises(RunFolderError, match="clients"):
        views.curve(small(), "perplexity", split="clients")


def test_the_headline_is_the_first_metric_scored():
    assert views.headline(small()) == "perplexity"
    assert views.headline(without_rows("scores")) is None


@pytest.mark.parametrize(
    ("budget", "version", "value"),
    [
        ({}, 2, 25.0),
        ({"time_s": 15.9}, 1, 20.0),
        ({"time_s": 16.0}, 2, 25.0),
        ({"joules": 1.0}, 1, 20.0),
        ({"time_s": 1000.0, "up_bytes": 100}, 1, 20.0),  # bytes end it before the run does
        ({"time_s": math.inf}, 2, 25.0),  # no budget at all
    ],
)
def test_a_budget_shows_the_last_version_it_pays_for(budget, version, value):
    found = views.at(small(), **budget)
    row = found[(found["split"] == "test") & (found["metric"] == "perplexity")].iloc[0]

    assert (row["version"], row["value"]) == (version, value)
    assert len(found) == 3  # every metric of every split
    alone = views.at(small(), only=("test", "perplexity"), **budget)
    assert alone.iloc[0].equals(row)
    assert len(alone) == 1
    assert views.at(small(), only=("test", "charm"), **budget).empty


@pytest.mark.parametrize(
    ("budget", "server_version"),
    [
        ({"up_bytes": 39}, 0),  # nothing was committed
        ({"time_s": 10.0, "up_bytes": 0}, 0),
        ({"time_s": 30.1}, 2),  # the run ended at 30 s
        ({"time_s": 31.0, "up_bytes": 171, "joules": 1e9}, 2),  # and used up none of these
    ],
)
def test_a_budget_of_which_the_run_says_nothing_is_nan(budget, server_version):
    found = views.at(small(), **budget)

    assert found["value"].isna().all()
    assert set(found["server_version"]) == {server_version}
    assert len(found) == 3


def test_a_budget_says_which_version_the_server_had_if_that_was_not_scored():
    run = small(scores=small().scores.query("version != 1"))
    found = views.at(run, time_s=15.0).iloc[0]

    assert math.isnan(found["value"])  # only version 0 was scored: no result of 15 s
    assert found["server_version"] == 1
    late = views.at(small(scores=small().scores.query("version != 2")), time_s=16.0).iloc[0]
    assert (late["version"], late["value"], late["server_version"]) == (1, 20.0, 2)


def test_on_a_grid_the_version_is_the_one_that_the_server_had_then():
    by_time = views.on_grid(small(), "perplexity", every_s=4.0)
    by_bytes = views.on_grid(small(), "perplexity", every_bytes=40)

    assert by_time["time_s"].tolist() == [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0]  # until 30
    assert by_time["version"].tolist() == [0, 1, 1, 1, 2, 2, 2, 2]
    assert by_time["value"].tolist() == [40.0, 20.0, 20.0, 20.0, 25.0, 25.0, 25.0, 25.0]
    assert by_bytes["up_bytes"].tolist() == [0, 40, 80, 120, 160]  # of 170
    assert by_bytes["version"].tolist() == [0, 1, 1, 2, 2]


def test_a_version_on_a_grid_that_was_not_scored_is_nan():
    run = small(scores=small().scores.query("version != 1"))
    found = views.on_grid(run, "perplexity", every_s=8.0)["value"]

    assert found.isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize("grid", [{}, {"every_s": 1.0, "every_bytes": 1.0}])
def test_a_grid_is_of_one_kind(grid):
    with pytest.raises(RunFolderError, match="one grid"):
        views.on_grid(small(), "perplexity", **grid)


def test_on_a_grid_a_target_is_reached_at_a_point_of_it():
    between = views.time_to_target([small()], "perplexity", 25.0, every_s=5.0).iloc[0]
    never_seen = views.time_to_target([small()], "perplexity", 20.0, every_s=30.0).iloc[0]

    assert (between["time_s"], between["version"], between["up_bytes"]) == (5.0, 1, 40)
    assert not never_seen["reached"]  # at 30 s the server has version 2


@pytest.mark.parametrize("every_s", [0.5, 3.0, 4.0, 5.0, 7.0, 11.0, 16.0, 17.0, 31.0])
@pytest.mark.parametrize("target", [40.0, 25.0, 20.0, 10.0])
def test_a_target_on_a_grid_is_the_first_point_that_reaches_it(every_s, target):
    found = views.time_to_target([small()], "perplexity", target, every_s=every_s).iloc[0]
    points = views.on_grid(small(), "perplexity", every_s=every_s)
    reached = points.loc[points["value"] <= target, "time_s"]

    assert found["reached"] == bool(len(reached))
    assert not len(reached) or found["time_s"] == reached.iloc[0]


def test_a_grid_that_is_much_too_fine_is_not_listed_and_costs_a_target_nothing():
    with pytest.raises(RunFolderError, match="coarser"):
        views.on_grid(small(), "perplexity", every_s=1e-9)
    found = views.time_to_target([small()], "perplexity", 20.0, every_s=1e-9)["time_s"].iloc[0]
    assert found == pytest.approx(4.0)


def test_the_first_score_that_reaches_the_target_counts():
    found = views.time_to_target([small(), small()], "perplexity", 25.0)

    assert found["run"].tolist() == ["small", "small"]
    assert found["time_s"].tolist() == [4.0, 4.0]
    assert found["up_bytes"].tolist() == [40.0, 40.0]
    assert found["value"].tolist() == [20.0, 20.0]


def test_a_target_that_was_never_reached_is_nan():
    row = views.time_to_target([small()], "perplexity", 19.9).iloc[0]

    assert row["run"] == "small"
    assert row.drop(["run", "reached", "watched_s"]).isna().all()
    assert (row["reached"], row["watched_s"]) == (False, 30.0)


def test_the_common_target_is_the_worst_of_the_bests():
    other = small().scores.replace({"value": {20.0: 30.0, 25.0: 31.0}})

    assert views.common_target([small(), small(scores=other)], "perplexity") == 30.0


def test_of_an_accuracy_more_is_better():
    scores = small().scores.replace({"metric": {"perplexity": "accuracy"}})
    run = small(scores=scores)

    assert views.common_target([run], "accuracy") == 40.0
    assert views.time_to_target([run], "accuracy", 30.0)["version"].tolist() == [0.0]


def test_tiers_are_listed_from_slow_to_fast():
    assert views.tiers(small()) == ["slow", "fast"]


def test_losses_are_counted_by_tier_and_cause():
    found = views.losses_by_cause(small())

    assert found.index.tolist() == ["slow", "fast"]
    assert found.columns.tolist() == ["landed", "offline", "memory", "late"]
    assert found.to_numpy().tolist() == [[1, 1, 1, 1], [3, 0, 0, 0]]


def test_participation_counts_each_client():
    found = views.participation(small()).set_index("client")

    assert found["visits"].tolist() == [1, 2, 1, 3]
    assert found["landed"].tolist() == [1, 0, 0, 3]
    assert found["committed"].tolist() == [1, 0, 0, 2]


def test_participation_by_tier_compares_shares_of_clients_and_of_updates():
    found = views.participation_by_tier(small())

    assert found.loc["slow"].tolist() == [3, 2, 0.75, pytest.approx(1 / 3)]
    assert found.loc["fast"].tolist() == [1, 0, 0.25, pytest.approx(2 / 3)]


def test_staleness_counts_committed_updates_only():
    expected = pd.DataFrame({"staleness": [0, 1], "updates": [2, 1]})

    assert_frame_equal(views.staleness(small()), expected)


def test_phases_are_means_over_landed_visits():
    found = views.phase_seconds(small())

    assert found.index.tolist() == ["slow", "fast"]
    assert found.loc["slow"].tolist() == [1, 2.0, 10.0, 4.0]
    assert found.loc["fast"].tolist() == [3, 1.0, 2.0, 1.0]


def test_work_is_split_by_what_became_of_it_and_loses_nothing():
    found = views.work(small())

    assert found.index.tolist() == ["committed", "uncommitted", "offline", "memory", "late"]
    assert found["visits"].tolist() == [3, 1, 1, 1, 1]
    assert found["seconds"].tolist() == [24.0, 4.0, 5.0, 0.5, 14.0]
    assert found["up_bytes"].tolist() == [120, 40, 0, 0, 10]
    assert found["joules"].tolist() == [4.0, 1.0, 0.5, 0.25, 2.25]
    assert found["down_bytes"].sum() == small().visits["down_bytes"].sum()


def test_wasted_work_is_everything_that_no_commit_used():
    found = views.wasted_work(small())

    assert found.index.tolist() == ["uncommitted", "offline", "memory", "late"]
    assert found.attrs["share"]["seconds"] == 23.5 / 47.5
    assert found.attrs["share"]["up_bytes"] == 50 / 170
    assert found.attrs["share"]["joules"] == 0.5


def test_gains_are_positive_when_the_personal_copy_is_better():
    row = gain_views.gains(small()).iloc[0]

    assert (row["kind"], row["metric"], row["clients"]) == ("fine-tune", "perplexity", 4)
    assert row["mean"] == 1.0
    assert row["median"] == 1.0
    assert (row["worst"], row["best"]) == (-1.0, 3.0)
    assert row["q10"] == pytest.approx(-0.7)  # between -1 and 0 at 0.3 of the way
    assert row["share_worse"] == 0.25  # no change is not worse


def test_gains_by_part_tell_who_trained_from_who_was_held_out():
    found = gain_views.gains_by_part(small()).set_index("part")

    assert found["clients"].to_dict() == {"trained": 2, "asked in vain": 1, "held out": 1}
    assert found["mean"].to_dict() == {"trained": 2.5, "asked in vain": -1.0, "held out": 0.0}
    assert found["share_worse"].to_dict() == {"trained": 0.0, "asked in vain": 1.0, "held out": 0.0}


def test_gains_by_tier_are_in_the_order_of_speed():
    found = gain_views.gains_by_tier(small())

    assert found.index.tolist() == ["slow", "fast"]
    assert found["mean"].tolist() == [pytest.approx(1 / 3), 3.0]
    assert found["share_worse"].tolist() == [pytest.approx(1 / 3), 0.0]


def test_models_are_compared_on_the_same_held_out_parts():
    # shared 10 10 10 10, own 8 11 10 7, alone 12 9 14 7: own is best for 0, 2 (a tie) and 3 (a tie)
    found = gain_views.models(small()).set_index("model")

    assert found["mean"].to_dict() == {"shared": 10.0, "own": 9.0, "alone": 10.5}
    assert found["median"].to_dict() == {"shared": 10.0, "own": 9.0, "alone": 10.5}
    assert found["share_best"].to_dict() == {"shared": 0.25, "own": 0.75, "alone": 0.5}
    nobody_alone = small(personal=small().personal.assign(metric_local=math.nan))
    assert gain_views.models(nobody_alone)["model"].tolist() == ["shared", "own"]


def test_the_uplink_is_compared_with_full_models_for_the_same_uploads():
    row = views.uplink_reduction(small()).iloc[0]

    assert row["uploads"] == 4
    assert row["adapter_bytes"] == 160
    assert row["full_bytes"] == 4 * 1000 * 4
    assert row["reduction"] == 0.99
    assert row["lost_up_bytes"] == 10
    assert row["serialized_up_bytes"] == 20


def test_gpt2_with_rank_8_on_c_attn_saves_99_76_percent():
    # GPT-2: 124,439,808 parameters; A and B of 12 layers: 12 * 8 * (768 + 2304) = 294,912
    visits = small().visits.query("outcome == 'landed'").assign(up_bytes=4 * 12 * 8 * (768 + 2304))
    sizes = {"full_model_bytes": 4 * 124_439_808, "adapter_params": 294_912, "params": 124_439_808}
    charged = replace(INFO.charged, **sizes)
    row = views.uplink_reduction(small(visits=visits, info=replace(INFO, name="gpt2", charged=charged))).iloc[
        0
    ]

    assert row["adapter_bytes"] == 4 * 1_179_648
    assert round(100 * row["reduction"], 2) == 99.76


def test_without_the_charged_model_the_reduction_is_an_error():
    with pytest.raises(RunFolderError, match="charged"):
        views.uplink_reduction(small(info=replace(INFO, charged=None)))


def test_every_view_of_an_empty_run_is_an_empty_frame_with_its_columns():
    empty = without_rows("visits", "commits", "scores", "personal")
    full = small()

    for view in (
        *(views.staleness, views.phase_seconds, views.work, views.wasted_work, views.at),
        *(gain_views.gains, gain_views.gains_by_part, gain_views.gains_by_tier, gain_views.models),
    ):
        assert len(view(empty)) == 0
        assert list(view(empty).columns) == list(view(full).columns), view.__name__
    assert views.losses_by_cause(empty).shape == (2, 0)
    assert views.participation(empty)["visits"].tolist() == [0, 0, 0, 0]
    assert views.participation_by_tier(empty)["update_share"].isna().all()
    assert math.isnan(views.uplink_reduction(empty)["reduction"].iloc[0])


def test_views_do_not_change_the_run():
    run, before = small(), small()
    for view in (
        views.losses_by_cause,
        views.participation_by_tier,
        views.wasted_work,
        gain_views.gains,
        views.at,
    ):
        view(run)

    for name in tables.TABLES:
        assert_frame_equal(getattr(run, name), getattr(before, name))
