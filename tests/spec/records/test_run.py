"""A run folder is written as it goes, survives a kill, and is equal to the byte for equal runs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.config.experiment import Experiment
from fedsim.errors import RunError, RunFolderError
from fedsim.records import tables
from fedsim.records.info import Totals
from fedsim.records.rows import CommitRow, ScoreRow, VisitRow, plain
from fedsim.records.run import Run, load
from fedsim.records.writer import Writer

NAN = math.nan


def experiment(**changes) -> Experiment:
    base = {
        "task": {"kind": "quadratic"},
        "population": {"preset": "homogeneous", "clients": 3},
        "budget": {"commits": 2},
    }
    return Experiment.model_validate({**base, **changes})


def visit(order: int = 0, **changes):
    row = {
        "order": order,
        "client": 1,
        "visit": 0,
        "version": 0,
        "round": 0,
        "dispatched_s": 1.5 * order,
        "downloaded_s": 1.5 * order + 0.1,
        "trained_s": 1.5 * order + 1.1,
        "landed_s": 1.5 * order + 1.2,
        "ended_s": 1.5 * order + 1.2,
        "outcome": "landed",
        "away": "",
        "paused_s": 0.0,
        "work_share": 1.0,
        "battery": NAN,
        "staleness": 0,
        "down_bytes": 100,
        "up_bytes": 40,
        "serialized_down_bytes": 10,
        "serialized_up_bytes": 4,
        "flops": 1e9,
        "joules": 1 / 3,
        "gross_joules": 1 / 3 + 0.3,
        "rank": 8,
        "memory_plan": "fits",
        "computed": True,
        "examples": 8,
        "tokens": 512,
        "loss": 2.5,
        "loss_square": 6.5,
        "committed_version": 1,
    }
    return VisitRow(**{**row, **changes})


LOST = {
    "outcome": "offline",
    "trained_s": NAN,
    "landed_s": NAN,
    "loss": NAN,
    "computed": False,
    "staleness": -1,
    "committed_version": -1,
}


def commit(version: int = 1, **changes):
    row = {
        "version": version,
        "time_s": 10.0 * version,
        "updates": 2,
        "mean_staleness": 0.5,
        "max_staleness": 1,
        "up_bytes": 80,
        "total_up_bytes": 80 * version,
        "total_down_bytes": 200 * version,
        "total_joules": 0.1 * version,
        "update_norm": 0.25,
        "mean_cosine": NAN,
    }
    return CommitRow(**{**row, **changes})


def score(version: int, metric: str = "perplexity", value: float = 30.0):
    return ScoreRow(version, 10.0 * version, "test", metric, value)


def clients(n: int = 3):
    numbers = {name: np.arange(n) * 1.0 for name, dtype in tables.TABLES["clients"].items() if dtype != "str"}
    counts = {name: np.arange(n) for name in ("client", "rank", "examples", "tokens")}
    names = {"device": "phone", "tier": "low", "network": "4g", "memory_plan": "fits", "windows": "0.0:inf"}
    return {**numbers, **counts, **{name: [value] * n for name, value in names.items()}}


def fill(writer: Writer) -> None:
    writer.clients(clients())
    for order in range(4):
        writer.visit(visit(order, **(LOST if order == 2 else {})))
    writer.commit(commit(1))
    writer.score(score(0, value=40.0))
    writer.score(score(1))
    writer.wall({"version": 1, "wall_s": 0.25})


def same(one: Run, other: Run) -> None:
    from pandas.testing import assert_frame_equal

    for table in tables.TABLES:
        assert_frame_equal(getattr(one, table), getattr(other, table), check_exact=True)


def python(code: str, *args: object, kill_when: str | None = None) -> int:
    """Run a script in its own process; kill it with SIGKILL once it prints `kill_when`."""
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )
    if kill_when is not None:
        assert process.stdout.readline().strip() == kill_when
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode


def test_a_closed_run_loads_as_it_was_returned(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    fill(writer)
    closed = writer.close(status="done", ended=replace(writer.info, executor="inline"))
    loaded = load(tmp_path / "a")

    same(closed, loaded)
    assert closed.info == loaded.info
    assert closed.experiment == loaded.experiment
    assert loaded.wall == [{"version": 1, "wall_s": 0.25}]


def test_a_run_in_memory_and_a_run_in_a_folder_have_equal_tables(tmp_path):
    runs = []
    for folder in (None, tmp_path / "a"):
        writer = Writer(folder, experiment())
        fill(writer)
        runs.append(writer.close(status="done"))

    same(*runs)
    assert runs[0].folder is None
    assert runs[0].info.totals == runs[1].info.totals


def test_a_run_in_memory_can_be_saved_and_loaded(tmp_path):
    writer = Writer(None, experiment())
    fill(writer)
    run = writer.close(status="done")
    saved = run.save(tmp_path / "a")
    loaded = load(tmp_path / "a")

    assert saved.folder == tmp_path / "a"
    same(run, loaded)
    assert loaded.info == saved.info == replace(run.info, files=saved.info.files)
    assert loaded.wall == run.wall


def test_equal_runs_give_equal_bytes_whenever_and_wherever_they_are_written(tmp_path):
    for name in ("a", "b"):
        writer = Writer(tmp_path / name, experiment(name=name))
        fill(writer)
        writer.close(status="done")
        time.sleep(0.01)

    for table in tables.TABLES:
        a, b = ((tmp_path / name / f"{table}.parquet").read_bytes() for name in "ab")
        assert a == b, table


def test_a_saved_table_equals_a_streamed_one_to_the_byte(tmp_path):
    streamed = Writer(tmp_path / "a", experiment())
    memory = Writer(None, experiment())
    fill(streamed)
    fill(memory)
    streamed.close(status="done")
    memory.close(status="done").save(tmp_path / "b")

    for table in tables.TABLES:
        a, b = ((tmp_path / name / f"{table}.parquet").read_bytes() for name in "ab")
        assert a == b, table


def test_every_table_has_its_columns_and_dtypes_even_without_rows(tmp_path):
    Writer(tmp_path / "a", experiment()).close(status="failed", reason="nobody came")
    run = load(tmp_path / "a")

    for table, columns in tables.TABLES.items():
        frame = getattr(run, table)
        assert len(frame) == 0
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == columns


def test_rows_keep_their_dtypes(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    writer.visit(visit(np.int64(0), joules=np.float64(0.1), computed=np.bool_(True), up_bytes=np.int64(7)))
    run = writer.close(status="done")

    assert {name: str(dtype) for name, dtype in run.visits.dtypes.items()} == tables.TABLES["visits"]
    assert run.visits.loc[0, "up_bytes"] == 7


@settings(max_examples=100, deadline=None)
@given(value=st.floats(allow_nan=False))
def test_any_float_comes_back_from_a_line_to_the_bit(value):
    row = json.loads(tables.encode({"joules": np.float64(value)}))

    assert np.float64(row["joules"]).tobytes() == np.float64(value).tobytes()


def test_odd_floats_come_back_from_the_folder_to_the_bit(tmp_path):
    odd = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, NAN, 1e22, 2**53 + 2.0]
    writer = Writer(tmp_path / "a", experiment())
    for order, value in enumerate(odd):
        writer.visit(visit(order, loss=value))
    writer.close(status="done")

    assert load(tmp_path / "a").visits["loss"].to_numpy().tobytes() == np.array(odd).tobytes()


def test_visits_are_sorted_by_dispatch_and_lines_are_gone_after_the_fold(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    for order in (2, 0, 3, 1):
        writer.visit(visit(order, dispatched_s=float(order // 2)))
    run = writer.close(status="done")

    assert run.visits["order"].tolist() == [0, 1, 2, 3]
    assert not list((tmp_path / "a").glob("*visits.jsonl"))


def test_metrics_of_one_version_keep_the_order_in_which_they_were_written():
    writer = Writer(None, experiment())
    for version in (1, 0):
        for metric in ("perplexity", "bits_per_byte"):
            writer.score(score(version, metric))
    scores = writer.close(status="done").scores

    assert scores["version"].tolist() == [0, 0, 1, 1]
    assert scores["metric"].tolist() == ["perplexity", "bits_per_byte"] * 2


def test_a_row_is_on_the_disk_as_soon_as_it_was_written(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    writer.visit(visit(0))

    assert len((tmp_path / "a" / "visits.jsonl").read_text().splitlines()) == 1


KILLED = """
    import sys, time
    from pathlib import Path
    from test_run import commit, clients, experiment, score, visit
    from fedsim.records.writer import Writer
    writer = Writer(Path(sys.argv[1]), experiment())
    writer.clients(clients())
    for order in range(5):
        writer.visit(visit(order))
    writer.commit(commit(1))
    writer.score(score(0))
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_loses_nothing_and_is_folded_by_whoever_loads_it(tmp_path):
    assert python(KILLED, tmp_path / "a", kill_when="written") == -signal.SIGKILL
    with (tmp_path / "a" / "visits.jsonl").open("ab") as file:
        file.write(b'{"order":5,"client":1,"vis')  # the kill came in the middle of a line
    run = load(tmp_path / "a")

    assert run.visits["order"].tolist() == [0, 1, 2, 3, 4]
    assert run.info.status == "killed"
    assert run.info.totals.commits == 1
    assert run.info.totals.up_bytes == 5 * 40
    assert not list((tmp_path / "a").glob("*.jsonl"))
    same(run, load(tmp_path / "a"))
    assert load(tmp_path / "a").info == run.info


def test_loading_a_run_that_still_goes_leaves_its_files_alone(tmp_path):
    writer = Writer(tmp_path / "a", experiment())  # this very process is alive
    writer.visit(visit(0))
    early = load(tmp_path / "a")
    writer.visit(visit(1))
    late = writer.close(status="done")

    assert early.info.status == "running"
    assert early.visits["order"].tolist() == [0]
    assert late.visits["order"].tolist() == [0, 1]


def test_a_run_of_another_host_may_be_alive_and_is_left_alone(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    writer.visit(visit(0))
    info = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "a" / "run.json").write_text(json.dumps({**info, "host": "elsewhere", "pid": 999_999_999}))

    assert len(load(tmp_path / "a").visits) == 1
    assert (tmp_path / "a" / "visits.jsonl").exists()


def test_a_fold_that_was_cut_off_is_done_again(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    fill(writer)
    lines = (tmp_path / "a" / "commits.jsonl").read_bytes()
    run = writer.close(status="done")
    (tmp_path / "a" / "commits.jsonl").write_bytes(
        lines
    )  # Parquet and run.json written, lines not yet dropped

    same(run, load(tmp_path / "a"))
    assert not (tmp_path / "a" / "commits.jsonl").exists()


def test_damage_before_the_last_line_is_an_error_that_names_the_line(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    writer.visit(visit(0))
    with (tmp_path / "a" / "visits.jsonl").open("ab") as file:
        file.write(b'{"order":\n')
    writer.visit(visit(1))

    with pytest.raises(RunFolderError, match=r"visits\.jsonl: line 2: is not a row in JSON"):
        load(tmp_path / "a")


def test_a_folder_that_holds_a_run_is_refused_and_not_touched(tmp_path):
    Writer(tmp_path / "a", experiment()).close(status="done")
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}

    with pytest.raises(RunFolderError, match="holds a run already"):
        Writer(tmp_path / "a", experiment(seed=1))
    with pytest.raises(RunFolderError, match="holds a run already"):
        load(tmp_path / "a").save(tmp_path / "a")

    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before


@pytest.mark.parametrize("name", ["run.json", "experiment.yaml", "visits.jsonl", "commits.parquet"])
def test_any_file_of_a_run_makes_a_folder_taken(tmp_path, name):
    (tmp_path / name).write_text("")

    with pytest.raises(RunFolderError, match="holds a run already"):
        Writer(tmp_path, experiment())
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_existing_folder_without_a_run_is_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    Writer(tmp_path, experiment()).close(status="done")

    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_where_the_folder_should_be_is_refused(tmp_path):
    (tmp_path / "a").write_text("")

    with pytest.raises(RunFolderError, match="is a file, not a folder"):
        Writer(tmp_path / "a", experiment())
    with pytest.raises(RunFolderError, match="cannot be created"):
        Writer(tmp_path / "a" / "b", experiment())


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    run = Writer(None, experiment()).close(status="done")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write_parquet", full)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    for folder in (tmp_path / "new" / "a", tmp_path / "mine"):
        with pytest.raises(OSError, match="No space"):
            run.save(folder)

    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["mine", "mine/notes.txt"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: None, "no such folder"),
        (lambda p: p.mkdir(), "holds no run"),
        (lambda p: (p.mkdir(), (p / "run.json").write_text("{")), "no experiment.yaml"),
        (lambda p: _write(p, "run.json", "{"), "cannot be read"),
        (lambda p: _write(p, "run.json", "[]"), "is damaged"),
        (lambda p: _write(p, "experiment.yaml", "a: [1"), "cannot be read"),
        (lambda p: _write(p, "visits.parquet", "not parquet"), "visits.parquet"),
        (lambda p: (_write(p, "run.json", None), (p / "scores.parquet").unlink()), "scores.parquet"),
    ],
)
def test_what_is_no_run_is_refused_with_its_path(tmp_path, make, says):
    make(tmp_path / "a")

    with pytest.raises(RunFolderError, match=says):
        load(tmp_path / "a")


def _write(folder: Path, name: str, text: str | None) -> None:
    Writer(folder, experiment()).close(status="done")
    if text is not None:
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    "row", [visit(up_bytes=1.5), visit(outcome=3), visit(computed=1), visit(joules="many")]
)
def test_a_row_that_does_not_fit_is_refused_at_once(tmp_path, row):
    writer = Writer(tmp_path / "a", experiment())

    with pytest.raises(RunError, match=r"visits"):
        writer.visit(row)


def test_the_table_of_clients_needs_every_column_and_equal_lengths():
    writer = Writer(None, experiment())
    with pytest.raises(RunError, match="rank"):
        writer.clients({k: v for k, v in clients().items() if k != "rank"})
    with pytest.raises(RunError, match="length"):
        writer.clients({**clients(), "rank": np.arange(2)})

    writer.clients({**clients(), "train_w": np.ones(3)})  # the population knows more than the table keeps
    assert list(writer.close(status="done").clients.columns) == list(tables.TABLES["clients"])


def test_run_json_says_what_ran_where_and_how_it_ended(tmp_path):
    chosen = experiment(seed=7)
    writer = Writer(tmp_path / "a", chosen)
    fill(writer)
    said = replace(writer.info, end_time_s=12.5, task={"loss": NAN}, totals=Totals(visits=4, refused=1))
    writer.close(status="interrupted", reason="Ctrl-C", ended=said)
    info = json.loads((tmp_path / "a" / "run.json").read_text(), parse_constant=pytest.fail)

    assert (info["name"], info["seed"], info["digest"]) == ("run", 7, chosen.digest)
    assert (info["status"], info["reason"]) == ("interrupted", "Ctrl-C")
    assert info["end_time_s"] == 12.5  # what the simulation says goes before what the tables show
    assert info["task"] == {"loss": None}
    assert (info["totals"]["visits"], info["totals"]["refused"], info["totals"]["commits"]) == (4, 1, 0)
    assert info["saved_share"] == 0.25  # one visit of four was never trained
    assert info["versions"]["python"] == sys.version.split()[0]
    assert info["ended"] >= info["started"]


def test_a_run_that_broke_off_tells_of_what_its_tables_add_up_to():
    writer = Writer(None, experiment())
    fill(writer)
    info = writer.close(status="failed", reason="out of luck").info

    assert info.end_time_s == 10.0
    assert info.totals == Totals(
        clients=3,
        visits=4,
        commits=1,
        outcomes={"landed": 3, "offline": 1},
        up_bytes=160,
        down_bytes=400,
        serialized_up_bytes=16,
        serialized_down_bytes=40,
        joules=pytest.approx(4 / 3),
        gross_joules=pytest.approx(4 / 3 + 1.2),
    )


def test_experiment_yaml_holds_the_whole_configuration(tmp_path):
    chosen = experiment(seed=3, local={"lr": 1e-5, "steps": 4})
    Writer(tmp_path / "a", chosen).close(status="done")
    stored = yaml.safe_load((tmp_path / "a" / "experiment.yaml").read_text())

    assert Experiment.model_validate(stored) == chosen
    assert Experiment.model_validate(load(tmp_path / "a").experiment) == chosen


def test_paths_in_experiment_yaml_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    population = {"devices": "d.csv", "networks": "n.csv", "clients": 2}
    Writer(tmp_path / "a", experiment(population=population)).close(status="done")

    assert load("a").experiment["population"]["devices"] == str(tmp_path / "d.csv")


def test_the_repr_of_a_run_is_one_short_line():
    run = Writer(None, experiment()).close(status="done")

    assert repr(run) == "<Run run: done, 0 commits, 0 visits, 0 clients>"


def test_many_rows_fold_to_the_same_columns_as_few(tmp_path):
    rows = 2 * 8192 + 5  # more than one chunk
    runs = []
    for folder in (None, tmp_path / "a"):
        writer = Writer(folder, experiment())
        for order in range(rows):
            writer.visit(visit(order))
        runs.append(writer.close(status="done"))

    same(*runs)
    assert runs[0].visits["order"].tolist() == list(range(rows))


def older(folder: Path) -> None:
    """Make a folder as versions wrote it that called the column `computed` `trained`."""
    import pyarrow.parquet as pq

    path = folder / "visits.parquet"
    table = pq.read_table(path)
    pq.write_table(
        table.rename_columns(["trained" if c == "computed" else c for c in table.column_names]), path
    )


def test_a_folder_of_an_older_version_is_read_with_todays_name_of_a_column(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    fill(writer)
    closed = writer.close(status="done")
    older(tmp_path / "a")

    same(closed, load(tmp_path / "a"))


def test_lines_of_an_older_version_are_read_with_todays_name_of_a_column(tmp_path):
    writer = Writer(tmp_path / "a", experiment())
    fill(writer)
    closed = writer.close(status="done")
    rows = [plain(visit(order, **(LOST if order == 2 else {}))) for order in range(4)]
    lines = [tables.encode({"trained" if c == "computed" else c: v for c, v in row.items()}) for row in rows]
    (tmp_path / "a" / "visits.jsonl").write_text("\n".join(lines) + "\n")

    same(closed, load(tmp_path / "a"))


def test_a_notebook_is_shown_a_run_and_an_experiment_and_no_markup_of_theirs(tmp_path):
    writer = Writer(tmp_path / "run", experiment(name="run"))
    fill(writer)
    run = writer.close(status="failed", reason="<script>alert(1)</script>")

    shown = run._repr_html_()

    assert "<caption>run</caption>" in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "failed: " in shown
    assert "seed: 3" in experiment(seed=3)._repr_html_()
