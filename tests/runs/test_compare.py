"""`fedsim compare`: what it prints is what the tables say, as text and as numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedsim import Experiment, load, simulate
from fedsim.cli.app import call
from fedsim.records import views
from fedsim.report.several.fronts import pareto

BASE = {
    "population": {"preset": "homogeneous", "clients": 8},
    "task": {"kind": "quadratic", "dimension": 6},
    "local": {"optimizer": "sgd", "lr": 0.05, "steps": 2},
    "budget": {"commits": 6},
    "evaluate": {"every_commits": 1},
    "runtime": {"executor": "inline"},
}
WAYS = {
    "sync": {"kind": "synchronous", "cohort": 4},
    "fedbuff": {"kind": "buffered", "concurrency": 4, "buffer": 2},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two configurations of three seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for name, protocol in WAYS.items():
        for seed in range(3):
            settings = {**BASE, "name": f"{name}-{seed}", "seed": seed, "protocol": protocol}
            simulate(Experiment.model_validate(settings), out=folder / f"{name}-{seed}", report=False)
    return folder


def folders(runs):
    return [str(runs / f"{name}-{seed}") for name in WAYS for seed in range(3)]


def test_the_terminal_says_what_differs_by_how_much_and_who_is_on_the_front(runs, capsys):
    assert call(["compare", *folders(runs)]) == 0

    out = capsys.readouterr().out
    for said in (
        "What differs",
        "protocol.kind",
        "95 % interval",
        "Target chosen afterwards",
        "Pareto front",
    ):
        assert said in out, said
    assert "\x1b" not in out


def test_a_score_that_is_no_number_is_null(runs, capsys, monkeypatch):
    monkeypatch.setattr("fedsim.report.several.differences.Contest.last", lambda *_: float("inf"))

    assert call(["compare", *folders(runs), "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {configuration["last"] for configuration in said["configurations"]} == {None}


def test_the_numbers_are_those_of_the_tables(runs, capsys):
    loss = views.scored(load(runs / "sync-0"), "loss")["value"].iloc[0]
    assert call(["compare", *folders(runs), "--json", "--target", f"loss={loss}", "--target", "loss=0"]) == 0

    said = json.loads(capsys.readouterr().out)
    assert (said["metric"], said["split"], len(said["configurations"])) == ("loss", "test", 2)
    for configuration, name in zip(said["configurations"], WAYS, strict=True):
        own = [load(runs / f"{name}-{seed}") for seed in range(3)]
        assert configuration["last"] == [float(views.scored(r, "loss")["value"].iloc[-1]) for r in own]
        assert [s["up_bytes"] for s in configuration["spent"]] == [r.visits["up_bytes"].sum() for r in own]
        assert configuration["targets"][str(loss)][0]["reached"]
        assert not configuration["targets"]["0.0"][0]["reached"]
        assert configuration["targets"]["0.0"][0]["time_s"] is None
    by_time = next(d for d in said["differences_from_first"] if d["at_equal"] == "time_s")
    assert by_time["pairs"] == 3
    assert by_time["low"] <= by_time["mean"] <= by_time["high"]


def test_a_page_is_written_where_it_is_asked_for(runs, tmp_path, capsys):
    assert call(["compare", *folders(runs), "--out", str(tmp_path / "page.html")]) == 0

    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "on the Pareto front" in page
    assert "median uploaded" in page


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (["fd=16"], "fd: none of the runs scored it on test\n  fix: choose one of"),
        (["soon"], "--target: is no number (got 'soon')"),
        (["loss=1", "accuracy=2"], "--target: names two metrics"),
    ],
)
def test_a_target_that_cannot_be_is_said(runs, capsys, target, said):
    assert call(["compare", str(runs / "sync-0"), *(word for t in target for word in ("--target", t))]) == 2

    assert said in capsys.readouterr().err


def test_the_front_is_those_whom_nobody_beats():
    """By hand: (1, 4) and (4, 1) are ends, (2, 2) lies between, (2, 3) and (5, 5) are beaten, equals beat nobody."""
    costs = np.array([[1, 4], [4, 1], [2, 2], [2, 3], [5, 5], [2, 2], [np.nan, 0]], dtype=float)

    assert pareto(costs).tolist() == [True, True, True, False, False, True, False]
