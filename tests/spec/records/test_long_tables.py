"""Tables that are too long for memory: in parts while a run goes, in order on disk at its end, read by columns."""

from __future__ import annotations

import dataclasses
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from worlds.audited import audited
from worlds.resumed_runs import contents, copied, experiment_of, resumed, started
from worlds.small_runs import EXPERIMENT

from fedsim.errors import RunFolderError
from fedsim.files import atomic
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.rows import CommitRow, VisitRow
from fedsim.records.run import Run, load
from fedsim.records.stored import columns as stored_columns
from fedsim.records.stored import parts, spool
from fedsim.records.verify import verify
from fedsim.records.watching.status import run_status
from fedsim.records.writer import Writer
from fedsim.report.page import write
from fedsim.runs.audit import audit

RUN = audited()
PART, GROUP = 67, 101


@pytest.fixture
def short_parts(monkeypatch):
    """Short parts and row groups, and nothing that is kept in memory."""
    monkeypatch.setattr(parts, "PART", PART)
    monkeypatch.setattr(parts, "PACKED", 10)
    monkeypatch.setattr(tables, "GROUP", GROUP)
    monkeypatch.setattr(stored_columns, "KEPT_ROWS", 0)
    monkeypatch.setattr(spool, "IN_MEMORY", 150)


def rows_of(table, kind):
    """The rows of the audited run, as they were when it went: those of later dispatches may end sooner."""
    frame = getattr(RUN, table)
    if table == "visits":
        frame = frame.sort_values(["ended_s", "order"])
    return [kind(**row) for row in frame.to_dict("records")]


VISITS, COMMITS = rows_of("visits", VisitRow), rows_of("commits", CommitRow)


def begun(folder) -> Writer:
    writer = Writer(folder, EXPERIMENT)
    writer.clients({name: column.to_numpy() for name, column in RUN.clients.items()})
    return writer


def filled(writer: Writer) -> Writer:
    for row in VISITS:
        writer.visit(row)
    for row in COMMITS:
        writer.commit(row)
    return writer


def parquet(folder):
    return {table: (folder / f"{table}.parquet").read_bytes() for table in tables.TABLES}


@pytest.fixture(scope="module")
def without_parts(tmp_path_factory):
    """The folder of a run without parts, with the same row groups."""
    folder = tmp_path_factory.mktemp("long") / "whole"
    with pytest.MonkeyPatch.context() as long:
        long.setattr(parts, "PART", 10**9)
        long.setattr(tables, "GROUP", GROUP)
        filled(begun(folder)).close(status="done")
    return folder


@pytest.fixture
def whole(without_parts):
    """The bytes of its tables."""
    return parquet(without_parts)


def killed(folder):
    """The folder as a kill leaves it: of a process that is gone."""
    info = run_folder.read_head(folder)[0]
    if info.status == "running":
        run_folder.write_info(folder, dataclasses.replace(info, pid=2**22 + 1, process=None))
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# written ----------------------------------------------------------------------------------------


def test_rows_become_parts_and_parts_the_table_of_a_run_without_any(
    tmp_path, whole, without_parts, short_parts
):
    writer = filled(begun(tmp_path / "a"))
    inner = tmp_path / "a" / "unfolded"
    assert len(list(inner.glob("visits-*.parquet"))) == len(VISITS) // PART > 2
    assert not list(inner.glob("*.jsonl"))
    with (tmp_path / "a" / "visits.jsonl").open() as file:
        assert len(file.readlines()) == len(VISITS) % PART > 0
    run = writer.close(status="done")

    assert parquet(tmp_path / "a") == whole
    assert not [name for name in names(tmp_path / "a") if "unfolded" in name or "jsonl" in name]
    pd.testing.assert_frame_equal(run.visits, load(without_parts).visits)


def test_a_run_that_was_killed_with_parts_loses_no_row(tmp_path, whole, short_parts):
    writer = filled(begun(tmp_path / "a"))
    writer.release()
    with (tmp_path / "a" / "visits.jsonl").open("ab") as file:
        file.write(b'{"order": 3, "cli')
    before = names(tmp_path / "a")
    run = load(killed(tmp_path / "a"))

    assert run.info.status == "killed"
    assert parquet(tmp_path / "a") == whole
    assert "unfolded" in before
    assert "unfolded" not in names(tmp_path / "a")


def test_a_run_that_goes_is_read_and_left_as_it_is(tmp_path, short_parts):
    writer = filled(begun(tmp_path / "a"))
    before = read_of(tmp_path / "a")
    run, status = load(tmp_path / "a"), run_status(tmp_path / "a")

    assert run.info.status == "running"
    assert len(run.visits) == len(VISITS) == sum(status.visits.values())
    assert status.version == len(COMMITS)
    assert read_of(tmp_path / "a") == before
    writer.release()


def read_of(folder):
    """Every file of a run that goes, but for its lock, which has a heartbeat."""
    return {
        name: (folder / name).read_bytes() for name in names(folder) if "." in name and name != "run.lock"
    }


STEPS = {
    "before the lines are put aside": (parts, "write_part"),
    "before they are columns": (tables, "write_parquet"),
    "before the columns are on the disk": (parts, "sync_folder"),
}


@pytest.mark.parametrize("step", STEPS)
def test_whatever_ends_the_making_of_a_part_no_row_is_lost_or_there_twice(
    tmp_path, whole, short_parts, monkeypatch, step
):
    module, name = STEPS[step]
    writer, real = begun(tmp_path / "a"), getattr(module, name)
    left = iter([False, True])  # the second part is not made

    def ended(*args, **values):
        if next(left, False):
            raise KeyboardInterrupt
        return real(*args, **values)

    monkeypatch.setattr(module, name, ended)
    for row in VISITS:
        try:
            writer.visit(row)
        except KeyboardInterrupt:
            monkeypatch.setattr(module, name, real)
            assert len(load(tmp_path / "a").visits) == VISITS.index(row) + 1
    for row in COMMITS:
        writer.commit(row)
    writer.close(status="done")

    assert parquet(tmp_path / "a") == whole


@pytest.mark.parametrize(
    "renames", [0, pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow), 6]
)
def test_a_fold_of_parts_that_is_cut_off_is_done_again(
    tmp_path, without_parts, short_parts, monkeypatch, renames
):
    writer, real = filled(begun(tmp_path / "a")), type(tmp_path).replace
    left = iter([False] * renames)

    def ended(path, target):
        if next(left, True):
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", ended)
    with pytest.raises(KeyboardInterrupt):
        writer.close(status="done")
    monkeypatch.undo()
    writer.release()
    again = load(killed(tmp_path / "a"))

    pd.testing.assert_frame_equal(again.visits, load(without_parts).visits)
    assert not [name for name in names(tmp_path / "a") if "unfolded" in name]


def test_a_part_that_cannot_be_read_is_named(tmp_path, short_parts):
    filled(begun(tmp_path / "a")).release()
    part = tmp_path / "a" / "unfolded" / "visits-000001.parquet"
    part.write_bytes(part.read_bytes()[:-20])

    with pytest.raises(RunFolderError, match=r"visits-000001\.parquet: cannot be read"):
        load(tmp_path / "a")


def test_a_folder_with_parts_is_taken(tmp_path):
    (tmp_path / "unfolded").mkdir()

    assert run_folder.holds_run(tmp_path)
    assert run_folder.has_lines(tmp_path)


def test_a_link_in_place_of_the_parts_is_refused(tmp_path):
    (tmp_path / "unfolded").symlink_to(tmp_path)

    with pytest.raises(RunFolderError, match="unfolded: is no folder"):
        run_folder.read_tables(tmp_path)


@pytest.mark.parametrize("kind", ["fedbuff-adam", "ditto"])
def test_a_run_with_parts_goes_on_to_the_bytes_of_one_that_never_ended(
    tmp_path, short_parts, monkeypatch, kind
):
    monkeypatch.setattr(parts, "PART", 7)  # it has few rows
    started(experiment_of(kind), tmp_path / "whole")
    started(experiment_of(kind), tmp_path / "cut", stop=7)
    folder = copied(tmp_path / "cut", tmp_path / "killed")
    for table in run_folder.WRITTEN:  # as a kill leaves it
        lines = [
            tables.encode(row) + "\n"
            for row in tables.rows_of(tables.read_parquet(table, folder / f"{table}.parquet"))
        ]
        (folder / f"{table}.parquet").unlink()
        (folder / f"{table}.jsonl").write_text("".join(lines))
    info = dataclasses.replace(run_folder.read_head(folder)[0], status="running", files={}, pid=2**22 + 1)
    run_folder.write_info(folder, dataclasses.replace(info, process=None))
    for name in ("cut", "killed"):
        run = resumed(tmp_path / name)
        assert run.info.resumed[0].version == 6
        assert contents(tmp_path / name) == contents(tmp_path / "whole")
        assert not [path for path in names(tmp_path / name) if "unfolded" in path or "/." in path]


# read -------------------------------------------------------------------------------------------


def stored(run: Run, folder) -> Run:
    """A run in a folder, none of its tables in memory."""
    run.save(folder)
    return load(folder)


def test_only_what_is_asked_for_is_read(tmp_path, short_parts, monkeypatch):
    run, read = stored(RUN, tmp_path / "a"), []
    real = tables.read_parquet

    def noting(table, path, columns=None, groups=None):
        read.append((table, columns and tuple(columns)))
        return real(table, path, columns, groups)

    monkeypatch.setattr(stored_columns, "read_parquet", noting)
    assert len(repr(run)) > 20
    assert run.count("visits") == len(VISITS)
    assert read == []
    frame = run.frame("visits", "client", "outcome")
    assert read == [("visits", ("client", "outcome"))]
    pd.testing.assert_frame_equal(frame, RUN.visits[["client", "outcome"]])
    assert np.array_equal(run.columns("visits")["ended_s"], RUN.visits["ended_s"])
    assert sum(map(len, run.blocks("visits"))) == len(VISITS)
    pd.testing.assert_frame_equal(run.row("visits", 23), RUN.visits.iloc[[23]].reset_index(drop=True))
    for table in tables.TABLES:
        pd.testing.assert_frame_equal(getattr(run, table), getattr(RUN, table), check_exact=True)
    assert run.visits is run.visits
    assert dataclasses.replace(run, info=RUN.info).visits is run.visits


def test_a_long_table_cannot_change_unnoticed_after_it_was_loaded(tmp_path, short_parts):
    run = stored(RUN, tmp_path / "a")
    columns = tables.read_parquet("visits", tmp_path / "a" / "visits.parquet")
    time.sleep(0.01)
    tables.write_parquet("visits", columns, tmp_path / "a" / "visits.parquet")

    with pytest.raises(RunFolderError, match=r"visits\.parquet: is not the file any more that was loaded"):
        run.frame("visits", "client")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(RunFolderError, match="is not the file any more"):
        _ = run.visits


def tampered():
    """Runs that are wrong in a way each, and what is said of them where they are in memory."""
    visits = RUN.visits
    values = {
        "order": visits["order"].where(visits.index != 37, 5),
        "visit": visits["visit"].where(visits.index != 40, 9),
        "ended_s": visits["ended_s"] + 1.0,
        "joules": visits["joules"].where(visits.index % 17 != 16, 1e9),
        "staleness": visits["staleness"] + 1,
        "memory_plan": visits["memory_plan"].where(visits.index != 50, "none"),
        "dispatched_s": visits["dispatched_s"] / 2,
        "loss_square": visits["loss_square"].where(visits.index != 30, 0.0),
        "up_bytes": visits["up_bytes"].where(visits.index != 12, 7),
    }
    return {
        name: dataclasses.replace(RUN, visits=visits.assign(**{name: column}))
        for name, column in values.items()
    }


TAMPERED = tampered()
OF_EACH_KIND = ("order", "joules", "dispatched_s", "loss_square", "up_bytes")
"""Of numbers, sums, times, values and bytes one each; `-m slow` tries the others."""


@pytest.mark.parametrize(
    "column", [c if c in OF_EACH_KIND else pytest.param(c, marks=pytest.mark.slow) for c in TAMPERED]
)
def test_the_auditor_finds_in_a_long_table_what_it_finds_in_memory(tmp_path, short_parts, column):
    wrong = TAMPERED[column]
    wrong.save(tmp_path / "a")
    problems = verify(load(tmp_path / "a"))

    assert problems == verify(dataclasses.replace(load(tmp_path / "a")))  # which reads the tables whole
    of_visits = [p for p in verify(wrong) if p.startswith("visit") and "SHA-256" not in p]
    assert of_visits
    assert [p for p in problems if p.startswith("visit")] == of_visits


def test_the_replay_of_a_long_run_is_compared_as_one_in_memory(tmp_path, short_parts):
    run = stored(RUN, tmp_path / "a")
    assert audit(run).problems == ()
    visits = RUN.visits.copy()
    visits.loc[[20, 33], "flops"] *= 2
    wrong = dataclasses.replace(RUN, visits=visits)
    long = stored(wrong, tmp_path / "b")
    found, expected = audit(long).problems, audit(dataclasses.replace(wrong, folder=None)).problems

    assert [p for p in found if "replay gives" in p] == [p for p in expected if "replay gives" in p]
    assert any("column flops" in problem and "(and 1 more rows)" in problem for problem in found)


def test_the_page_of_a_long_run_is_that_of_one_in_memory(tmp_path, short_parts):
    long = stored(RUN, tmp_path / "a")
    write([long], tmp_path / "long.html")
    write([dataclasses.replace(load(tmp_path / "a"))], tmp_path / "short.html")

    assert (tmp_path / "long.html").read_bytes() == (tmp_path / "short.html").read_bytes()


def test_fedsim_itself_reads_no_whole_table_of_a_long_run(tmp_path, short_parts, monkeypatch):
    run = stored(RUN, tmp_path / "a")

    def read(_):
        raise AssertionError("the whole table of visits was read")

    monkeypatch.setattr(Run, "visits", property(read), raising=False)
    write([run], tmp_path / "a.html")
    assert verify(run) == []
    assert audit(run).problems == ()


def test_files_that_are_replaced_are_whole_or_as_before(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError

    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"before"
