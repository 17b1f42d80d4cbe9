"""How a run stands is read in any state, without writing, folding or importing what is heavy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from worlds.small_runs import small

import fedsim
from fedsim import views
from fedsim.cli.app import call
from fedsim.cli.watching.words import lines_of, plain
from fedsim.errors import RunFolderError
from fedsim.records.watching.lines import disk_bytes, last_rows, outcomes
from fedsim.records.watching.pace import Left
from fedsim.records.watching.score import LastScore, last_score
from fedsim.records.watching.status import newest_checkpoint, run_status
from fedsim.records.watching.sweep import StoredPoint, StoredSweep, sweep_status
from fedsim.records.watching.words import left_said

EXPERIMENT = {
    "name": "tiny",
    "population": {"preset": "homogeneous", "clients": 8},
    "task": {"kind": "quadratic"},
    "local": {"optimizer": "sgd"},
    "protocol": {"kind": "synchronous", "cohort": 4},
    "budget": {"commits": 6},
    "runtime": {"executor": "inline"},
    "evaluate": {"every_commits": 1},
}


class EnoughError(Exception):
    """The run is left as it is."""


def left_open(folder, commits=3, **changes):
    """A run folder as it is while a run goes: its process (this one) has written so many commits."""

    def stop(kind, _facts):
        nonlocal commits
        commits -= kind == "commit"
        if commits < 0:
            raise EnoughError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsim.records.writer.Writer.close", lambda *_, **__: None)
        with pytest.raises(EnoughError):
            fedsim.simulate(
                fedsim.Experiment.model_validate(EXPERIMENT | changes),
                out=folder,
                on_event=stop,
                report=False,
            )
    return folder


def contents(folder):
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()
    }


def info(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "done"
    fedsim.simulate(fedsim.Experiment.model_validate(EXPERIMENT), out=folder, report=False)
    return folder


@pytest.fixture
def going(tmp_path):
    return left_open(tmp_path / "going")


def test_a_finished_run_says_what_its_tables_say(done):
    run = fedsim.load(done)
    status = run_status(done)

    assert (status.name, status.status, status.share) == ("tiny", "done", 1.0)
    assert status.visits == run.visits.outcome.value_counts().to_dict()
    assert (status.version, status.time_s) == (6, run.info.end_time_s)
    last = views.curve(run, views.headline(run)).iloc[-1]
    score = (status.score.version, status.score.metric, status.score.value)
    assert score == (6, views.headline(run), last["value"])
    assert status.wall_s == run.info.wall_s
    assert (status.left, status.commits_per_min, status.quiet_s) == (None, None, None)


def test_the_last_score_of_an_older_run_is_read_from_its_table(done, tmp_path):
    new = run_status(done).score
    older = tmp_path / "older"
    older.mkdir()
    for path in done.iterdir():
        if path.is_file():
            (older / path.name).write_bytes(path.read_bytes())
    info(older, last_score=None)

    assert run_status(older).score == new


def test_a_run_that_goes_on_says_how_far_it_is_and_nothing_in_its_folder_changes(going):
    before = contents(going)
    status = run_status(going)
    commits = last_rows(going / "commits.jsonl")

    assert status.runs
    assert status.pid == os.getpid()
    assert status.version == len(commits) == 4
    assert status.share == pytest.approx(4 / 6)
    assert sum(status.visits.values()) == len(last_rows(going / "visits.jsonl"))
    assert status.time_s >= commits[-1]["time_s"]
    assert status.score.version in (3, 4)
    assert status.quiet_s < 60
    assert contents(going) == before


def test_speeds_and_what_is_left_come_from_the_wall_clock_of_the_run(going):
    """Its commits are spread by hand: ten real seconds each, the last one five seconds ago."""
    path = going / "wall.jsonl"
    path.write_text("".join(json.dumps({"wall_s": 10.0 * v, "version": v}) + "\n" for v in range(1, 5)))
    os.utime(path, (time.time() - 5, time.time() - 5))
    status = run_status(going)
    times = [row["time_s"] for row in last_rows(going / "commits.jsonl")]

    assert status.wall_s == pytest.approx(45.0, abs=0.5)
    assert status.commits_per_min == pytest.approx(60 * 3 / 35, rel=0.05)
    assert status.virtual_per_real == pytest.approx((times[-1] - times[0]) / 35, rel=0.05)
    assert status.left.middle_s == pytest.approx(15.0, abs=1.0)


def test_a_run_whose_process_is_gone_is_killed(going):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    info(going, pid=gone.pid)
    status = run_status(going)

    assert status.status == "killed"
    assert status.left is None
    assert status.version == 4
    assert "killed" in lines_of(status)[0]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_how_a_run_ended_is_said(going, status):
    info(going, status=status, reason="for a reason")
    lines = lines_of(run_status(going))

    assert lines[0].startswith(f"tiny: {status}")
    assert "reason: for a reason" in lines


def test_a_row_that_is_being_written_is_not_counted(going):
    rows = len(last_rows(going / "visits.jsonl"))
    with (going / "visits.jsonl").open("a") as file:
        file.write('{"order":99,"outcome":"landed"')
    with (going / "commits.jsonl").open("a") as file:
        file.write('{"version":99')

    assert len(last_rows(going / "visits.jsonl")) == rows == sum(run_status(going).visits.values())
    assert run_status(going).version == 4


def test_outcomes_are_counted_over_pieces_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.records.watching.lines._PIECE_BYTES", 100)
    names = ["landed", "late", "in_flight"] * 50
    path = tmp_path / "visits.jsonl"
    path.write_text(
        "".join(json.dumps({"a": 1, "outcome": name}, separators=(",", ":")) + "\n" for name in names)
    )

    assert outcomes(path) == {"in_flight": 50, "landed": 50, "late": 50}
    assert outcomes(tmp_path / "none") == {}


def test_only_the_end_of_a_long_file_is_read(tmp_path):
    path = tmp_path / "commits.jsonl"
    path.write_text("".join(json.dumps({"version": v}) + "\n" for v in range(1000)))
    rows = last_rows(path, 200)

    assert [row["version"] for row in rows] == list(range(1000 - len(rows), 1000))
    assert 5 < len(rows) < 20


def test_what_a_damaged_folder_does_not_tell_is_left_open(going):
    (going / "experiment.yaml").write_text("budget: [")
    (going / "wall.jsonl").write_bytes(b"\0\0\0\n[1]\n{\n")
    (going / "scores.jsonl").write_text('{"version": "x", "split": "test", "metric": "m", "value": null}\n')
    status = run_status(going)

    assert (status.budget, status.left, status.wall_s) == ({}, None, None)
    assert lines_of(status)


def test_a_folder_without_a_run_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(RunFolderError, match="no such folder"):
        run_status(tmp_path / "none")
    with pytest.raises(RunFolderError, match=r"holds no run \(no run.json\)"):
        run_status(tmp_path)
    for text in ("{", "[]", "\xff"):
        (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(RunFolderError, match=r"run\.json"):
            run_status(tmp_path)


def test_the_newest_checkpoint_is_named_by_its_version_and_age(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
    for number, name in enumerate(("commit-000012.safetensors", "commit-000024.safetensors", ".half")):
        (tmp_path / name).write_bytes(b"")
        then = time.time() - 100 + 10 * number
        os.utime(tmp_path / name, (then, then))
    newest = newest_checkpoint(tmp_path)

    assert newest.version == 24
    assert newest.age_s == pytest.approx(90, abs=5)


def test_the_disk_that_a_folder_takes_is_that_of_its_blocks(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")

    assert 100_000 <= disk_bytes(tmp_path) < 130_000


# the command -----------------------------------------------------------------------------------


def test_the_command_prints_text_or_one_object(done, going, capsys):
    assert call(["status", str(done)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("tiny: done")
    assert "v6 at t=" in out[1]
    assert "100 % of 6 commits" in out[1]
    assert call(["status", str(going), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["status"] == "running"
    assert facts["version"] == 4
    assert facts["host"] == socket.gethostname()
    assert call(["status", str(done / "none")]) == 2


def test_watching_looks_again_until_the_run_has_ended(going, capsys, monkeypatch):
    looks = []

    def sleep(_seconds):
        looks.append(1)
        if len(looks) == 2:
            info(going, status="done")

    monkeypatch.setattr("fedsim.cli.watching.status.time.sleep", sleep)
    assert call(["status", str(going), "--watch", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["running", "running", "done"]


def test_neither_torch_nor_pandas_is_imported(done, going):
    for folder in (done, going):
        code = (
            "import sys; from fedsim.cli.app import call; call(['status', sys.argv[1]]);"
            "print(*sorted({'torch', 'ray', 'transformers', 'pandas', 'pyarrow', 'simpy'} & sys.modules.keys()))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
        )
        assert ran.stdout.splitlines()[-1] == ""


def test_words_for_what_is_left():
    assert left_said(Left(95.0, 90.0, 100.0)) == "about 1m35s left"
    assert left_said(Left(7250.0, 7000.0, 7500.0)) == "about 2h1m left"
    assert left_said(Left(7250.0, 3000.0, 15000.0)) == "50m to 4h10m left"
    assert left_said(Left(400_000.0, 390_000.0, 410_000.0)) == "about 4d15h left"


def test_plain_values_have_no_nan():
    assert plain({"a": float("nan"), "b": (Left(1.0, 0.0, 2.0),)}) == {
        "a": None,
        "b": [{"middle_s": 1.0, "least_s": 0.0, "most_s": 2.0}],
    }


# sweeps ----------------------------------------------------------------------------------------


@pytest.fixture
def swept(tmp_path, done):
    folder = tmp_path / "sweep"
    labels = ("done", "going", "stopped", "broken", "bad-data", "later")
    points = tuple(
        StoredPoint(label, label, "0" * 64, problem="no data" * (label == "bad-data")) for label in labels
    )
    folder.mkdir()
    (folder / "done").symlink_to(done)
    for label in ("going", "stopped", "broken"):
        left_open(folder / label)
    info(folder / "stopped", status="interrupted", reason="interrupted by the user")
    info(folder / "broken", status="failed", reason="the model is infinite")
    StoredSweep(points, parallel=2, host=socket.gethostname(), pid=os.getpid()).write(folder)
    return folder


def test_a_sweep_says_what_is_done_in_flight_begun_failed_and_waiting(swept, capsys):
    status = sweep_status(swept)

    states = {point.label: point.state for point in status.points}
    assert states == {
        "done": "done",
        "going": "in flight",
        "stopped": "begun",
        "broken": "failed",
        "bad-data": "failed",
        "later": "waiting",
    }
    assert status.runs
    assert status.counted() == {"done": 1, "in flight": 1, "begun": 1, "failed": 2, "waiting": 1}
    assert call(["status", str(swept)]) == 0
    out = capsys.readouterr().out
    assert "6 points, 1 done, 1 in flight, 1 begun, 2 failed, 1 waiting" in out
    assert "the model is infinite" in out
    assert "no data" in out


def test_what_is_left_of_a_sweep_comes_from_the_points_that_are_done(tmp_path, done):
    labels = [f"p{number}" for number in range(10)]
    for label in labels[:4]:
        (tmp_path / label).mkdir()
        for name in ("run.json", "experiment.yaml"):
            (tmp_path / label / name).write_bytes((done / name).read_bytes())
        info(tmp_path / label, wall_s=100.0)
    stored = StoredSweep(
        tuple(StoredPoint(label, label, "") for label in labels),
        parallel=2,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    stored.write(tmp_path)
    left = sweep_status(tmp_path).left

    assert left.middle_s == pytest.approx(300.0)
    assert left.least_s < 300.0 < left.most_s


@pytest.mark.parametrize("folder", ["../outside", "/etc", "", "..", "a/b", "a\\b"])
def test_a_sweep_that_names_a_folder_outside_is_refused(tmp_path, folder):
    StoredSweep((StoredPoint("a", folder, ""),)).write(tmp_path)

    with pytest.raises(RunFolderError, match="names a folder outside"):
        sweep_status(tmp_path)


def test_a_damaged_sweep_file_is_refused_with_a_fix(tmp_path):
    for text in ("", "{}", '{"points": 3}', "[" * 5000):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(RunFolderError, match="remove that file"):
            sweep_status(tmp_path)


def test_the_last_score_is_that_of_the_first_metric_on_the_test_split():
    rows = small().scores.to_dict("records")
    assert last_score(rows) == LastScore(2, "test", "perplexity", 25.0)
    assert last_score([row for row in rows if row["split"] == "valid"]) == LastScore(
        2, "valid", "perplexity", 26.0
    )
    assert last_score([{**rows[0], "value": float("nan")}]).value is None
    assert last_score([]) is None
