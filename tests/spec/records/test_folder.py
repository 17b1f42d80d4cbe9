"""The files of a run folder: claimed once, left alone while their process may be alive."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from worlds.small_runs import EXPERIMENT, INFO

from fedsim.errors import HostError, RunFolderError
from fedsim.records import folder as run_folder
from fedsim.records import tables

GONE = 2**22 + 1  # above the largest process number of Linux


@pytest.mark.parametrize(
    ("host", "pid", "alive"),
    [
        (socket.gethostname(), os.getpid(), True),
        (socket.gethostname(), GONE, False),
        (socket.gethostname(), None, True),
        ("elsewhere", GONE, True),
    ],
    ids=["itself", "gone", "unknown", "elsewhere"],
)
def test_a_run_may_be_alive_unless_its_process_here_is_gone(host, pid, alive):
    assert run_folder.may_be_alive(replace(INFO, host=host, pid=pid)) == alive


def test_a_disk_without_room_for_a_run_is_a_fault_of_the_machine(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)

    with (
        pytest.raises(HostError, match="the disk takes no more of the run"),
        run_folder.claimed(tmp_path / "run", EXPERIMENT.plain(), INFO),
    ):
        pass


@pytest.mark.parametrize("name", ["run.json", "experiment.yaml", "visits.jsonl", "clients.parquet"])
def test_any_file_of_a_run_takes_the_folder(tmp_path, name):
    assert not run_folder.holds_run(tmp_path)
    (tmp_path / name).touch()

    assert run_folder.holds_run(tmp_path)


def test_what_goes_wrong_while_a_folder_is_claimed_is_undone(tmp_path):
    (tmp_path / "notes.txt").touch()
    with (
        pytest.raises(ZeroDivisionError),
        run_folder.claimed(tmp_path, EXPERIMENT.plain(), INFO),
    ):
        raise ZeroDivisionError

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_row_without_a_column_is_named_with_its_file(tmp_path):
    (tmp_path / "scores.jsonl").write_text('{"version":0,"time_s":0.0,"split":"test","metric":"loss"}\n')

    with pytest.raises(RunFolderError, match=r"scores.jsonl: a row has no 'value'"):
        run_folder.read_tables(tmp_path)


def test_what_the_last_word_vouches_for_is_on_the_disk_before_it(tmp_path, monkeypatch):
    """Or a power failure leaves a run that is `done`, and its adapter full of zeros."""
    (tmp_path / "adapter" / "inner").mkdir(parents=True)
    (tmp_path / "wall.jsonl").write_text('{"wall_s":1.0}\n')
    (tmp_path / "adapter" / "inner" / "model.safetensors").write_bytes(b"weights")
    synced, fsync = [], os.fsync

    def recorded(descriptor):
        at = os.fstat(descriptor)
        synced.append(("done" if (tmp_path / "run.json").exists() else "before", at.st_ino))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    columns = {table: tables.joined(table, []) for table in tables.TABLES}

    info = run_folder.fold(tmp_path, columns, replace(INFO, status="done"))

    assert {"wall.jsonl", "adapter/inner/model.safetensors"} < info.files.keys()
    for name in [*info.files, "adapter", "adapter/inner"]:
        assert ("before", (tmp_path / name).stat().st_ino) in synced, name


def test_tables_that_are_not_there_yet_are_empty_unless_the_run_is_complete(tmp_path):
    assert {
        name: len(columns["version"])
        for name, columns in run_folder.read_tables(tmp_path).items()
        if "version" in columns
    } == {
        "visits": 0,
        "commits": 0,
        "scores": 0,
    }
    with pytest.raises(RunFolderError, match=r"clients\.parquet"):
        run_folder.read_tables(tmp_path, complete=True)
    assert list(run_folder.read_tables(tmp_path)) == list(tables.TABLES)
