"""`budget.target`: a scored version ends the run; the schedule is cut there and else the same, in every kind of replay."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from worlds.resumed_runs import BASE, KINDS, experiment_of, gone_through

import fedsim
from fedsim.callbacks import Callback
from fedsim.checks.gate import prepared
from fedsim.cli.printing import estimates
from fedsim.clock.plan import refuse
from fedsim.config.experiment import Experiment
from fedsim.config.target import TargetConfig
from fedsim.errors import ExperimentError, RunFolderError
from fedsim.runs.audit import audit
from fedsim.runs.dry_run import dry_run
from fedsim.runs.replay import replay
from fedsim.tasks.quadratic import QuadraticTask

TABLES = ("clients", "visits", "commits", "scores", "personal")


def with_target(kind, value, *, evaluate=None, budget=None, metric="loss", split="test"):
    target = {"metric": metric, "value": value, "split": split}
    blocks = {"budget": {"commits": 9, **(budget or {}), "target": target}}
    return experiment_of(kind, **blocks, **({"evaluate": evaluate} if evaluate else {}))


def values(run, split="test"):
    rows = run.scores[(run.scores["split"] == split) & (run.scores["metric"] == "loss")]
    return dict(zip(rows["version"], rows["value"], strict=True))


def same(one, other):
    return all(getattr(one, table).equals(getattr(other, table)) for table in TABLES)


@pytest.fixture(scope="module")
def whole():
    """Kind -> the run of 9 commits without a target, made once."""
    runs = {}

    def run(kind, **blocks):
        key = (kind, str(blocks))
        if key not in runs:
            runs[key] = fedsim.simulate(experiment_of(kind, **blocks), report=False)
        return runs[key]

    return run


MORE = [
    pytest.param(k, marks=pytest.mark.slow)
    for k in ("fedasync", "tifl", "ditto", "fedex", "semi-synchronous")
]


@pytest.mark.parametrize("kind", ["sync", "fedbuff", "fedat", "busy-server", *MORE])
def test_a_run_that_reaches_it_is_the_run_of_so_many_commits(whole, kind):
    """Version 4 is the first that is as good as itself, so a budget of 4 commits is the same run, to the bit."""
    scores = values(whole(kind))
    best = min(scores[v] for v in (2, 4))
    version = next(v for v in (2, 4) if scores[v] == best)
    if scores[0] <= best:
        pytest.skip("this rule has learned nothing by then")
    run = fedsim.simulate(with_target(kind, best), report=False)
    right = whole(kind, budget={"commits": version})

    assert same(run, right)
    assert run.info.end_time_s == right.info.end_time_s
    assert run.info.totals == right.info.totals
    assert f"version {version} reached the target: loss" in run.info.reason


def test_one_that_does_not_reach_it_is_the_run_without_it(whole):
    run = fedsim.simulate(with_target("fedbuff", -1.0), report=False)

    assert same(run, whole("fedbuff"))
    assert run.info.reason == ""


def test_version_0_may_have_reached_it_already(tmp_path):
    run = fedsim.simulate(with_target("fedbuff", 1e9), out=tmp_path / "run", report=False)

    assert (len(run.visits), len(run.commits), run.info.end_time_s) == (0, 0, 0.0)
    assert "version 0 reached the target" in run.info.reason
    assert audit(run).problems == ()


GRID = {"every_s": 0.2, "splits": ["test"]}


def test_on_a_grid_it_ends_before_the_commit_that_would_replace_the_version(whole):
    """On a grid a version is scored when the next one is due: the run ends there, with that commit not made."""
    full = whole("fedbuff", evaluate=GRID)
    scores = values(full)
    version = next(v for v in scores if v and scores[v] < scores[0])
    run = fedsim.simulate(with_target("fedbuff", scores[version], evaluate=GRID), report=False)
    made = full.commits.set_index("version")["time_s"]

    assert run.commits["version"].max() == version
    assert run.info.end_time_s == made[version + 1]
    cut = full.visits[full.visits["committed_version"].between(1, version)]
    mine = run.visits[run.visits["committed_version"] > 0]
    assert mine.reset_index(drop=True).equals(cut.reset_index(drop=True))
    assert audit(run).problems == ()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, whole):
    """The folder of a run that has reached its target at version 4, checkpoints after every second commit."""
    folder = tmp_path_factory.mktemp("target") / "run"
    scores = values(whole("fedbuff"))
    assert scores[4] < min(scores[0], scores[2])
    run = fedsim.simulate(with_target("fedbuff", scores[4]), out=folder, report=False)
    assert len(run.commits) == 4
    return folder


def test_verify_replays_it_and_finds_a_score_that_was_changed(stopped, tmp_path):
    assert audit(fedsim.load(stopped)).problems == ()

    run = fedsim.load(stopped)
    scores = run.scores.copy()
    scores.loc[(scores["version"] == 4) & (scores["metric"] == "loss"), "value"] += 1.0
    forged = tmp_path / "forged"
    shutil.copytree(stopped, forged)
    scores.to_parquet(forged / "scores.parquet")
    problems = " ".join(audit(fedsim.load(forged)).problems)
    assert "visits" in problems  # the schedule goes on where nothing has reached the target


@pytest.mark.parametrize(
    "at", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_it_goes_on_after_a_kill_and_ends_at_the_same_version(stopped, tmp_path, at):
    experiment, folder = Experiment.model_validate(fedsim.load(stopped).experiment), tmp_path / "run"
    gone_through(lambda watch: fedsim.simulate(experiment, out=folder, on_event=watch, report=False), stop=at)
    assert fedsim.load(folder).info.status != "done"
    run = fedsim.resume(folder, report=False)

    assert same(run, fedsim.load(stopped))
    assert run.info.reason == fedsim.load(stopped).info.reason
    assert (folder / "adapter").exists() == (stopped / "adapter").exists()
    assert audit(run).problems == ()


def test_one_that_was_stopped_by_it_goes_on_without_it(stopped, tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    run = fedsim.resume(folder, changes=["budget.target=null"], report=False)

    assert run.info.resumed[0].version == 4
    assert same(run, whole("fedbuff"))


def test_a_harder_target_is_a_larger_budget_and_an_easier_one_is_refused(stopped, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    value = fedsim.load(stopped).experiment["budget"]["target"]["value"]
    for change in (f"budget.target.value={value * 2}", "budget.target.split=clients"):
        with pytest.raises(RunFolderError, match="a budget may grow, not shrink"):
            fedsim.resume(folder, changes=[change], report=False)
    run = fedsim.resume(folder, changes=[f"budget.target.value={value / 1e6}"], report=False)
    assert len(run.commits) == 9


def test_a_timeline_goes_to_the_other_limits_and_says_so(whole):
    notes = []

    class Listener(Callback):
        def on_note(self, event):
            notes.append(event.text)

    run = fedsim.simulate(with_target("fedbuff", 1e9), timeline_only=True, callbacks=[Listener()])
    assert len(run.commits) == 9
    assert notes == [
        "budget.target has no effect without training: the timeline goes to the other limits of the budget"
    ]


def test_an_estimate_says_that_it_may_end_sooner():
    estimated = dry_run(prepared(with_target("fedbuff", 1.0)), measure=False)
    assert estimated.totals.commits == 9
    assert "note: at most, since budget.target may end it sooner" in estimates(estimated)
    assert "note: at most" not in estimates(dry_run(prepared(experiment_of("fedbuff")), measure=False))


def test_one_visit_is_trained_again_as_it_was(stopped):
    visits = fedsim.load(stopped).visits
    row = visits[visits["committed_version"] == 4].iloc[-1]
    assert replay(stopped, int(row["client"]), int(row["visit"])).agreement.startswith("the same")


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"budget": {"target": {"metric": "loss", "value": 1.0}}}, "budget: has no limit"),
        (
            {"budget": {"commits": 1, "target": {"metric": "loss", "value": 1.0, "split": "valid"}}},
            "budget.target.split: is not scored",
        ),
        (
            {"budget": {"commits": 1, "target": {"metric": "share of cats", "value": 1.0}}},
            "is a metric without a better and a worse",
        ),
        ({"budget": {"commits": 1, "target": {"metric": "loss"}}}, "budget.target.value"),
        ({"budget": {"commits": 1, "target": {"metric": "loss", "value": "low"}}}, "budget.target.value"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_starts(blocks, said):
    with pytest.raises(ExperimentError) as caught:
        Experiment.model_validate({**BASE, **KINDS["fedbuff"], **blocks})
    assert said in str(caught.value)


def test_a_metric_that_nobody_scores_is_named_before_anything_is_trained(tmp_path):
    with pytest.raises(ExperimentError, match=r"budget.target.metric: no such metric is scored on test") as e:
        fedsim.simulate(with_target("fedbuff", 1.0, metric="los"), out=tmp_path / "run", report=False)
    assert e.value.message.fix == "did you mean 'loss'?"
    assert not (tmp_path / "run").exists()
    with pytest.raises(ExperimentError, match=r"no such metric is scored on test"):
        prepared(with_target("fedbuff", 1.0, metric="los"))


def test_a_task_that_cannot_name_its_metrics_has_them_refused_at_the_first_score(tmp_path, monkeypatch):
    monkeypatch.setattr(QuadraticTask, "metric_names", lambda _self, _split: None)
    with pytest.raises(ExperimentError, match=r"budget.target.metric: no such metric is scored on test"):
        fedsim.simulate(with_target("fedbuff", 1.0, metric="los"), out=tmp_path / "run", report=False)
    assert len(fedsim.load(tmp_path / "run").visits) == 0


def test_a_class_below_one_that_names_its_metrics_may_have_more_of_them():
    class More(QuadraticTask):
        def metrics(self, sums):
            return {**super().metrics(sums), "accuracy": 0.5}

    class Named(More):
        def metric_names(self, split):
            return (*super().metric_names(split), "accuracy")

    def refuses(cls, metric):
        plan = prepared(with_target("fedbuff", 1.0))
        task = cls(*plan.task.__reduce__()[1])
        budget = plan.experiment.budget.model_copy(update={"target": TargetConfig(metric=metric, value=1.0)})
        asked = plan.experiment.model_copy(update={"budget": budget})
        try:
            refuse(replace(plan, experiment=asked, task=task))
        except ExperimentError as problem:
            return "no such metric" in str(problem)
        return False

    assert [refuses(cls, "accuracy") for cls in (QuadraticTask, More, Named)] == [True, False, False]
    assert [refuses(cls, "f1") for cls in (QuadraticTask, More, Named)] == [True, False, True]


def test_which_way_is_better_decides_what_reaches_it():
    loss, accuracy = (TargetConfig(metric=m, value=0.5) for m in ("loss", "accuracy"))

    assert (loss.reached(0.5), loss.reached(0.6), loss.reached(float("nan"))) == (True, False, False)
    assert (accuracy.reached(0.5), accuracy.reached(0.4), accuracy.reached(float("nan"))) == (
        True,
        False,
        False,
    )
    assert TargetConfig(metric="accuracy", value=0.6).is_harder_than(accuracy)
    assert not TargetConfig(metric="loss", value=0.6).is_harder_than(loss)
