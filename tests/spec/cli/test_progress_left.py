"""The screen says how long a run will take once that can be known, for every kind of budget."""

from __future__ import annotations

import io

import pytest

from fedsim.callbacks import pacing
from fedsim.callbacks.telling import Telling
from fedsim.cli import progress
from fedsim.cli.progress import Progress
from fedsim.records.liveness.resumption import Resumption


class Wall:
    """A wall clock that a test moves."""

    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def wall(monkeypatch):
    clock = Wall()
    for module in (pacing, progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


def told(wall, budget, step_s, *, commits=10, head="", resumed_at=0, **start):
    """The lines of a run whose commits come every `step_s` real seconds; each is worth 100 virtual seconds and 5 bytes."""
    stream = io.StringIO()
    with Progress(stream, head=head) as progress:
        shown = Telling([progress])
        shown("start", {"workers": 1, "clients": 4, "budget": budget, **start})
        for version in range(1, commits + 1):
            if version <= resumed_at:
                wall.now_s += 0.001
            else:
                wall.now_s += step_s
            facts = {"version": version, "time_s": 100.0 * version, "total_up_bytes": 5 * version}
            shown("time", {"time_s": facts["time_s"]})
            shown("commit", {**facts, "updates": 2, "mean_staleness": 0.0})
            if version == resumed_at:
                shown("resumed", {"resumption": Resumption("", "killed", version, 2, version, 0.1)})
    return [line.removeprefix(head) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("budget", [{"commits": 20}, {"time_s": 2000.0}, {"up_bytes": 100}])
def test_what_is_left_is_said_with_each_commit(wall, budget):
    lines = told(wall, budget, 60.0)

    assert lines[-1].startswith("v10 | t=16m40s | 2 updates, stale 0.0 | about 10m left")
    assert all("left" in line for line in lines if line.startswith("v") and not line.startswith("v1 "))


def test_the_limit_that_is_reached_first_counts(wall):
    lines = told(wall, {"commits": 1000, "time_s": 1100.0}, 60.0)

    assert lines[-1].endswith("about 60s left") or lines[-1].endswith("about 1m left")


def test_a_run_of_a_moment_says_nothing_of_it(wall):
    assert not any("left" in line for line in told(wall, {"commits": 10}, 0.01))


def test_what_clients_train_afterwards_is_added(wall):
    """Two updates a minute: 40 visits after the run are 20 minutes more than the ten, with their own band."""
    lines = told(wall, {"commits": 20}, 60.0, visits_after=40.0)

    assert lines[-1].endswith("20m to 40m left")


def test_a_run_that_goes_on_counts_from_where_it_went_on(wall):
    lines = told(wall, {"commits": 20}, 60.0, resumed_at=5)

    assert lines[-1].endswith("about 10m left")


def test_of_several_runs_each_line_has_a_head_and_not_every_commit_is_told(wall):
    lines = told(wall, {"commits": 20}, 1.0, head="[1] seed-0: ")
    commits = [line for line in lines if line.startswith("v")]

    assert 1 < len(commits) < 10
    assert commits[-1].startswith("v10 ")


def test_notes_are_said_when_the_run_starts():
    stream = io.StringIO()
    with Progress(stream, notes=("disk: about 5 MB",)) as progress:
        Telling([progress])("start", {"workers": 1, "clients": 4, "budget": {"commits": 1}})

    assert stream.getvalue().splitlines() == ["4 clients, 1 worker, budget 1 commit", "disk: about 5 MB"]


def test_the_bar_shows_what_is_left(wall):
    stream = io.StringIO()
    with Progress(stream, bar=True) as progress:
        shown = Telling([progress])
        shown("start", {"workers": 1, "clients": 4, "budget": {"commits": 20}})
        for version in range(1, 11):
            wall.now_s += 60.0
            shown(
                "commit", {"version": version, "time_s": 1.0 * version, "updates": 1, "mean_staleness": 0.0}
            )
        task = progress._bar._rich.tasks[0]
        assert task.completed == 0.5
        assert task.fields["now"].endswith("about 10m left")
