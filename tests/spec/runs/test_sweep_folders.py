"""The contract of a sweep's folder: a point is its experiment; what its folder holds says whether it runs, goes on or is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from worlds.grids import GRID, LABELS

import fedsim
import hetero_profiles
from fedsim.cli.app import call
from fedsim.errors import RunFolderError
from fedsim.records.watching.sweep import read_sweep, sweep_status
from fedsim.runs.sweep import points, run_all, summary


@pytest.fixture(autouse=True)
def pages(monkeypatch):
    monkeypatch.setattr("fedsim.report.write", lambda _runs, path, **_: path)


@pytest.fixture
def sweep(tmp_path):
    """Writes a grid with changes, runs it, and returns label -> ending, the lines that were said, the results."""

    def run(changes=(), *, overrides=(), fail_fast=False, **blocks):
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump({**GRID, **dict(changes), **blocks}, sort_keys=False))
        lines = []
        grid = points(path, overrides, tmp_path / "out")
        results = run_all(grid, say=lines.append, fail_fast=fail_fast)
        return {result.point.label: result.status for result in results}, lines, results

    return run


def mark(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_point_is_its_experiment_and_not_its_place_in_the_list(sweep):
    sweep()
    endings, _, _ = sweep(sweep={"local.lr": [0.2, 0.3, 0.1], "seed": [1, 0]})

    assert {label for label, ending in endings.items() if ending == "skipped"} == set(LABELS)
    assert {label for label, ending in endings.items() if ending == "done"} == {
        "lr-0.3_seed-1",
        "lr-0.3_seed-0",
    }


def test_a_run_is_found_under_another_name_of_the_same_experiment(sweep, tmp_path):
    """One axis more, with the value that it had anyway."""
    sweep(sweep={"seed": [0, 1]})
    endings, lines, results = sweep(sweep={"seed": [0, 1], "protocol.cohort": [4]})

    assert endings == {"seed-0_cohort-4": "skipped", "seed-1_cohort-4": "skipped"}
    assert [result.run.folder.name for result in results] == ["seed-0", "seed-1"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["seed-0", "seed-1"]
    assert all("skipped" in line for line in lines)


def test_values_that_look_alike_get_names_that_do_not_depend_on_their_place(tmp_path):
    path = tmp_path / "grid.yaml"

    def labels(seeds):
        path.write_text(yaml.safe_dump({**GRID, "sweep": {"local.lr": [0.1, 0.2], "seed": seeds}}))
        return {(p.changed["local.lr"], p.changed["seed"]): p.label for p in points(path)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsim.runs.sweeps.grid.label", lambda changed: f"seed-{changed['seed']}")
        assert labels([0, 1]) == labels([1, 0])
        assert len(set(labels([0, 1]).values())) == 4


def test_experiments_that_differ_in_their_runtime_alone_both_run(sweep):
    endings, _, _ = sweep(sweep={"runtime.cache_mb": [1, 2]})
    assert set(endings.values()) == {"done"}
    endings, _, _ = sweep(sweep={"runtime.cache_mb": [1, 2]})
    assert set(endings.values()) == {"skipped"}


def test_a_run_of_another_experiment_is_refused_with_what_differs(sweep):
    sweep(sweep={"seed": [0]})
    endings, lines, results = sweep(sweep={"seed": [0]}, budget={"commits": 3})

    assert endings == {"seed-0": "failed"}
    assert "holds the run of another experiment (budget.commits: 2, not 3)" in lines[0]
    assert results[0].exit_code == 2


def test_a_setting_that_was_given_and_is_auto_now_is_another_experiment(sweep):
    """What `auto` stands for follows from the point, not from the run that lies in its folder."""
    given = {"kind": "fedit", "normalize": "none"}
    sweep(sweep={"seed": [0]}, aggregator=given)
    assert sweep(sweep={"seed": [0]}, aggregator=given)[0] == {"seed-0": "skipped"}
    endings, lines, _ = sweep(sweep={"seed": [0]})

    assert endings == {"seed-0": "failed"}
    assert "aggregator.normalize: 'none', not 'weights'" in lines[0]


def test_what_auto_has_come_to_is_the_same_experiment(sweep):
    sweep(sweep={"seed": [0]})
    endings, _, _ = sweep(
        sweep={"seed": [0]}, aggregator={"kind": "fedit", "normalize": "weights", "weight": "examples"}
    )

    assert endings == {"seed-0": "skipped"}


@pytest.mark.parametrize("change", ["edited", "gone", "new"])
def test_a_file_that_has_changed_since_is_noticed_and_said(sweep, tmp_path, change):
    data = tmp_path / "tables"
    data.mkdir()
    for name in ("devices.csv", "networks.csv"):
        (data / name).write_text(hetero_profiles.locate(name).read_text().replace("share_mixed", "share"))
    tables = {table: str(data / f"{table}.csv") for table in ("devices", "networks")}
    population = {**tables, "clients": 8}
    sweep(sweep={"seed": [0]}, population=population)
    assert sweep(sweep={"seed": [0]}, population=population)[0] == {"seed-0": "skipped"}
    os.utime(data / "devices.csv", (1, 1))  # touched, and the same
    assert sweep(sweep={"seed": [0]}, population=population)[0] == {"seed-0": "skipped"}

    stored = read_sweep(tmp_path / "out")
    if change == "edited":
        (data / "devices.csv").write_bytes((data / "devices.csv").read_bytes() + b"\n")
    elif change == "gone":
        extra = {str(tmp_path / "lost.csv"): "0" * 64}
        files = {"seed-0": {**stored.files["seed-0"], **extra}}
        replace(stored, files=files).write(tmp_path / "out")
    else:
        replace(stored, files={"seed-0": {"/some/other.csv": "0" * 64}}).write(tmp_path / "out")
    endings, lines, _ = sweep(sweep={"seed": [0]}, population=population)
    assert endings == {"seed-0": "failed"}
    assert "holds a run of other files" in lines[0]
    assert {"edited": "devices.csv has changed", "gone": "lost.csv is gone", "new": "devices.csv is new"}[
        change
    ] in lines[0]
    assert (tmp_path / "out" / "seed-0" / "visits.parquet").exists()


def test_the_file_of_a_component_of_one_s_own_counts_too(sweep, tmp_path, monkeypatch):
    module = tmp_path / "rules_of_test_sweep_folders.py"
    module.write_text(
        "from fedsim.aggregators.fedit import FedIT\n\n\nclass Half(FedIT):\n    kind: str = 'half'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    blocks = {"sweep": {"seed": [0]}, "aggregator": {"kind": "rules_of_test_sweep_folders:Half"}}
    sweep(**blocks)
    assert sweep(**blocks)[0] == {"seed-0": "skipped"}
    module.write_text(module.read_text() + "    server_lr: float = 0.5\n")
    _, lines, _ = sweep(**blocks)
    assert "rules_of_test_sweep_folders.py has changed" in lines[0]


def test_packages_of_another_version_are_said_and_the_point_is_skipped(sweep, tmp_path):
    sweep(sweep={"seed": [0]})
    run = tmp_path / "out" / "seed-0"
    versions = json.loads((run / "run.json").read_text())["versions"]
    mark(run, versions=versions | {"numpy": "1.0.0"})
    endings, lines, _ = sweep(sweep={"seed": [0]})

    assert endings == {"seed-0": "skipped"}
    assert "made with numpy 1.0.0, which is another version here" in lines[0]


def test_a_point_that_another_process_is_at_work_on_comes_last_and_is_told(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.runs.sweeps.course.HELD_S", 0.0)
    sweep(sweep={"seed": [0]})
    mark(tmp_path / "out" / "seed-0", status="running")  # this process is alive
    endings, _, results = sweep(sweep={"seed": [0, 1]})

    assert endings == {"seed-0": "in flight", "seed-1": "done"}
    assert (results[0].exit_code, "another process" in results[0].problem) == (2, True)


def test_a_point_whose_process_ends_meanwhile_is_taken_up(sweep, tmp_path, monkeypatch):
    sweep(sweep={"seed": [0]})
    run = tmp_path / "out" / "seed-0"
    mark(run, status="running")
    monkeypatch.setattr("fedsim.runs.sweep.time.sleep", lambda _: mark(run, status="done"))
    endings, lines, _ = sweep(sweep={"seed": [0, 1]})

    assert endings == {"seed-0": "skipped", "seed-1": "done"}
    assert any(line.startswith("waits up to 30 s") for line in lines)


def test_one_failed_point_does_not_end_the_others_unless_that_is_asked_for(sweep, tmp_path):
    broken = {"sweep": {"task.noise": [0.1, "no-number"]}}
    with pytest.raises(fedsim.FedsimError):  # a point that is no experiment: nothing runs
        sweep(**broken)
    sweep(sweep={"seed": [1]})
    mark(tmp_path / "out" / "seed-1", digest="0" * 64)
    endings, _, _ = sweep(sweep={"seed": [0, 1, 2]})
    assert endings == {"seed-0": "done", "seed-1": "failed", "seed-2": "done"}
    endings, lines, results = sweep(sweep={"seed": [0, 1, 3, 4]}, fail_fast=True)
    assert endings == {"seed-0": "skipped", "seed-1": "failed", "seed-3": "waiting", "seed-4": "waiting"}
    assert not (tmp_path / "out" / "seed-3").exists()
    assert [row["status"] for row in summary(results)] == ["skipped", "failed", "waiting", "waiting"]
    assert lines


def test_of_two_sweeps_at_once_one_gets_the_folder_and_a_killed_one_blocks_nobody(sweep, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    code = f"""
import time
from pathlib import Path
from fedsim.records.liveness.hold import hold
lock = hold(Path({str(out)!r}))
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunFolderError, match=f"process {process.pid} on .* is at work on this"):
        sweep()
    process.kill()
    process.communicate()
    assert set(sweep()[0].values()) == {"done"}
    assert not (out / "run.lock").exists()


def test_a_folder_that_cannot_be_written_to_is_one_sentence(sweep, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written to"):
        sweep()


def test_the_sweep_s_file_names_its_points_and_how_they_failed(sweep, tmp_path):
    sweep(sweep={"seed": [0, 1]})
    mark(tmp_path / "out" / "seed-1", digest="0" * 64)
    sweep(sweep={"seed": [0, 1, 2]})
    stored = read_sweep(tmp_path / "out")

    assert [point.label for point in stored.points] == ["seed-0", "seed-1", "seed-2"]
    assert [bool(point.problem) for point in stored.points] == [False, True, False]
    assert stored.points[0].changed == {"seed": "0"}
    path = tmp_path / "grid.yaml"
    assert [point.digest for point in stored.points] == [p.experiment.digest for p in points(path)]
    assert stored.ended is not None
    status = sweep_status(tmp_path / "out")
    assert status.runs is False
    assert [point.state for point in status.points] == ["done", "done", "done"]


def test_a_sweep_that_is_interrupted_says_so_and_goes_on_the_next_time(sweep, tmp_path, capsys):
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump(GRID))
    with pytest.MonkeyPatch.context() as patch:
        from fedsim.runs import simulation

        real, runs = simulation.simulate, []

        def second_is_stopped(*args, **kwargs):
            runs.append(1)
            if len(runs) == 2:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        patch.setattr("fedsim.runs.simulation.simulate", second_is_stopped)
        assert call(["sweep", str(grid), "--out", str(tmp_path / "out")]) == 130
    assert read_sweep(tmp_path / "out").ended is not None
    assert [p.state for p in sweep_status(tmp_path / "out").points] == [
        "done",
        "waiting",
        "waiting",
        "waiting",
    ]
    assert sweep()[0] == {label: "skipped" if label == LABELS[0] else "done" for label in LABELS}
