"""What ends a run early: one sentence, the right exit code, a folder that says `failed` and why, and the command that goes on."""

from __future__ import annotations

import errno
import json
import os
import shlex
from contextlib import suppress

import pytest
from worlds.faulty import FaultyTask, faulty

from fedsim.cli.app import call
from fedsim.errors import FedsimError, HostError, WorkerError
from fedsim.files.disk import refusal, telling
from fedsim.files.lines import append_line
from fedsim.records import folder as run_folder
from fedsim.records.liveness.hold import NAME
from fedsim.records.run import load
from fedsim.runs import course, finish
from fedsim.runs.replay import replay
from fedsim.runs.resuming.resume import resume
from fedsim.runs.simulation import simulate

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def status_of(folder):
    info = json.loads((folder / "run.json").read_text())
    return info["status"], info["reason"]


def failing(experiment, folder, kind):
    """Run what must fail; the error."""
    with pytest.raises(kind) as caught:
        simulate(experiment, out=folder, report=False)
    assert not (folder / NAME).exists()  # nobody holds the folder any more
    assert status_of(folder) == ("failed", caught.value.message.headline)
    return caught.value


# a client's training ----------------------------------------------------------------------------


def test_a_training_that_raises_is_named_with_its_version_and_the_command_that_replays_it(tmp_path):
    folder = tmp_path / "a run"
    error = failing(faulty({5: "raise"}), folder, WorkerError)

    assert error.exit_code == 1
    assert error.message.where == "client 5, visit 0 (version 0)"
    assert error.message.what.startswith("KeyError: 'boom'")
    command = f"fedsim replay '{folder}' --client 5 --visit 0"
    assert error.message.fix == f"`{command}` trains it alone, in this process"
    run = load(folder)
    assert run.visits[run.visits.outcome == "failed"].client.tolist() == [5]
    with pytest.raises(KeyError, match="boom"):
        replay(folder, 5, 0)
    assert call(shlex.split(command)[1:]) == 1  # what is said can be typed


def test_the_version_is_that_of_the_dispatch(tmp_path, monkeypatch):
    plain = FaultyTask.train

    def late(task, jobs):
        if any(job.visit == 2 for job in jobs):
            raise KeyError("boom")
        return plain(task, jobs)

    monkeypatch.setattr(FaultyTask, "train", late)
    with pytest.raises(WorkerError, match=r"client 0, visit 2 \(version 2\): KeyError"):
        simulate(faulty({}, budget={"commits": 4}), out=tmp_path / "run", report=False)


def test_a_run_in_memory_has_no_command(tmp_path):
    with pytest.raises(WorkerError, match="fedsim replay RUN --client C --visit V"):
        simulate(faulty({5: "raise"}))


# memory -----------------------------------------------------------------------------------------


def test_inline_without_memory_is_the_machine_s_fault(tmp_path):
    error = failing(faulty({5: "starve"}), tmp_path / "run", HostError)

    assert error.exit_code == 3
    assert error.message.where == "client 5, visit 0 (version 0)"
    assert "MemoryError" in error.message.what
    assert "--client 5 --visit 0" in error.message.fix
    assert "runtime.workers=1" in error.message.fix


def test_inline_without_memory_for_a_moment_gives_the_same_run(tmp_path):
    once = simulate(faulty({5: "starve once"}, marks=tmp_path))
    other = simulate(faulty({}))

    assert once.commits.equals(other.commits)
    assert once.scores.equals(other.scores)


def test_the_server_without_memory_is_one_sentence(tmp_path, monkeypatch):
    def starve(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(course, "run_to_the_end", starve)
    error = failing(faulty({}), tmp_path / "run", HostError)

    assert str(error).startswith("out of memory\n  fix: fewer workers")


# the disk ---------------------------------------------------------------------------------------


def refuse(*_args, **_kwargs):
    raise FULL


class ForeignError(Exception):
    """As safetensors has them."""


PLACES = {
    "adapter": (finish, "save_adapter"),
    "pictures": (finish, "hang"),
    "tables": (run_folder, "fold"),
    "on the way": (course, "evaluate_the_end"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_disk_that_is_full_at_any_place_leaves_a_folder_that_says_so_and_resumes(
    tmp_path, monkeypatch, place
):
    monkeypatch.setattr(*PLACES[place], refuse)
    folder = tmp_path / "run"
    error = failing(faulty({}), folder, HostError)

    assert error.exit_code == 3
    assert error.message.what == "the disk takes no more of the run (No space left on device)"
    assert error.message.fix == f"free some space, then `fedsim resume {folder}`"
    monkeypatch.undo()
    run = load(folder)
    assert (run.info.status, len(run.commits)) == ("failed", 3)
    assert_undisturbed(resume(folder, report=False), tmp_path)


def assert_undisturbed(run, tmp_path):
    """Its tables are those of a run that nothing has happened to, to the byte."""
    simulate(faulty({}), out=tmp_path / "undisturbed", report=False)
    assert run.info.status == "done"
    for path in (tmp_path / "undisturbed").glob("*.parquet"):
        assert (run.folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("what", ["raise once", "fill once", "starve twice"])
def test_a_run_that_a_client_has_ended_goes_on_as_if_nothing_had_happened(tmp_path, what):
    experiment = faulty({5: what}, marks=tmp_path)
    with pytest.raises(FedsimError, match=r"client 5, visit 0"):
        simulate(experiment, out=tmp_path / "run", report=False)
    for _ in range(3):  # a starved client is tried again by itself
        with suppress(FedsimError):
            resume(tmp_path / "run", report=False)
    assert_undisturbed(load(tmp_path / "run"), tmp_path)


def test_a_disk_that_is_full_for_kept_vectors_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_args: refuse())
    experiment = faulty({}, personal={"kind": "ditto"})
    with pytest.raises(HostError, match=r"cannot keep vectors \(No space left on device\)"):
        simulate(experiment, out=tmp_path / "run", report=False)
    assert status_of(tmp_path / "run")[0] == "failed"


def test_a_run_whose_page_does_not_fit_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.runs.simulation.write_report", refuse)
    with pytest.raises(HostError, match="the disk takes no more of the run"):
        simulate(faulty({}), out=tmp_path / "run")
    assert status_of(tmp_path / "run")[0] == "done"


def test_a_disk_that_is_full_before_the_run_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsim.records.folder.write_atomically", refuse)
    with pytest.raises(
        HostError, match=r"the disk takes no more.*\n  fix: free some space, or choose another"
    ):
        simulate(faulty({}), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_in_whatever_exception():
    chained = ValueError("cannot write")
    chained.__cause__ = FULL
    assert refusal(FULL) == refusal(chained) == errno.ENOSPC
    assert refusal(ForeignError('Io(Os { code: 28, message: "No space left on device" })')) == errno.ENOSPC
    assert refusal(PermissionError(errno.EACCES, "no")) is None
    assert refusal(KeyError("No space")) is None
    with pytest.raises(KeyError), telling("here"):
        raise KeyError


def test_a_line_is_appended_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    write, calls = os.write, []

    def in_parts(descriptor, data):
        calls.append(len(data))
        if len(calls) == 3:
            raise FULL
        return write(descriptor, data[:2])

    monkeypatch.setattr(os, "write", in_parts)
    with path.open("ab") as file:
        file.write(b"first\n")
        file.flush()
        with pytest.raises(OSError, match="No space"):
            append_line(file.fileno(), b"second\n")
    assert path.read_bytes() == b"first\n"
    with path.open("ab") as file:
        append_line(file.fileno(), b"third\n")
    assert path.read_bytes() == b"first\nthird\n"
