"""Callbacks: what they are told, in which order, with the numbers of the tables; and that nothing they do reaches the run."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from worlds.resumed_runs import PulledPlugError, experiment_of

import fedsim
from fedsim.callbacks import (
    Callback,
    Checkpointed,
    Committed,
    RunBegun,
    RunEnded,
    RunResumed,
    Scored,
    Starting,
    TimePassed,
)
from fedsim.callbacks.telling import Telling, event_of
from fedsim.errors import ExperimentError, RunError, RunFolderError
from fedsim.records.info import json_values


class Heard(Callback):
    """Keeps what it is told."""

    def __init__(self):
        self.events = []

    def on_starting(self, event):
        self.events.append(event)

    on_begin = on_resume = on_commit = on_score = on_time = on_checkpoint = on_note = on_end = on_starting

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class Clumsy(Heard):
    """Raises at a version, and at the end again."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def on_commit(self, event):
        if event.version == self.at:
            raise ValueError("no such gauge")

    def on_end(self, event):
        self.events.append(event)
        raise KeyError("nor this one")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    heard, folder = Heard(), tmp_path_factory.mktemp("callbacks") / "run"
    run = fedsim.simulate(experiment_of("fedbuff"), out=folder, callbacks=[heard], report=False)
    return run, heard


def test_what_is_told_has_the_numbers_of_the_tables(ran):
    run, heard = ran
    told = [(e.version, e.time_s, e.updates, e.up_bytes, e.down_bytes, e.joules) for e in heard.of(Committed)]
    columns = ["version", "time_s", "updates", "total_up_bytes", "total_down_bytes", "total_joules"]

    assert told == list(run.commits[columns].itertuples(index=False, name=None))
    rows = [(e.version, e.time_s, e.split, m, v) for e in heard.of(Scored) for m, v in e.metrics.items()]
    assert rows == list(run.scores.itertuples(index=False, name=None))


def test_a_score_says_what_its_version_had_cost_however_late_it_is_told(ran):
    run, heard = ran
    by_version = run.commits.set_index("version")
    for event in heard.of(Scored):
        spent = (event.up_bytes, event.down_bytes, event.joules)
        row = by_version.loc[event.version] if event.version else None
        assert spent == (
            (0, 0, 0.0) if row is None else (row.total_up_bytes, row.total_down_bytes, row.total_joules)
        )


def test_the_run_begins_first_and_ends_last(ran):
    run, heard = ran
    begun, ended = heard.of(RunBegun), heard.of(RunEnded)

    assert isinstance(heard.events[0], Starting)
    assert heard.events[1] == begun[0]
    assert heard.events[-1] == ended[0]
    assert (len(begun), len(ended)) == (1, 1)
    assert (begun[0].name, begun[0].folder, begun[0].clients) == ("resumed", run.folder, 12)
    assert begun[0].settings == run.experiment
    assert ended[0] == RunEnded(
        "done", run.info.reason, run.info.end_time_s, 9, run.info.totals.up_bytes,
        run.info.totals.down_bytes, run.info.totals.joules, run.folder,
    )  # fmt: skip


def test_nothing_that_a_callback_does_reaches_the_run(ran, tmp_path):
    class Vandal(Callback):
        def on_begin(self, event):
            event.settings["seed"] = event.settings["budget"]["commits"] = 1
            event.budget.clear()

        def on_score(self, event):
            with pytest.raises(TypeError):
                event.metrics["loss"] = 0.0

        def on_commit(self, event):
            with pytest.raises(dataclasses.FrozenInstanceError):
                event.version = 5

    fedsim.simulate(
        experiment_of("fedbuff"), out=tmp_path / "run", callbacks=[Vandal(), Vandal()], report=False
    )
    for name in (
        "visits.parquet",
        "commits.parquet",
        "scores.parquet",
        "experiment.yaml",
        "adapter/adapter.safetensors",
    ):
        mine, right = tmp_path / "run" / name, ran[0].folder / name
        assert mine.exists() == right.exists()
        assert not mine.exists() or mine.read_bytes() == right.read_bytes()


def test_one_that_raises_ends_the_run_with_its_line_and_a_folder_that_goes_on(ran, tmp_path):
    folder, clumsy, last = tmp_path / "run", Clumsy(at=5), Heard()
    with pytest.raises(RunError) as caught:
        fedsim.simulate(experiment_of("fedbuff"), out=folder, callbacks=[clumsy, last], report=False)

    text = str(caught.value)
    assert "test_callbacks.py, line " in text
    assert "the callback Clumsy raised ValueError: no such gauge in `Clumsy.on_commit`" in text
    assert f"fedsim resume {folder}" in text
    assert [(e.status, e.version) for e in last.of(RunEnded)] == [("failed", 5)]
    assert len(clumsy.of(RunEnded)) == 1
    info = json.loads((folder / "run.json").read_text())
    assert (info["status"], info["totals"]["commits"]) == ("failed", 5)
    assert "the callback Clumsy raised" in info["reason"]

    heard = Heard()
    run = fedsim.resume(folder, callbacks=[heard], report=False)
    assert run.commits.equals(ran[0].commits)
    assert run.scores.equals(ran[0].scores)
    at = heard.of(RunResumed)[0].version
    assert at == 4  # checkpoints are taken after every second commit
    assert [e.version for e in heard.of(Committed)] == [5, 6, 7, 8, 9]
    assert min(e.version for e in heard.of(Scored)) >= at
    assert [type(e) for e in heard.events[:3]] == [Starting, RunBegun, RunResumed]


def test_without_a_checkpoint_everything_is_told_again(ran, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(RunError):
        fedsim.simulate(experiment_of("fedbuff"), out=folder, callbacks=[Clumsy(at=5)], report=False)
    shutil.rmtree(folder / "checkpoints")
    heard = Heard()
    fedsim.resume(folder, callbacks=[heard], report=False)

    assert heard.of(RunResumed)[0].version == 0
    again = {e.version: e for e in heard.of(Committed)}
    assert again == {e.version: e for e in ran[1].of(Committed)}


def test_one_that_raises_at_the_end_leaves_a_whole_run(tmp_path):
    last, folder = Heard(), tmp_path / "run"
    with pytest.raises(RunError, match="the run itself is whole"):
        fedsim.simulate(experiment_of("fedbuff"), out=folder, callbacks=[Clumsy(at=-1), last], report=False)

    assert fedsim.load(folder).info.status == "done"
    assert [e.status for e in last.of(RunEnded)] == ["done"]


def test_an_interruption_is_told_after_the_tables_are_written(tmp_path):
    states = []

    class Stops(Heard):
        def on_time(self, event):
            raise KeyboardInterrupt

        def on_end(self, event):
            states.append((event.status, fedsim.load(event.folder).info.status))

    with pytest.raises(KeyboardInterrupt):
        fedsim.simulate(experiment_of("fedbuff"), out=tmp_path / "run", callbacks=[Stops()], report=False)
    assert states == [("interrupted", "interrupted")]


def test_a_fault_that_is_not_a_callback_s_is_told_them_and_kept(tmp_path):
    heard = Heard()

    def pull(kind, _facts):
        if kind == "commit":
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        fedsim.simulate(experiment_of("fedbuff"), callbacks=[heard], on_event=pull, report=False)
    assert [(e.status, e.folder) for e in heard.of(RunEnded)] == [("failed", None)]


def test_a_run_that_is_refused_has_neither_begun_nor_ended(tmp_path):
    heard = Heard()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    with pytest.raises(RunFolderError):
        fedsim.simulate(experiment_of("fedbuff"), out=tmp_path / "run", callbacks=[heard])
    assert heard.of((RunBegun, RunEnded)) == []


@pytest.mark.parametrize(
    ("given", "fix"),
    [(Heard, "write Heard(): an instance"), (print, "derive the class from fedsim.Callback")],
)
def test_what_is_no_callback_is_refused_before_anything_starts(given, fix):
    with pytest.raises(ExperimentError) as caught:
        fedsim.simulate(experiment_of("fedbuff"), callbacks=[given])
    assert caught.value.message.fix == fix


class Plural(Callback):
    def on_commits(self, event):
        pass


class Joined(Callback):
    def onscore(self, event):
        pass


class Deaf(Callback):
    def on_commit(self):
        pass


class Greedy(Callback):
    def on_commit(self, event, more):
        pass


class Fine(Callback):
    on_my_own = 3

    def on_commit(self, event, digits=3):
        pass

    def commit(self):
        pass

    def _end(self):
        pass


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (Plural, "Plural.on_commits: is never called: there is no such event"),
        (Joined, "did you mean 'on_score'?"),
        (Deaf, "fix: define `on_commit(self, event)`"),
        (Greedy, "Greedy.on_commit: is called with one event"),
    ],
)
def test_a_method_that_would_never_be_called_is_refused_before_anything_starts(odd, said):
    with pytest.raises(ExperimentError) as caught:
        fedsim.simulate(experiment_of("fedbuff"), callbacks=[odd()])
    assert said in str(caught.value)


def test_methods_of_other_names_and_further_defaults_are_the_user_s_own():
    assert Telling([Fine()]).begun is False


def test_a_timeline_has_commits_and_no_scores():
    heard = Heard()
    fedsim.simulate(experiment_of("fedbuff"), timeline_only=True, callbacks=[heard])

    assert [e.version for e in heard.of(Committed)] == list(range(1, 10))
    assert heard.of(Scored) == []
    assert heard.of(RunBegun)[0].workers == 0


def test_events_of_another_process_are_those_of_this_one(ran):
    """The points of a sweep that run in processes of their own are told as JSON."""
    run, heard = ran
    commit = dict(zip(run.commits, next(run.commits.itertuples(index=False)), strict=True))
    told = json.loads(json.dumps(json_values(commit)))

    assert event_of("commit", told) == heard.of(Committed)[0]
    assert event_of("time", {"time_s": 3.5}) == TimePassed(3.5)
    assert event_of("a kind of later", {}) is None
    assert heard.of(Checkpointed)[0].path == run.folder / "checkpoints" / "00000002.safetensors"


def test_an_end_is_told_once_and_only_of_what_has_begun():
    heard = Heard()
    telling = Telling([heard])
    telling("stopped", {"status": "killed"})
    assert heard.events == []
    telling("start", {})
    telling("stopped", {"status": "killed"})
    telling("stopped", {"status": "killed"})
    assert [type(e) for e in heard.events] == [RunBegun, RunEnded]
