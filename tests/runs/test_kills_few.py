"""Some runs that are killed, cut off from power or out of disk, and resumed: each ends as if it had been left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from worlds.kills.disk import Disk
from worlds.kills.lab import Lab, Trial
from worlds.kills.same import differences
from worlds.kills.watch import Order

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("kills"), ways=(0, 0, 1))  # a page takes longer than the run
    yield lab
    lab.close()


@pytest.mark.parametrize(("name", "times"), [("ditto", 1), pytest.param("oort", 3, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_as_if_left_alone(lab, name, times):
    trial = lab.killed_at_random(name, (14, times), times)

    assert trial.wrong == [], str(trial)
    assert trial.cuts == times


@pytest.mark.parametrize(
    ("part", "when"),
    [
        ("commits.jsonl", "half"),
        ("checkpoints/", "before"),
        pytest.param("kept/", "half", marks=pytest.mark.slow),
        pytest.param("run.json", "before", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_in_the_middle_of_a_file_ends_as_if_left_alone(lab, part, when):
    trace = lab.trace(lab.kind("ditto"))
    changes = [
        n
        for n, c in enumerate(trace)
        if part in c.name and (when != "half" or c.what in ("write", "library"))
    ]

    trial = lab.killed_at("ditto", (15,), Order("kill", changes[-1], when))

    assert trial.wrong == [], str(trial)


def test_a_run_whose_machine_loses_its_power_ends_as_if_left_alone(lab):
    trial = lab.power_lost("ditto", (16,), strict=False)

    assert trial.wrong == [], str(trial)


@pytest.mark.parametrize("what", ["full", pytest.param("short", marks=pytest.mark.slow)])
def test_a_run_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(lab, what):
    trace = lab.trace(lab.kind("ditto"))
    writes = [n for n, change in enumerate(trace) if change.what == "write" and "visits.jsonl" in change.name]

    trial = lab.disk_full("ditto", (17,), Order(what, writes[len(writes) // 2], "half"))

    assert trial.wrong == [], str(trial)
    assert trial.cuts == (what == "full")  # after a short write there was room for the rest


# the harness ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_byte_that_differs_and_a_file_too_many_are_found(lab, tmp_path):
    kind = lab.kind("ditto")
    copy = shutil.copytree(kind.wanted, tmp_path / "copy")
    assert differences(copy, kind.wanted) == []

    path = copy / "visits.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (copy / ".run.json.1").write_text("")
    (copy / "commits.parquet").unlink()
    assert differences(copy, kind.wanted) == [
        "commits.parquet: is missing", ".run.json.1: is left over", "visits.parquet: differs",
    ]  # fmt: skip


def test_a_disk_keeps_what_was_synced_and_some_of_the_rest(tmp_path):
    journal = [
        ("mkdir", "."), ("create", "a"), ("write", "a", 0, b"old"), ("sync", "a"),
        ("create", ".b"), ("write", ".b", 0, b"safe"), ("sync", ".b"), ("move", ".b", "b"),
        ("write", "a", 3, b"new"),
    ]  # fmt: skip
    seen = set()
    for number in range(100):
        disk, folder = Disk(tmp_path / "none"), tmp_path / "left"
        disk.follow(journal)
        disk.fail(np.random.default_rng(number), folder)
        seen.add(((folder / "a").read_bytes(), tuple(sorted(p.name for p in folder.iterdir()))))

    assert {a for a, _ in seen} >= {b"old", b"oldn", b"oldnew"}
    assert any(a.endswith(b"\0") for a, _ in seen)
    assert all(a.startswith(b"old") and len(a) <= 6 for a, _ in seen)
    assert {names for _, names in seen} == {(".b", "a"), ("a", "b")}
    assert not Trial("x", ()).wrong
