"""Listeners from the command line: `--callback` and `--track` of runs, resumed runs and sweeps; and what cannot be one."""

from __future__ import annotations

import json

import pytest
import yaml
from worlds.no_pages import leave_out_pages
from worlds.resumed_runs import BASE, FEDBUFF

import fedsim
from fedsim.cli.app import call
from fedsim.trackers import making
from fedsim.trackers.live import Tracker

SETTINGS = {**BASE, **FEDBUFF, "name": "small", "budget": {"commits": 4}}
SETTINGS["runtime"] = {"executor": "inline", "checkpoint_commits": 2}
CODE = """
import json
from fedsim import Callback

class Log(Callback):
    def on_begin(self, event):
        self.name = event.folder.name
    def on_commit(self, event):
        with open("log.txt", "a") as file:
            file.write(f"{self.name} v{event.version}\\n")
        if event.version == 3 and open("stop.txt").read() == "yes":
            raise LookupError("the gauge is gone")

class Needs(Callback):
    def __init__(self, what):
        self.what = what

class Nothing:
    pass
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    leave_out_pages(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({**SETTINGS, "sweep": {"seed": [0, 1]}}))
    (tmp_path / "own_listeners.py").write_text(CODE)
    (tmp_path / "stop.txt").write_text("no")
    return tmp_path


def test_a_callback_that_raises_ends_the_run_and_the_folder_goes_on(here, capsys):
    (here / "stop.txt").write_text("yes")
    line = ["--callback", "own_listeners:Log"]
    assert call(["run", "my.yaml", "--out", "run", *line]) == 1
    error = capsys.readouterr().err
    assert "own_listeners.py, line 12: the callback Log raised LookupError: the gauge is gone" in error
    assert "fedsim resume run" in error

    (here / "stop.txt").write_text("no")
    assert call(["resume", "run", *line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done"
    assert (here / "log.txt").read_text().split("\n")[:-1] == [f"run v{v}" for v in (1, 2, 3, 3, 4)]
    assert "callback" not in (here / "run" / "experiment.yaml").read_text()


@pytest.mark.parametrize("parallel", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_sweep_tells_a_listener_of_each_point(here, parallel):
    """In processes of their own, too: the parent's listeners hear of them."""
    assert (
        call(["sweep", "grid.yaml", "--out", "g", "--parallel", parallel, "--callback", "own_listeners:Log"])
        == 0
    )
    lines = sorted((here / "log.txt").read_text().split("\n")[:-1])
    assert lines == [f"seed-{s} v{v}" for s in (0, 1) for v in (1, 2, 3, 4)]


def test_a_tracker_writes_beside_the_run(here, monkeypatch):
    made = []

    class Kept(Tracker):
        def __init__(self, out):
            made.append((out, self))
            self.names = []

        def remove(self, event):
            raise AssertionError("live runs remove nothing")

        def begin(self, event):
            self.names.append(event.name)

        def write(self, point, values):
            pass

        def end(self, event):
            self.names.append(event.status)

    monkeypatch.setitem(making.KINDS, "tensorboard", lambda out, _online: Kept(out))
    monkeypatch.setattr(making, "installed", lambda _: True)
    assert call(["run", "my.yaml", "--out", "runs/a", "--track", "tensorboard"]) == 0
    assert [(out, kept.names) for out, kept in made] == [(here / "runs" / "tensorboard", ["a", "done"])]
    assert fedsim.load("runs/a").info.status == "done"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("own_listeners:Needs", "Needs() raised TypeError"),
        ("own_listeners:Nothing", "must be a subclass of fedsim.callbacks.base.Callback"),
        ("own_listeners:Lug", "did you mean 'Log'?"),
        ("no_such_module_here:Log", "there is no module 'no_such_module_here'"),
        ("own_listeners", "names no class of a module"),
    ],
)
def test_what_is_no_callback_is_said_before_anything_starts(here, capsys, place, said):
    assert call(["run", "my.yaml", "--out", "run", "--callback", place]) == 2
    assert said in capsys.readouterr().err
    assert not (here / "run").exists()
