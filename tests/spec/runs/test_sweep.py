"""A grid runs point by point, each in its folder; what is done is skipped, what fails is reported."""

from __future__ import annotations

import json

import pytest
import yaml
from worlds.grids import GRID, LABELS

import fedsim
from fedsim.cli.app import call
from fedsim.executors.inline import Inline
from fedsim.runs.sweep import cautions, points, run_all


@pytest.fixture(autouse=True)
def pages(monkeypatch):
    """Drawing a page takes most of the time of a tiny sweep; which runs are on it is enough here."""
    drawn = []
    monkeypatch.setattr(
        "fedsim.report.write", lambda runs, path: drawn.append([r.name for r in runs]) or path
    )
    return drawn


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID))
    return path


@pytest.fixture
def opened(monkeypatch):
    """The executors that were made, and how often each was opened on another task and closed."""
    made = []

    class Counted(Inline):
        def __init__(self):
            super().__init__()
            self.log, self.task = [], None
            made.append(self)

        def open(self, task):
            if task is not self.task:
                self.log.append("open")
            self.task = task
            super().open(task)

        def close(self):
            self.log.append("close")
            super().close()

    monkeypatch.setattr("fedsim.runs.simulation.executor_for", lambda _: Counted())
    return made


def folders(tmp_path):
    return sorted(p.name for p in (tmp_path / "runs" / "grid").iterdir() if p.is_dir())


def test_every_point_runs_in_a_folder_named_after_what_changed(grid, tmp_path, capsys, pages):
    assert call(["sweep", str(grid)]) == 0
    out, err = capsys.readouterr()
    assert folders(tmp_path) == LABELS
    for label in LABELS:
        run = fedsim.load(tmp_path / "runs" / "grid" / label)
        assert run.info.status == "done"
        assert run.name == f"grid.{label}"
        assert f"lr-{run.experiment['local']['lr']}_seed-{run.info.seed}" == label
    assert [line.split()[:2] for line in out.splitlines()[1:5]] == [[label, "done"] for label in LABELS]
    assert "report: runs/grid/report.html" in out
    assert pages == [*([f"grid.{label}"] for label in LABELS), [f"grid.{label}" for label in LABELS]]
    assert "[1/4] lr-0.1_seed-0" in err


def test_one_executor_serves_the_whole_sweep(grid, opened):
    assert call(["sweep", str(grid)]) == 0
    assert [executor.log for executor in opened] == [["open"] * 4 + ["close"]]


def test_finished_points_are_skipped_and_others_run(grid, tmp_path, opened, capsys):
    assert call(["sweep", str(grid), "-s", "sweep.seed=[0]"]) == 0
    assert call(["sweep", str(grid)]) == 0
    out = capsys.readouterr().out
    assert out.count("skipped") == 2
    assert [len(executor.log) - 1 for executor in opened] == [2, 2]
    assert folders(tmp_path) == LABELS


def test_an_unfinished_point_goes_on(grid, tmp_path, capsys):
    assert call(["sweep", str(grid)]) == 0
    info = tmp_path / "runs" / "grid" / LABELS[2] / "run.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"status": "interrupted"}))
    assert call(["sweep", str(grid)]) == 0
    assert folders(tmp_path) == LABELS
    stored = json.loads(info.read_text())
    assert stored["status"] == "done"
    assert [again["after"] for again in stored["resumed"]] == ["interrupted"]


def test_a_run_that_cannot_go_on_is_put_aside_and_begun_anew(grid, tmp_path, capsys):
    assert call(["sweep", str(grid)]) == 0
    info = tmp_path / "runs" / "grid" / LABELS[2] / "run.json"
    before = json.loads(info.read_text())
    other = {"status": "interrupted", "versions": before["versions"] | {"numpy": "1.0"}}
    info.write_text(json.dumps(before | other))
    assert call(["sweep", str(grid)]) == 0
    assert "cannot go on: " in capsys.readouterr().err
    assert folders(tmp_path) == sorted([*LABELS, f"{LABELS[2]}.unfinished-1"])
    assert json.loads(info.read_text())["status"] == "done"


def test_a_folder_with_another_run_is_left_alone_and_reported(grid, tmp_path, capsys):
    assert call(["sweep", str(grid)]) == 0
    before = (tmp_path / "runs" / "grid" / LABELS[0] / "run.json").read_bytes()
    capsys.readouterr()
    assert call(["sweep", str(grid), "-s", "budget.commits=3"]) == 2
    assert "holds the run of another experiment" in capsys.readouterr().err
    assert (tmp_path / "runs" / "grid" / LABELS[0] / "run.json").read_bytes() == before


def test_a_timeline_is_not_taken_for_a_trained_run(grid, capsys):
    assert call(["sweep", str(grid), "--timeline-only"]) == 0
    assert call(["sweep", str(grid)]) == 2
    assert "another experiment" in capsys.readouterr().err


def test_a_point_that_fails_is_reported_and_the_others_go_on(grid, tmp_path, monkeypatch, opened, capsys):
    from fedsim.runs import simulation

    real = simulation.simulate

    def fails_once(plan, *args, **kwargs):
        if plan.experiment.seed == 1 and plan.experiment.local.lr == 0.1:
            raise ValueError("broken on purpose")
        return real(plan, *args, **kwargs)

    monkeypatch.setattr("fedsim.runs.simulation.simulate", fails_once)
    assert call(["sweep", str(grid)]) == 1
    out, err = capsys.readouterr()
    statuses = [line.split()[1] for line in out.splitlines()[1:5]]
    assert statuses == ["done", "failed", "done", "done"]
    assert "unexpected ValueError: broken on purpose" in err
    assert [executor.log[-1] for executor in opened] == ["close", "close"]


def test_a_grid_with_a_wrong_point_runs_nothing(grid, tmp_path, opened, capsys):
    assert call(["sweep", str(grid), "-s", "sweep={protocol.cohort: [4, 9]}"]) == 2
    err = capsys.readouterr().err
    assert "(cohort-9): protocol.cohort: asks more clients than there are (8) (got 9)" in err
    assert not (tmp_path / "runs").exists()
    assert opened == []


def test_the_tables_of_a_point_are_those_of_the_same_run_alone(grid, tmp_path):
    assert call(["sweep", str(grid)]) == 0
    alone = {key: value for key, value in GRID.items() if key != "sweep"}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(alone))
    assert call(["run", "alone.yaml", "-s", "local.lr=0.2", "-s", "seed=1", "--out", "alone"]) == 0
    for name in ("visits", "commits", "scores"):
        swept = tmp_path / "runs" / "grid" / LABELS[3] / f"{name}.parquet"
        assert (tmp_path / "alone" / f"{name}.parquet").read_bytes() == swept.read_bytes()


def test_points_of_one_population_and_data_share_them(grid, tmp_path, monkeypatch):
    """Two rules and two seeds: two populations are drawn, and every table is that of the run alone."""
    from fedsim.clock import plan

    asked = {"aggregator.server_lr": [1.0, 0.5], "seed": [0, 1]}
    grid.write_text(yaml.safe_dump({**GRID, "sweep": asked}))
    drawn, draw = [], plan.draw
    monkeypatch.setattr(plan, "draw", lambda *which: drawn.append(which[1]) or draw(*which))
    assert call(["sweep", str(grid), "--out", str(tmp_path / "out")]) == 0
    assert drawn == [0, 1]

    for folder in (tmp_path / "out").glob("server_lr-*"):
        swept = fedsim.load(folder)
        alone = fedsim.simulate(fedsim.Experiment.model_validate(swept.experiment))
        assert swept.visits.equals(alone.visits)
        assert swept.scores.equals(alone.scores)


FREE = {"preset": "gemma-3-270m", "r": 8, "tokens_per_visit": 20000}


@pytest.mark.parametrize(
    ("charge_as", "swept", "said"),
    [
        (FREE, {"local.steps": [1, 2]}, True),
        (FREE, {"local": [{"optimizer": "sgd", "steps": 1}, {"optimizer": "sgd", "epochs": 2}]}, True),
        (FREE, {"local.lr": [0.1, 0.2]}, False),
        (FREE, {"local.steps": [1, 2], "task.charge_as.tokens_per_visit": [100, 200]}, False),
        (None, {"local.steps": [1, 2]}, False),
    ],
)
def test_steps_that_cost_the_clock_nothing_are_said(tmp_path, charge_as, swept, said):
    path = tmp_path / "grid.yaml"
    task = {"kind": "quadratic", "charge_as": charge_as}
    path.write_text(yaml.safe_dump({**GRID, "task": task, "sweep": swept}))
    lines = []

    grid = points(path, (), tmp_path / "out")
    run_all(grid, timeline_only=True, say=lines.append)

    notes = [line for line in lines if "tokens_per_visit charges every visit alike" in line]
    assert len(notes) == said
    assert notes == cautions(grid)
