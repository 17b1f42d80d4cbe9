"""Hundreds of runs that are killed, cut off from power or out of disk, and resumed: each ends as if it had been left alone.

    FEDSIM_KILLS_CSV=kills.csv pytest -m slow -n 2 --dist load tests/slow/test_kills.py

FEDSIM_KILLS=200, FEDSIM_POWER=60 and FEDSIM_KILLS_SEED=0 say how many and which, FEDSIM_KILLS_S=7200 after how many seconds a
test begins no more trials; FEDSIM_KILLS_CSV=FILE collects the numbers. A trial that failed says its address:
`Lab.killed_at_random(kind, address, times)` is that trial again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds.kills import campaign
from worlds.kills.kinds import KINDS, QUICK
from worlds.kills.lab import Lab, Trial, ends_badly, has_begun
from worlds.kills.watch import GROWING, Order

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc"),
]
SEED = campaign.asked("KILLS_SEED", 0)
PARTS = 4
"""Into which the random kills are divided, so that several processes can share them."""
WORST_FIRST = sorted(KINDS, key=("ditto", "fedbuff", "images").__contains__, reverse=True)
"""Kinds whose folders have most in them, then the others."""
LAST = 30
"""Changes of a run's folder that belong to its end."""
FULL_KINDS = ("fedbuff", "ditto")
"""Kinds that find the disk full at every change in turn."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("kills"))
    yield lab
    lab.close()


@pytest.fixture
def book():
    """Collects trials; at the end prints the table, keeps it, and fails with the trials that were not equal."""
    book = campaign.Book()
    yield book
    print("\n" + "\n".join([*(failure[:1500] for failure in book.failures), book.table()]))
    if "FEDSIM_KILLS_CSV" in os.environ:
        book.save(os.environ["FEDSIM_KILLS_CSV"])


@pytest.mark.parametrize("part", range(PARTS))
def test_runs_killed_at_random_moments_end_as_if_left_alone(lab, book, part):
    numbers = range(part, campaign.asked("KILLS", 200), PARTS)
    for name, address, times in campaign.random_kills(numbers, SEED):
        book.note("random", lab.killed_at_random(name, address, times))
        if book.is_late():
            break

    assert book.failures == []
    assert book.is_late() or sum(book.cuts.values()) >= len(numbers)


def test_runs_killed_at_the_worst_moments_end_as_if_left_alone(lab, book):
    """Before, in the middle of and after a change of every kind that a run makes to its folder."""
    done, rng = set(), np.random.default_rng((SEED, 2))
    for number, name in enumerate(WORST_FIRST):
        for place, order in campaign.orders(lab.trace(lab.kind(name)), rng, done):
            trial = lab.killed_at(name, (SEED, 2, number, order.at), order)
            trial.how.append(place)
            book.note("placed", trial)
            if book.is_late():
                break

    assert book.failures == []
    assert book.is_late() or sum(book.cuts.values()) >= 50


def test_resumes_that_are_killed_at_the_worst_moments_are_resumed(lab, book):
    """Before, in the middle of and after a change of every kind that a resume makes to the folder."""
    done, rng = set(), np.random.default_rng((SEED, 3))
    for number, name in enumerate(("ditto", "fedbuff", "synchronous", "tifl")):
        kind = lab.kind(name)
        first = Order("kill", len(lab.trace(kind)) * 2 // 3, "before")
        folder = lab.fresh(kind)
        assert lab.start(kind, folder, order=first).killed
        trace = lab.traced(lambda order, folder=folder: lab.resume(folder, order=order))
        for place, order in campaign.orders(trace, rng, done):
            trial = lab.killed_at(name, (SEED, 3, number, order.at), order, before=first)
            trial.how.append(place)
            book.note("in a resume", trial)
            if book.is_late():
                break

    assert book.failures == []


@pytest.mark.parametrize("strict", [False, True])
def test_runs_whose_machine_loses_its_power_end_as_if_left_alone(lab, book, strict):
    for number in range(campaign.asked("POWER", 60)):
        name = QUICK[number % len(QUICK)]
        trial = lab.power_lost(name, (SEED, 4, number, int(strict)), strict=strict)
        book.note("power, strict" if strict else "power", trial)
        if book.is_late():
            break

    assert book.failures == []


@pytest.mark.parametrize("strict", [False, True])
def test_runs_whose_machine_loses_its_power_about_their_last_word_end_as_if_left_alone(lab, book, strict):
    """What `run.json` vouches for is on the disk when it says `done`."""
    for number, name in enumerate(QUICK):
        trial = lab.power_lost(name, (SEED, 6, number, int(strict)), strict=strict, last=LAST)
        book.note("power at the end, strict" if strict else "power at the end", trial)
        if book.is_late():
            break

    assert book.failures == []


@pytest.mark.parametrize("name", FULL_KINDS)
@pytest.mark.parametrize(("what", "most"), [("full", 0), ("short", 40)])
def test_a_disk_that_is_full_at_any_write_ends_the_run_in_a_sentence_and_it_resumes(
    lab, book, name, what, most
):
    """At every change in turn that needs room, or, where there is room again at once, at forty of them."""
    trace, rng = lab.trace(lab.kind(name)), np.random.default_rng((SEED, 5))
    growing = [n for n, change in enumerate(trace) if change.what in GROWING]
    for at in rng.permutation(growing)[: most or None].tolist():
        when = "half" if trace[at].what == "write" and at % 2 else "before"
        trial = lab.disk_full(name, (SEED, 5, at), Order(what, at, when))
        trial.how.append(trace[at].place)
        book.note(f"disk {what}", trial)
        if book.is_late():
            break

    assert book.failures == []


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root and mount"
)
@pytest.mark.parametrize("name", FULL_KINDS)
def test_a_small_disk_that_fills_up_is_said_and_what_was_written_goes_on_with_more_room(
    lab, book, tmp_path, name
):
    kind, disk = lab.kind(name), tmp_path / "disk"
    disk.mkdir()
    needed = sum(path.stat().st_size + 4096 for path in kind.wanted.rglob("*"))
    for share in np.linspace(0.02, 0.98, 25):
        trial, folder = Trial(name, (SEED, 6, int(100 * share))), disk / "run"
        size = max(4096, int(share * needed) // 4096 * 4096)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
        try:
            ended = lab.start(kind, folder)
            trial.how.append(f"a disk of {size} bytes: exit code {ended.code}")
            trial.wrong += ends_badly(ended)
            trial.cuts = int(ended.code != 0)
            subprocess.run(["mount", "-o", f"remount,size={64 * 2**20}", str(disk)], check=True)
            if not trial.wrong:
                lab.finish(trial, kind, folder, np.random.default_rng(trial.address))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        book.note("small disk", trial)

    assert book.failures == []
    assert sum(book.cuts.values()) > 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_watch_misses_no_change_that_the_kernel_sees(lab, tmp_path):
    """Every call that changes the folder is counted: what strace sees is what the watch has."""
    kind, out, folder = lab.kind("ditto"), tmp_path / "calls.txt", tmp_path / "run"
    calls = "openat,write,pwrite64,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync,ftruncate"
    command = ["strace", "-f", "-y", "-qq", "-s", "0", "-e", f"trace={calls}", "-o", str(out)]
    command += [sys.executable, "-m", "fedsim", "run", str(kind.experiment), "--out", str(folder)]
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [
        line.split(maxsplit=1)[1]
        for line in out.read_text(errors="replace").splitlines()
        if str(folder) in line
    ]
    seen = {
        "write": sum(line.startswith(("write(", "pwrite64(")) and not line.endswith("= 0") for line in lines),
        "sync": sum(line.startswith(("fsync(", "fdatasync(")) for line in lines),
        "move": sum(line.startswith("rename") and line.endswith("= 0") for line in lines),
        "remove": sum(line.startswith("unlink") and line.endswith("= 0") for line in lines),
        "mkdir": sum(line.startswith("mkdir") and line.endswith("= 0") for line in lines),
    }
    trace = lab.trace(kind)
    libraries = sum(change.what == "library" for change in trace)
    counted = {what: sum(change.what == what for change in trace) for what in seen}

    assert seen["write"] - libraries * 8 <= counted["write"] <= seen["write"]
    assert {what: seen[what] for what in ("sync", "mkdir", "remove")} == {
        what: counted[what] for what in ("sync", "mkdir", "remove")
    }
    assert seen["move"] - libraries <= counted["move"] <= seen["move"]  # safetensors moves its file, too
    assert has_begun(folder)
