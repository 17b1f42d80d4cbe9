"""Who is at work on a run: the lock counts, then the process with its boot and start, then the last beat of another host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from worlds.small_runs import EXPERIMENT, INFO

from fedsim.errors import HostError, RunFolderError
from fedsim.records.liveness import hold as holding
from fedsim.records.liveness import standing as judging
from fedsim.records.liveness.hold import HEAD_BYTES, NAME, ROOM_BYTES, hold, is_held, mark_of
from fedsim.records.liveness.process import Process, is_there, this_process
from fedsim.records.liveness.standing import STALE_S, standing
from fedsim.records.run import load
from fedsim.records.writer import Writer

HOLDER = """
import sys, time
from pathlib import Path
from fedsim.records.liveness.hold import hold
held = hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(folder):
    """A process of its own that holds the lock on a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def started(folder):
    """A run that is going: a writer of this process, and its folder."""
    return Writer(folder, EXPERIMENT), folder


def rewritten(folder, **changes):
    """Have a lock file say something else, as another process or host would have written it."""
    text = (folder / NAME).read_bytes()
    values = {**json.loads(text[:HEAD_BYTES]), **changes}
    (folder / NAME).write_bytes(json.dumps(values).ljust(HEAD_BYTES).encode())


def left_behind(folder, **changes):
    """What a killed run leaves: a folder whose lock nobody holds."""
    writer, _ = started(folder)
    writer._hold._close()  # as the kernel does at the end of a process
    rewritten(folder, **changes)
    return folder


# the lock ---------------------------------------------------------------------------------------


def test_a_folder_has_one_holder_whose_end_frees_it(tmp_path):
    with holder(tmp_path) as process:
        assert is_held(tmp_path)
        with pytest.raises(RunFolderError, match=rf"process {process.pid} on .* is at work on this run"):
            hold(tmp_path)
        process.send_signal(signal.SIGSTOP)  # it sleeps, and still has it
        assert is_held(tmp_path)
        process.kill()
        process.wait()
        assert not is_held(tmp_path)
        assert (tmp_path / NAME).exists()
        hold(tmp_path).release()
    assert not (tmp_path / NAME).exists()


def test_a_zombie_holds_nothing(tmp_path):
    with holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        stop_s = time.monotonic() + 30
        while is_held(tmp_path) and time.monotonic() < stop_s:  # its threads end one after the other
            time.sleep(0.01)

        assert not is_held(tmp_path)
        assert os.path.exists(f"/proc/{process.pid}")  # noqa: PTH110  # nobody has waited for it
        assert is_there(process.pid, replace(this_process(), began_ticks=None)) is False


def test_a_process_holds_a_folder_once_and_can_take_it_again(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "_PATIENCE_S", 0.0)
    held = hold(tmp_path)
    with pytest.raises(RunFolderError, match=f"process {os.getpid()}"):
        hold(tmp_path)
    held.release()
    held.release()
    hold(tmp_path).release()


def test_who_only_looks_does_not_turn_a_start_away(tmp_path):
    held = hold(tmp_path)
    descriptor = os.open(tmp_path / NAME, os.O_RDONLY)
    assert is_held(tmp_path)
    held.release()
    import fcntl

    (tmp_path / NAME).touch()
    looking = os.open(tmp_path / NAME, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        time.sleep(0.2)
        os.close(looking)
        assert process.stdout.readline() == b"held\n"
        process.kill()
    os.close(descriptor)


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_somebody_has_put_in_the_file_s_place_is_neither_followed_nor_changed(tmp_path, kind):
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    other.write_text("mine")
    match kind:
        case "link":
            (folder / NAME).symlink_to(other)
        case "hard link":
            os.link(other, folder / NAME)
        case "pipe":
            os.mkfifo(folder / NAME)

    assert not is_held(folder)
    assert mark_of(folder) is None
    held = hold(folder)
    assert is_held(folder)
    assert other.read_text() == "mine"
    held.release()


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[" * 900, b'{"pid": "x"}', b"\xff\xfe", b'{"host":"h","pid":-1,"process":{}}']
)
def test_a_lock_file_that_says_nothing_is_no_mark(tmp_path, text):
    (tmp_path / NAME).write_bytes(text)
    assert mark_of(tmp_path) is None


def test_the_holder_beats(tmp_path, monkeypatch):
    held = hold(tmp_path)
    first = mark_of(tmp_path)
    assert abs(first.beat - time.time()) < 5
    monkeypatch.setattr(holding.time, "time", lambda: 12345.0)
    held.beat()

    assert mark_of(tmp_path) == replace(first, beat=12345.0)
    held.release()
    held.beat()  # too late, and harmless
    assert not (tmp_path / NAME).exists()


def test_the_room_is_on_the_disk_and_can_be_given_back(tmp_path):
    held = hold(tmp_path)
    assert (tmp_path / NAME).stat().st_blocks * 512 >= ROOM_BYTES
    held.give_room()
    assert (tmp_path / NAME).stat().st_size == HEAD_BYTES
    assert mark_of(tmp_path).pid == os.getpid()
    held.release()


# which process ----------------------------------------------------------------------------------


def test_a_number_that_another_process_has_now_is_not_that_process():
    me = this_process()

    assert is_there(os.getpid(), me) is True
    assert is_there(os.getpid(), replace(me, began_ticks=me.began_ticks - 1)) is False
    assert is_there(2**22 + 1, me) is False
    assert is_there(os.getpid(), replace(me, namespace="pid:[1]")) is None


def test_a_process_with_any_name_is_found(tmp_path):
    script = tmp_path / "a ) R 1 2 (b"
    script.write_text("#!/bin/sh\nsleep 60 &\necho ready\nwait\n")
    script.chmod(0o755)
    with subprocess.Popen([str(script)], stdout=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()
        assert is_there(process.pid, replace(this_process(), began_ticks=None)) is True
        os.killpg(process.pid, signal.SIGKILL)


# how a run stands -------------------------------------------------------------------------------


def test_a_run_that_is_going_is_running_and_says_who_runs_it(tmp_path):
    writer, folder = started(tmp_path / "a")

    run = load(folder)
    assert run.info.status == "running"
    assert run.info.reason == f"process {os.getpid()} on {socket.gethostname()} is at work on it"
    writer.close(status="done")
    assert load(folder).info.status == "done"
    assert not (folder / NAME).exists()


@pytest.mark.parametrize("how", ["another process", "reused number", "another container"])
def test_a_number_that_is_in_use_again_keeps_no_run_alive(tmp_path, how):
    me = this_process()
    process = {
        "another process": {"pid": 1},
        "reused number": {"process": {**vars_of(me), "began_ticks": me.began_ticks - 1}},
        "another container": {"host": "elsewhere", "process": {**vars_of(me), "namespace": "pid:[1]"}},
    }[how]
    run = load(left_behind(tmp_path / "a", **process))

    assert run.info.status == "killed"
    assert "has ended" in run.info.reason
    assert not (tmp_path / "a" / NAME).exists()


def vars_of(process):
    return {"boot": process.boot, "namespace": process.namespace, "began_ticks": process.began_ticks}


def test_where_files_cannot_be_locked_the_process_counts(tmp_path):
    me = this_process()
    alive = left_behind(tmp_path / "alive", locked=False)
    dead = left_behind(
        tmp_path / "dead", locked=False, process={**vars_of(me), "began_ticks": me.began_ticks - 1}
    )

    assert load(alive).info.status == "running"
    assert load(dead).info.status == "killed"


def test_a_copy_of_a_run_that_goes_on_here_is_not_running(tmp_path):
    _writer, folder = started(tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")

    assert load(folder).info.status == "running"
    run = load(tmp_path / "b")
    assert run.info.status == "killed"
    assert run.info.reason == "nobody has closed the run: the folder is a copy, and nobody writes to it"


ELSEWHERE = {"host": "elsewhere", "process": {"boot": "another", "namespace": "pid:[1]", "began_ticks": 5}}


@pytest.mark.parametrize("fresh", [True, False])
def test_a_copy_from_another_host_never_counts_as_running(tmp_path, fresh):
    beat = time.time() - (0 if fresh else 9999)
    shutil.copytree(left_behind(tmp_path / "a", **ELSEWHERE, beat=beat), tmp_path / "b")

    assert load(tmp_path / "b").info.status == "killed"


@pytest.mark.parametrize(
    ("silent_s", "status", "words"),
    [
        (20.0, "running", "process 77 on elsewhere was at work on it 20"),
        (STALE_S + 60, "killed", "process 77 on elsewhere has shown no sign of life for 6m"),
        (3 * 3600.0, "killed", "for 3h"),
    ],
)
def test_a_run_of_another_host_on_a_disk_that_both_have_is_judged_by_its_last_beat(
    tmp_path, silent_s, status, words
):
    folder = left_behind(tmp_path / "a", **ELSEWHERE, pid=77, beat=time.time() - silent_s)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    run = load(folder)
    assert run.info.status == status
    assert words in run.info.reason
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before  # it may be wrong: nothing is touched


def test_a_machine_that_was_started_again_has_ended_its_runs(tmp_path, monkeypatch):
    other = {"process": {"boot": "the boot before", "namespace": "pid:[1]", "began_ticks": 5}}
    folder = left_behind(tmp_path / "a", **other, beat=time.time() - 40)
    monkeypatch.setattr(judging, "booted_s", lambda: time.time() - 30)

    assert "has been started again" in standing(folder, INFO).words
    assert load(folder).info.status == "killed"


@pytest.mark.parametrize("process", [None, "own", "reused"])
def test_a_run_without_a_lock_file_is_judged_by_its_run_json(tmp_path, process):
    me = this_process()
    named = {"own": me, "reused": replace(me, began_ticks=me.began_ticks - 1), None: None}[process]
    info = replace(INFO, status="running", host=socket.gethostname(), pid=os.getpid(), process=named)

    assert standing(tmp_path, info).alive == (process != "reused")
    assert standing(None, info) == standing(tmp_path, info)


def test_a_folder_that_somebody_has_begun_to_work_on_is_not_tidied_up(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "_PATIENCE_S", 0.0)
    folder = left_behind(tmp_path / "a")
    real = judging.is_held
    monkeypatch.setattr(judging, "is_held", lambda _folder: False)  # it was free when it was looked at
    held = hold(folder)
    assert real(folder)

    load(folder)
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    held.release()


def test_run_json_names_the_process_and_reads_it_back(tmp_path):
    _writer, folder = started(tmp_path / "a")
    written = json.loads((folder / "run.json").read_text())

    assert written["process"] == vars_of(this_process())
    assert load(folder).info.process == this_process()
    assert Process() == Process("", "", None)


# a disk that is full ----------------------------------------------------------------------------


class Full:
    """A disk with so many bytes left: `os.write` takes what fits, then says no. Truncating gives room."""

    def __init__(self, monkeypatch, left):
        self.left, self.write, self.truncate = left, os.write, os.ftruncate
        monkeypatch.setattr(os, "write", self.take)
        monkeypatch.setattr(os, "ftruncate", self.give)

    def take(self, descriptor, data):
        if self.left <= 0:
            raise OSError(28, os.strerror(28))
        written = self.write(descriptor, bytes(data[: self.left]))
        self.left -= written
        return written

    def give(self, descriptor, size):
        self.left += max(0, os.fstat(descriptor).st_size - size)
        self.truncate(descriptor, size)


@pytest.mark.parametrize("left", [0, 1, 40, 1000])
def test_a_row_that_does_not_fit_ends_the_run_with_whole_rows(tmp_path, monkeypatch, left):
    writer, folder = started(tmp_path / "a")
    rows = 0
    Full(monkeypatch, left)
    with pytest.raises(HostError, match=r"cannot write a row \(No space left on device\)") as caught:
        while True:
            writer.wall({"version": rows})
            rows += 1

    assert f"fedsim resume {folder}" in str(caught.value)
    lines = (folder / "wall.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["version"] for line in lines] == list(range(rows + 1))  # in the room kept for it
    assert (folder / NAME).stat().st_size == HEAD_BYTES


def test_a_run_that_cannot_be_folded_is_failed_and_keeps_its_lines(tmp_path, monkeypatch):
    from fedsim.records import folder as run_folder

    writer, folder = started(tmp_path / "a")
    writer.wall({"version": 0})

    def fold(*_args):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "fold", fold)
        writer.close(status="failed", reason="the disk is full")
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    run = load(folder)
    assert (run.info.status, run.info.reason) == ("failed", "the disk is full")
    assert not (folder / NAME).exists()
