"""Runs beside each other: by configuration, in pairs of equal seeds, targets that some never reach; all by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from pandas.testing import assert_frame_equal
from worlds.small_runs import EXPERIMENT, INFO, small, without_rows

import fedsim
from fedsim import views
from fedsim.config.experiment import Experiment
from fedsim.records import comparisons
from fedsim.records.statistics import mean_interval


def run_of(seed=0, by=0.0, end_s=30.0, run=None, **blocks):
    """The small run under other settings, its scores after version 0 worse by a number."""
    run = run or small()
    scores = run.scores.copy()
    scores.loc[scores["version"] > 0, "value"] += by
    plain = Experiment.model_validate({**EXPERIMENT.plain(), "seed": seed, **blocks}).plain()
    info = replace(INFO, seed=seed, end_time_s=end_s)
    return replace(run, experiment=plain, info=info, scores=scores)


SYNC = {"protocol": {"kind": "synchronous", "cohort": 3}}


def test_a_configuration_is_all_but_seeds_name_place_targets_and_what_changes_last_bits():
    runs = [
        run_of(),
        run_of(1),
        run_of(seeds={"training": 3}),
        run_of(name="other"),
        run_of(runtime={"executor": "inline"}),
        run_of(evaluate={"targets": [20.0]}),
        run_of(**SYNC),
        run_of(2, **SYNC),
        run_of(lora={"r": 4}),
        run_of(numerics={"client_batch": 3, "tokens_at_once": 99}),
        run_of(numerics={"dtype": "bfloat16"}),
        run_of(3, numerics={"dtype": "bfloat16", "client_batch": 2}),
    ]

    assert views.configurations(runs) == [0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 3, 3]


def test_the_seeds_of_a_run_are_three_and_those_of_an_old_run_one():
    old = {name: block for name, block in run_of(4).experiment.items() if name != "seeds"}

    assert views.seeds_of(run_of(4, seeds={"data": 0})) == (4, 0, 4)
    assert views.seeds_of(replace(run_of(4), experiment=old)) == (4, 4, 4)


def test_a_difference_is_the_mean_over_pairs_of_equal_seeds():
    shifts = {0: 1.0, 1: 2.0, 2: 6.0}
    found = views.paired_values(
        [run_of(seed, by) for seed, by in shifts.items()],
        [run_of(seed, **SYNC) for seed in (2, 1, 0)],  # in another order
        "perplexity",
        time_s=10.0,
    )
    row = views.paired_difference(
        [run_of(seed, by) for seed, by in shifts.items()],
        [run_of(seed, **SYNC) for seed in (2, 1, 0)],
        "perplexity",
        time_s=10.0,
    ).iloc[0]
    expected = mean_interval([1.0, 2.0, 6.0])

    assert found["value"].tolist() == [21.0, 22.0, 26.0]
    assert found["difference"].tolist() == [1.0, 2.0, 6.0]
    assert (row["pairs"], row["missing"], row["unpaired"]) == (3, 0, 0)
    assert (row["mean"], row["low"], row["high"]) == (3.0, expected.low, expected.high)


def test_pairing_takes_out_what_seeds_share():
    """Seeds that differ by ten and a difference of one: pairs show it, means of three would not."""
    row = views.paired_difference(
        [run_of(seed, 10.0 * seed + 1.0 + 0.01 * seed) for seed in range(3)],
        [run_of(seed, 10.0 * seed, **SYNC) for seed in range(3)],
        "perplexity",
    ).iloc[0]

    assert row["mean"] == pytest.approx(1.01)
    assert row["low"] > 0.9


def test_seeds_without_a_partner_are_counted_and_not_used():
    row = views.paired_difference(
        [run_of(0, 1.0), run_of(1, 5.0)], [run_of(0), run_of(7)], "perplexity"
    ).iloc[0]

    assert (row["pairs"], row["unpaired"], row["mean"]) == (1, 2, 1.0)


def test_a_pair_that_lacks_a_value_leaves_no_mean_over_the_others():
    unscored = small(scores=small().scores.query("version == 0"))
    runs = [run_of(0, 1.0), run_of(1, run=unscored)]
    row = views.paired_difference(runs, [run_of(0), run_of(1)], "perplexity", time_s=20.0).iloc[0]

    assert (row["pairs"], row["missing"]) == (2, 1)
    assert math.isnan(row["mean"])


def test_equal_bytes_and_joules_are_budgets_too():
    assert views.value_at(run_of(), "perplexity", up_bytes=100) == 20.0
    assert views.value_at(run_of(), "perplexity", joules=4.75) == 25.0
    assert math.isnan(views.value_at(run_of(), "perplexity", up_bytes=39))
    assert math.isnan(views.value_at(run_of(), "nothing of the kind", time_s=30.0))


def test_runs_that_never_reach_a_target_count_with_all_the_time_they_had():
    runs = [run_of(0), run_of(1, 1.0), run_of(2, 1.0), run_of(0, **SYNC)]  # 20, 21, 21 at 4 s; 20
    found = views.time_to_target_by_configuration(runs, "perplexity", 20.0)

    assert found["configuration"].tolist() == [0, 1]
    assert found["runs"].tolist() == [3, 1]
    assert found["reached"].tolist() == [1, 1]
    assert found["until_s"].tolist() == [30.0, 30.0]
    assert found["restricted_mean_s"].tolist() == pytest.approx([(4 + 30 + 30) / 3, 4.0])
    assert math.isnan(found["median_s"].iloc[0])  # two of three never did
    assert found["median_s"].iloc[1] == 4.0


def test_times_are_restricted_to_what_all_configurations_were_watched_for():
    runs = [run_of(0, 9.0, end_s=100.0), run_of(0, 9.0, end_s=50.0, **SYNC)]
    found = views.time_to_target_by_configuration(runs, "perplexity", 20.0)

    assert found["restricted_mean_s"].tolist() == [50.0, 50.0]


def test_sooner_and_later_are_told_pair_by_pair():
    sooner = [run_of(seed) for seed in range(3)]  # at 4 s
    never = [run_of(seed, 9.0, **SYNC) for seed in range(3)]
    row = views.paired_time_difference(sooner, never, "perplexity", 20.0, until_s=30.0).iloc[0]
    short = [run_of(seed, 9.0, end_s=20.0, **SYNC) for seed in range(3)]
    unknown = views.paired_time_difference(sooner, short, "perplexity", 20.0, until_s=30.0).iloc[0]

    assert (row["pairs"], row["mean"], row["low"], row["high"]) == (3, -26.0, -26.0, -26.0)
    assert (unknown["missing"], math.isnan(unknown["mean"])) == (3, True)


def test_on_a_common_grid_times_are_points_of_it():
    grid = {"evaluate": {"every_s": 7.0}}
    found = views.time_to_target_by_configuration(
        [run_of(0, **grid), run_of(0, **grid, **SYNC)], "perplexity", 20.0
    )

    assert comparisons.common_grid_s([run_of(**grid), run_of()]) is None
    assert found["restricted_mean_s"].tolist() == [7.0, 7.0]  # version 1 of 4 s, seen at 7 s


def test_targets_are_those_declared():
    runs = [run_of(evaluate={"targets": [20, 18]}), run_of(evaluate={"targets": [18, 15.5]}), run_of()]

    assert views.declared_targets(runs) == [20.0, 18.0, 15.5]


def test_a_score_that_ends_a_run_is_a_target_of_its_metric():
    end = {"metric": "perplexity", "value": 17, "split": "test"}
    ends = [end, end | {"value": 20}, end | {"metric": "loss"}, None]
    targets = {"targets": [20], "splits": ["test", "valid"]}
    runs = [run_of(evaluate=targets, budget={"commits": 9, "target": target}) for target in ends]
    runs.append(
        run_of(evaluate=targets, budget={"commits": 9, "target": end | {"split": "valid", "value": 5}})
    )

    assert views.declared_targets(runs, "perplexity") == [20.0, 17.0]
    assert views.declared_targets(runs) == [20.0]


def test_a_mean_curve_goes_as_far_as_its_shortest_run():
    late = small(scores=small().scores.query("version < 2"))
    found = views.mean_curve([run_of(), run_of(1, 2.0, run=late)], "perplexity")

    assert found["time_s"].tolist() == [0.0, 4.0]
    assert found["mean"].tolist() == [40.0, 21.0]
    assert found["deviation"].tolist() == [0.0, pytest.approx(math.sqrt(2.0))]
    assert views.mean_curve([run_of()], "perplexity")["deviation"].isna().all()


def test_views_of_several_runs_do_not_change_them():
    runs, before = [run_of(), run_of(1)], [run_of(), run_of(1)]
    views.time_to_target_by_configuration(runs, "perplexity", 20.0)
    views.mean_curve(runs, "perplexity")
    views.paired_difference(runs, runs, "perplexity", time_s=8.0)

    for run, other in zip(runs, before, strict=True):
        assert_frame_equal(run.scores, other.scores)
        assert_frame_equal(run.commits, other.commits)


def test_a_run_that_scored_nothing_has_no_value():
    assert math.isnan(views.value_at(without_rows("scores"), "perplexity", time_s=20.0))


def test_the_views_are_found_where_a_reader_looks():
    assert fedsim.views is views
    assert "views" in dir(fedsim)
    assert [name for name in views.__all__ if not callable(getattr(views, name))] == []
    assert not {"Any", "TYPE_CHECKING", "importlib", "os", "annotations"} & set(dir(fedsim))
