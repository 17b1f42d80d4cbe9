"""Trackers: live and exported have the same content, each program's own reader gives it back, and nothing is sent."""

from __future__ import annotations

import json
import math
import os
import struct
import time
from pathlib import Path

import pytest
from worlds.resumed_runs import experiment_of

import fedsim
from fedsim.cli.app import call
from fedsim.errors import ExperimentError, HostError
from fedsim.trackers import AXES, KINDS, Tracked, Tracker, export, making, tracked
from fedsim.trackers.live import identity


class Kept(Tracker):
    """Keeps what it is given; a program that is always installed."""

    def __init__(self, *_):
        self.points, self.begun, self.ended, self.removed = [], [], [], 0

    def remove(self, event):
        self.removed += 1

    def begin(self, event):
        self.begun.append(event)

    def write(self, point, values):
        self.points += [(name, point.step, point.time_s, value) for name, value in values.items()]

    def end(self, event):
        self.ended.append(event)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A run with a listener for each axis."""
    listeners = {axis: Tracked(Kept(), axis) for axis in AXES}
    folder = tmp_path_factory.mktemp("trackers") / "run"
    run = fedsim.simulate(experiment_of("fedbuff"), out=folder, callbacks=[*listeners.values()], report=False)
    return run, listeners


def expected(run, axis):
    """Every value of the tables with its place, by hand."""
    commits = run.commits.rename(columns={"total_up_bytes": "up", "total_down_bytes": "down_bytes"})
    for row in commits.to_dict("records"):
        x = {"time": row["time_s"], "rounds": row["version"], "bytes": row["up"]}[axis]
        values = {
            "time_s": row["time_s"], "version": row["version"], "up_bytes": row["up"],
            "down_bytes": row["down_bytes"], "joules": row["total_joules"],
        } | {n: row[n] for n in ("updates", "mean_staleness", "max_staleness", "update_norm")}  # fmt: skip
        yield from ((f"commit/{name}", round(x), row["time_s"], value) for name, value in values.items())
    up = dict(zip(run.commits["version"], run.commits["total_up_bytes"], strict=True))
    for row in run.scores.to_dict("records"):
        x = {"time": row["time_s"], "rounds": row["version"], "bytes": up.get(row["version"], 0)}[axis]
        yield f"score/{row['split']}/{row['metric']}", round(x), row["time_s"], row["value"]


@pytest.mark.parametrize("axis", AXES)
def test_a_live_run_and_an_exported_one_hold_every_value_of_the_tables(live, axis, monkeypatch, tmp_path):
    run, listeners = live
    kept = Kept()
    monkeypatch.setitem(making.KINDS, "tensorboard", lambda *_: kept)
    monkeypatch.setattr(making, "installed", lambda _: True)
    done = export(run, "tensorboard", tmp_path, axis)
    right = sorted(row for row in expected(run, axis) if math.isfinite(row[3]))

    assert sorted(listeners[axis].tracker.points) == right
    assert sorted(kept.points) == right
    assert done.points == len(right)
    assert kept.removed == 1
    assert listeners[axis].tracker.removed == 0
    assert (kept.begun[0].name, kept.begun[0].settings) == ("run", run.experiment)
    assert kept.ended == listeners[axis].tracker.ended
    assert identity(kept.begun[0]) == identity(listeners[axis].tracker.begun[0])
    assert listeners[axis].tracker.begun[0].name == "run"


def test_a_package_that_is_not_installed_is_one_sentence(monkeypatch, tmp_path, live, capsys):
    monkeypatch.setattr(making, "installed", lambda _: False)
    for kind in KINDS:
        with pytest.raises(HostError) as caught:
            tracked(kind, tmp_path)
        assert str(caught.value) == (
            f"{kind}: the package {kind} is not installed\n  fix: pip install 'fedsim-edge[{kind}]'"
        )
    assert call(["export", str(live[0].folder), "--to", "wandb", "--out", str(tmp_path)]) == 3
    assert "pip install 'fedsim-edge[wandb]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "axis", "online", "said"),
    [
        ("tensorbord", "time", False, "did you mean 'tensorboard'?"),
        ("wandb", "hours", False, "choose one of: bytes, rounds, time"),
        ("tensorboard", "time", True, "leave it out"),
    ],
)
def test_what_cannot_be_tracked_is_named(kind, axis, online, said, tmp_path):
    with pytest.raises(ExperimentError) as caught:
        tracked(kind, tmp_path, axis, online=online)
    assert caught.value.message.fix == said


# the real packages, where they are installed ------------------------------------------------------


def tensorboard_values(out: Path):
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra"
    )
    read = module.EventAccumulator(str(out), size_guidance={"scalars": 0})
    read.Reload()
    return {
        tag: [(e.step, e.wall_time, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]
    }


def by_name(run, axis):
    found = {}
    for name, step, time_s, value in expected(run, axis):
        if math.isfinite(value):
            found.setdefault(name, []).append((step, time_s, value))
    return found


def nearly(values):
    """Values as a program that stores 32-bit floats gives them back."""
    return {
        name: [(s, pytest.approx(t), pytest.approx(v, rel=1e-6)) for s, t, v in rows]
        for name, rows in values.items()
    }


def test_tensorboard_reads_it_back(live, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    run, _ = live
    for _ in range(2):  # the second export replaces the first
        export(run, "tensorboard", tmp_path, "rounds")
    assert tensorboard_values(tmp_path / "run") == nearly(by_name(run, "rounds"))
    fedsim.simulate(
        experiment_of("fedbuff"), callbacks=[tracked("tensorboard", tmp_path / "live")], report=False
    )
    assert tensorboard_values(tmp_path / "live" / "resumed") == nearly(by_name(run, "time"))


def test_mlflow_reads_it_back(live, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is an extra")
    run, _ = live
    for _ in range(2):
        export(run, "mlflow", tmp_path, "bytes")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (stored,) = client.search_runs([client.get_experiment_by_name("fedsim").experiment_id])
    assert (stored.info.run_name, stored.info.status) == ("run", "FINISHED")
    assert stored.data.params["budget.commits"] == "9"
    name = "score/test/loss"
    history = client.get_metric_history(stored.info.run_id, name)
    right = [(s, round(t * 1000), v) for s, t, v in by_name(run, "bytes")[name]]
    assert [(m.step, m.timestamp, m.value) for m in history] == right


def wandb_history(path: Path):
    """The history of a run, once its last record is there: W&B's own process writes it some moments later."""
    for _ in range(100):
        kinds, rows = zip(*wandb_records(path), strict=True) if path.stat().st_size > 7 else ((), ())
        if "exit" in kinds:
            break
        time.sleep(0.2)
    return [row for kind, row in zip(kinds, rows, strict=True) if kind == "history"]


def wandb_records(path: Path):
    """Kind and items of the records of a `.wandb` file: in blocks of 32 KiB, as LevelDB's log has them."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []
            items = record.history.item
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            yield record.WhichOneof("record_type"), row


def test_wandb_reads_it_back_and_nothing_is_sent(live, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is an extra")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run, _ = live
    for _ in range(2):
        export(run, "wandb", tmp_path)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows = wandb_history(path)
    losses = [(row["time_s"], row["score/test/loss"]) for row in rows if "score/test/loss" in row]
    assert losses == [(t, v) for _, t, v in by_name(run, "time")["score/test/loss"]]
    assert [row["version"] for row in rows if "commit/updates" in row] == list(range(1, 10))
    assert "WANDB_API_KEY" not in os.environ
