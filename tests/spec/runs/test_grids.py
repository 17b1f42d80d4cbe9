"""Scores on grids of virtual time and of bytes: the server's version at each point, on the schedule of the run without them."""

from __future__ import annotations

import pytest
from pandas.testing import assert_frame_equal
from worlds.same_runs import BUFFERED, DEADLINE, planned, with_vector

from fedsim import views
from fedsim.config.experiment import Experiment
from fedsim.config.learning import EvaluateConfig
from fedsim.elementary import first_point
from fedsim.runs.dry_run import dry_run

PROTOCOLS = [BUFFERED, DEADLINE]


def run_of(protocol, evaluate, **blocks):
    return with_vector(planned(protocol, evaluate=evaluate, budget={"time_s": 60.0}, **blocks))[0]


def versions(run):
    return sorted(set(run.scores["version"]))


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p["kind"])
@pytest.mark.parametrize(
    "evaluate", [{"every_s": 7.0}, {"every_bytes": 2000.0}, {"every_s": 0.9, "every_bytes": 300.0}]
)
def test_a_grid_changes_no_schedule_and_no_model(protocol, evaluate):
    on_grid, by_commits = run_of(protocol, evaluate), run_of(protocol, {"every_commits": 1})

    for table in ("clients", "visits", "commits", "personal"):
        assert_frame_equal(getattr(on_grid, table), getattr(by_commits, table), check_exact=True)
    both = on_grid.scores.merge(by_commits.scores, on=["version", "time_s", "split", "metric"], how="left")
    assert both["value_x"].tolist() == both["value_y"].tolist()  # a version has one score


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p["kind"])
@pytest.mark.parametrize("every_s", [0.5, 7.0, 13.0, 59.0, 1000.0])
def test_what_is_scored_is_the_version_at_each_point_and_no_other(protocol, every_s):
    run = run_of(protocol, {"every_s": every_s})
    points = views.on_grid(run, "loss", every_s=every_s)
    last = int(run.commits["version"].max())

    assert points["value"].notna().all()
    assert set(versions(run)) == {0, last, *points["version"]}


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p["kind"])
def test_on_a_grid_of_bytes_too(protocol):
    run = run_of(protocol, {"every_bytes": 500.0})
    points = views.on_grid(run, "loss", every_bytes=500.0)

    assert len(points) > 3
    assert points["value"].notna().all()
    assert set(versions(run)) == {0, int(run.commits["version"].max()), *points["version"]}


def test_a_commit_at_a_point_of_the_grid_counts_there():
    made = run_of(DEADLINE, {"every_commits": 1}).commits["time_s"].tolist()
    every_s = made[1]  # the second version is made at the first point
    run = run_of(DEADLINE, {"every_s": every_s})

    assert views.on_grid(run, "loss", every_s=every_s)["version"].tolist()[1] == 2
    assert 1 not in versions(run)


def test_grids_and_commits_add_up():
    run = run_of(BUFFERED, {"every_s": 20.0, "every_commits": 4})
    alone = [versions(run_of(BUFFERED, rhythm)) for rhythm in ({"every_s": 20.0}, {"every_commits": 4})]

    assert versions(run) == sorted({*alone[0], *alone[1]})


def test_the_last_version_is_scored_once():
    for evaluate in ({"every_commits": 1}, {"every_s": 1.0}, {"every_commits": 3, "every_s": 5.0}):
        run = run_of(BUFFERED, evaluate)
        assert not run.scores.duplicated(["version", "split", "metric"]).any()
        assert versions(run)[-1] == run.commits["version"].max()


@pytest.mark.parametrize("evaluate", [{}, {"every_commits": 3}, {"every_s": 11.0}, {"every_bytes": 700.0}])
def test_a_dry_run_counts_the_versions_that_will_be_scored(evaluate):
    plan = planned(BUFFERED, evaluate=evaluate, budget={"time_s": 60.0})

    assert dry_run(plan, measure=False).evaluations == len(versions(with_vector(plan)[0]))


def test_without_a_rhythm_it_is_every_fifth_commit_and_with_a_grid_that_alone():
    assert EvaluateConfig().every_commits == 5
    assert EvaluateConfig(every_s=10.0).every_commits is None
    assert EvaluateConfig(every_commits=None).every_commits == 5


def test_a_stored_grid_is_read_again():
    plain = {"population": {"preset": "homogeneous", "clients": 2}, "task": {"kind": "quadratic"}}
    first = Experiment.model_validate(
        plain | {"budget": {"commits": 1}, "evaluate": {"every_s": 60, "targets": [20, 18]}}
    )
    again = Experiment.model_validate(first.plain())

    assert again == first
    assert (again.evaluate.every_commits, again.evaluate.targets) == (None, (20.0, 18.0))


@pytest.mark.parametrize("evaluate", [{"targets": [20, 20]}, {"targets": [float("nan")]}, {"every_s": 0}])
def test_a_target_given_twice_or_no_number_is_refused(evaluate):
    with pytest.raises(ValueError, match=r"twice|finite|greater than 0"):
        EvaluateConfig(**evaluate)


@pytest.mark.parametrize("every", [0.1, 0.3, 7.0, 1e-3])
def test_points_of_a_grid_are_products_and_never_before_their_start(every):
    for number in range(200):
        start = number * every
        assert first_point(every, start) == start  # what `views.on_grid` computes, too
        assert first_point(every, start + every / 2) == (number + 1) * every


def test_a_grid_finer_than_numbers_are_has_a_point_everywhere():
    assert first_point(1e-300, 4e4) == 4e4
    assert EvaluateConfig(every_s=1e-300).in_between((4e4, 0.0), (4e4 + 1e-9, 0.0))
    assert not EvaluateConfig(every_s=1e-300).in_between((4e4, 0.0), (4e4, 0.0))
