"""What a run is said to take of disk and memory is what it takes, within a factor of 1.5; what cannot fit is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

import fedsim
from fedsim.checks.gate import prepared
from fedsim.cli.app import call
from fedsim.errors import HostError
from fedsim.executors import host
from fedsim.records.watching.lines import disk_bytes
from fedsim.runs.preflight.forecast import forecast
from fedsim.runs.preflight.needs import Need, RunNeeds, Share, needs_of

FACTOR = 1.5
BASE = {
    "name": "small",
    "population": {"preset": "mixed_edge_2025", "clients": 100},
    "task": {"kind": "quadratic", "dimension": 64, "layout": "lora"},
    "lora": {"r": 4},
    "local": {"optimizer": "sgd", "lr": 0.1},
    "protocol": {"kind": "buffered", "concurrency": 20, "buffer": 10},
    "budget": {"commits": 40},
    "runtime": {"executor": "inline"},
}
LARGE = {
    "task": {"kind": "quadratic", "dimension": 100, "layout": "lora"},
    "lora": {"r": 32},
    "budget": {"commits": 10},
}


def experiment(**blocks):
    return fedsim.Experiment.model_validate({**BASE, **blocks})


def most_on_disk(plan, folder):
    """The most that the folder of a run takes while it goes, and after it."""
    most, over = [0], threading.Event()

    def look():
        while not over.is_set():
            most[0] = max(most[0], disk_bytes(folder))
            time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        fedsim.simulate(plan, out=folder, report=False)
    finally:
        over.set()
        watcher.join()
    return max(most[0], disk_bytes(folder))


@pytest.mark.parametrize(
    "blocks",
    [
        {"budget": {"commits": 100}},
        {**LARGE, "personal": {"kind": "ditto", "lam": 0.5}},
        {**LARGE, "wire": {"top_k": 0.1, "error_feedback": True}},
        {**LARGE, "aggregator": {"kind": "fedsa"}},
    ],
    ids=["rows", "second models", "residuals", "kept by the rule"],
)
def test_the_disk_that_a_run_takes_is_what_was_said(tmp_path, blocks):
    plan = prepared(experiment(**blocks))
    need = needs_of(plan, tmp_path / "run", forecast(plan, 10.0)).needs[0]
    said = sum(share.size_bytes for share in need.shares if share.name not in ("page", "checkpoints"))
    took = most_on_disk(plan, tmp_path / "run")

    assert took / FACTOR < said < took * FACTOR


def test_checkpoints_take_what_was_said(tmp_path):
    every = {"executor": "inline", "checkpoint_commits": 2}
    plan = prepared(
        experiment(
            **LARGE,
            runtime=every,
            server_optimizer={"kind": "adam"},
            evaluate={"every_commits": 5, "ema": 0.5},
        )
    )
    need = needs_of(plan, tmp_path / "run", forecast(plan, 10.0)).needs[0]
    said = next(share.size_bytes for share in need.shares if share.name == "checkpoints")
    fedsim.simulate(plan, out=tmp_path / "run", report=False)
    took = disk_bytes(tmp_path / "run" / "checkpoints")

    assert took < said < 3 * took  # at most: every open visit with a start and a result of its own


@pytest.mark.parametrize(
    ("asked", "some"),
    [({}, True), ({"checkpoint_s": "off"}, False), ({"checkpoint_s": "off", "checkpoint_commits": 9}, True)],
)
def test_disk_for_checkpoints_is_counted_where_a_run_takes_some(tmp_path, asked, some):
    plan = prepared(experiment(**LARGE, runtime={"executor": "inline", **asked}))
    shares = needs_of(plan, tmp_path / "run", forecast(plan, 10.0)).needs[0].shares

    assert ("checkpoints" in {share.name for share in shares}) is some


@pytest.mark.parametrize(("asked", "place"), [({}, "disk"), ({"checkpoint_s": "off"}, "temporary files")])
def test_what_clients_owe_is_counted_where_it_lies(tmp_path, asked, place):
    runtime = {"executor": "inline", **asked}
    plan = prepared(experiment(**LARGE, wire={"top_k": 0.1, "error_feedback": True}, runtime=runtime))
    needs = needs_of(plan, tmp_path / "run", forecast(plan, 10.0)).needs

    assert [need.place for need in needs if "residuals" in {share.name for share in need.shares}] == [place]


def test_a_timeline_that_is_cut_off_is_carried_on_to_the_end(monkeypatch):
    plan = prepared(experiment(budget={"commits": 100}))
    whole = forecast(plan, 60.0)
    monkeypatch.setattr("fedsim.runs.preflight.forecast.STEPS", 1500)
    part = forecast(plan, 0.0)
    run = fedsim.simulate(plan, timeline_only=True)

    assert whole.whole
    assert (whole.visits, whole.commits) == (len(run.visits), len(run.commits))
    assert not part.whole
    assert whole.visits / FACTOR < part.visits < whole.visits * FACTOR
    assert part.commits == pytest.approx(100, abs=1)


@pytest.mark.parametrize("budget", [{"time_s": 2.0}, {"up_bytes": 500_000}])
def test_every_budget_is_followed_to_its_end(budget):
    plan = prepared(experiment(budget=budget))
    run = fedsim.simulate(plan, timeline_only=True)
    rows = forecast(plan, 60.0)

    assert rows.visits == pytest.approx(len(run.visits), abs=25)  # what is in flight at the end
    assert rows.commits == pytest.approx(len(run.commits), abs=1)


def test_where_losses_decide_the_sampler_is_taken_for_uniform_and_rules_leave_rows_open(tmp_path):
    oort = prepared(experiment(sampler={"kind": "oort"}))
    assert forecast(oort, 60.0).visits == pytest.approx(420, rel=0.3)
    tiers = {"kind": "tiers", "cohort": 4, "probabilities": "adaptive"}
    unknown = forecast(prepared(experiment(protocol=tiers)), 60.0)
    assert unknown is None
    needs = needs_of(oort, tmp_path, None)
    assert needs.lines()[-1] == "disk: how many rows there will be is not known before the run"


def test_a_forecast_changes_nothing_of_the_run():
    plan = prepared(experiment())
    before = fedsim.simulate(prepared(experiment()))
    forecast(plan)
    after = fedsim.simulate(plan)

    assert before.visits.equals(after.visits)
    assert before.scores.equals(after.scores)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_the_memory_of_a_driver_is_what_was_said(tmp_path):
    """Both in a process of its own: what is held already counts, and `ru_maxrss` would begin with that of the tests' process."""
    plain = {**BASE, "budget": {"commits": 60}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(plain))
    code = """
from pathlib import Path
import fedsim
from fedsim.checks.gate import prepared
from fedsim.cli.app import call
from fedsim.runs.preflight.forecast import forecast
from fedsim.runs.preflight.needs import needs_of
plan = prepared(fedsim.read("small.yaml"))
said = needs_of(plan, Path("run"), forecast(plan)).needs[-1].size_bytes
call(["run", "small.yaml", "--out", "r"])
status = Path("/proc/self/status").read_text().splitlines()
print(said, next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said, took = (float(number) for number in ran.stdout.splitlines()[-1].split())

    assert 1024 * took / FACTOR < said < 1024 * took * FACTOR


def need(size_bytes, free_bytes, place="disk"):
    return RunNeeds(
        (Need(place, "/runs" if place == "disk" else "", (Share("rows", size_bytes),), free_bytes),), True
    )


def test_only_what_surely_does_not_fit_is_refused():
    need(100, None).check()
    need(150, 100).check()
    with pytest.raises(
        HostError, match=r"the run does not fit: disk: about 250 B of 100 B free in /runs \(rows 250 B\)"
    ):
        need(250, 100).check()
    with pytest.raises(HostError, match="fewer workers"):
        need(250, 100, "memory").check()
    assert [len(need(size, 100).cautions()) for size in (70, 90, 150)] == [0, 1, 1]
    assert need(90, 100).cautions()[0].startswith("note: little room: disk: about 90 B of 100 B free")


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(BASE))


def test_a_run_that_cannot_fit_is_refused_before_it_has_a_folder(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fedsim.runs.preflight.needs.free_in", lambda _: 1000)
    assert call(["run", "small.yaml", "--out", "r"]) == 3
    err = capsys.readouterr().err
    assert "error: disk: the run does not fit: disk: about " in err
    assert "of 1 kB free" in err
    assert "fix: free some space" in err
    assert not (tmp_path / "r").exists()


def test_the_numbers_are_said_at_the_start_and_by_a_dry_run(small, capsys, monkeypatch):
    monkeypatch.setattr("fedsim.report.write", lambda _runs, path, **_: path)
    assert call(["run", "small.yaml", "--out", "r", "--timeline-only"]) == 0
    err = capsys.readouterr().err
    assert "\ndisk: about " in err
    assert "\nmemory: about " in err
    assert call(["run", "small.yaml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "\ndisk: about " in out
    assert "\nmemory: about " in out


def test_a_sweep_s_point_that_cannot_fit_fails_alone(small, tmp_path, monkeypatch, capsys):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({**BASE, "sweep": {"seed": [0]}}))
    monkeypatch.setattr("fedsim.runs.preflight.needs.free_in", lambda _: 1000)
    assert call(["sweep", "grid.yaml", "--out", "out"]) == 3
    assert "the run does not fit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 200\n"}, 500),
        ({"memory.max": "max", "memory.current": "700", "memory.stat": ""}, None),
        ({"memory.max": "1000", "memory.current": "1200", "memory.stat": "inactive_file 0\n"}, 0),
        (
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "400",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
            },
            700,
        ),
        (
            {
                "memory/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/memory.usage_in_bytes": "4",
                "memory/memory.stat": "",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_room_of_a_container_counts_pages_that_it_can_drop(tmp_path, files, room):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    assert host._container_room_bytes(tmp_path) == room
