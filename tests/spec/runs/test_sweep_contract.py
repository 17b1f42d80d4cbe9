"""The contract of a sweep (docs/sweeps.md): every sentence names a test that exists, and what no other file holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from worlds.no_pages import leave_out_pages
from worlds.resumed_runs import BASE, FEDBUFF

import fedsim
from fedsim.runs.sweep import points, run_all

TESTS = Path(__file__).parents[2]
SETTINGS = {**BASE, **FEDBUFF, "name": "small", "budget": {"commits": 4}}
SETTINGS["runtime"] = {"executor": "inline", "checkpoint_commits": 2}


@pytest.fixture(autouse=True)
def _no_pages(monkeypatch):
    leave_out_pages(monkeypatch)


def swept(tmp_path, axes, **blocks):
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, **blocks, "sweep": axes}))
    grid = points(file, (), tmp_path / "out")
    return run_all(grid, say=lambda _: None)


def contents(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def test_every_sentence_of_the_contract_names_a_test_that_exists():
    page = (TESTS.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
    rows = [
        line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what holds")
    ]
    named = [re.fullmatch(r"\| .+ \| `(\w+)::(\w+)` \|", row) for row in rows]
    assert len(rows) > 25
    assert all(named)
    defined = {
        (path.stem, node.name)
        for path in TESTS.rglob("test_sweep*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert {match.groups() for match in named} - defined == set()


def test_a_point_that_is_done_is_not_touched(tmp_path):
    swept(tmp_path, {"seed": [0]})
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    before = contents(folder)
    assert [r.status for r in swept(tmp_path, {"seed": [0]})] == ["skipped"]
    assert contents(folder) == before


def test_a_point_that_has_failed_is_tried_again(tmp_path, monkeypatch):
    from fedsim.runs.sweeps import work

    real = work.run_point

    def fails(standing, *args, **kwargs):
        if standing.point.experiment.seed == 1:
            raise OSError("the disk was away")
        return real(standing, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("fedsim.runs.sweep.run_point", fails)
        assert [r.status for r in swept(tmp_path, {"seed": [0, 1]})] == ["done", "failed"]
    assert [r.status for r in swept(tmp_path, {"seed": [0, 1]})] == ["skipped", "done"]


def test_a_target_is_part_of_a_point_and_each_stops_at_its_own(tmp_path):
    whole = fedsim.simulate({**SETTINGS}, report=False)
    loss = whole.scores[(whole.scores.split == "test") & (whole.scores.metric == "loss")].value
    first, second = float(loss.iloc[1]), float(loss.iloc[2])
    assert loss.iloc[0] > first > second
    axes = {"budget.target.value": [first, second]}
    budget = {"commits": 4, "target": {"metric": "loss", "value": 0.0}}
    results = swept(tmp_path, axes, budget=budget)
    assert [len(r.run.commits) for r in results] == [2, 4]
    assert len({r.point.experiment.digest for r in results}) == 2
    assert [r.status for r in swept(tmp_path, axes, budget=budget)] == ["skipped", "skipped"]


@pytest.mark.slow
def test_points_keep_their_best_version(tmp_path):
    results = swept(tmp_path, {"seed": [0, 1]}, evaluate={"every_commits": 2, "keep_best": "loss"})
    assert all((r.point.folder / "best" / "adapter_model.safetensors").is_file() for r in results)
