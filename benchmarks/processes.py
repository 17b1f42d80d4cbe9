"""Contestants as processes of their own: started the same way, timed the same way, weighed whole."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import CACHE, HERE, say

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_HOME": str(CACHE / "flwr"),
    "PYTHONPATH": str(HERE.parent),
    "PYTHONWARNINGS": "ignore",
}
"""Of every contestant: offline, no telemetry, this working tree (peers import the recipe from it)."""


class Failed(Exception):  # noqa: N818  # reads as what it says
    """A contestant ended with an error or ran out of time."""


@dataclass(frozen=True)
class Outcome:
    """One run of one contestant.

    Attributes:
        first_update_s: from the command to the end of the first client's training (NaN: not seen).
        first_round_s: from the command to the end of the first round.
        wall_s: from the command to the end of the process.
        rounds_s: length of every round after the first.
        losses, checksum: what it computed (see `benchmarks.w1.recipe.Report`).
        cpu_s: CPU seconds of the process tree, as far as its processes were waited for.
        peak_pss_mib, steady_pss_mib: largest sum over the process tree, over the whole run and after the
            first round; NaN unless asked for.
    """

    first_update_s: float
    first_round_s: float
    wall_s: float
    rounds_s: tuple[float, ...]
    losses: tuple[float, ...]
    checksum: float
    cpu_s: float
    peak_pss_mib: float
    steady_pss_mib: float


def run(
    name: str,
    command: Sequence[str],
    *,
    threads: int = 1,
    weigh: bool = False,
    timeout_s: float = 900.0,
) -> Outcome:
    """Start a contestant, wait for it, and return what it reported.

    Args:
        name: for its files and messages.
        command: what to run; `--out FILE` is added to it.
        threads: of its numerical libraries (`OMP_NUM_THREADS`).
        weigh: sample the memory of its process tree, which costs it time.
        timeout_s: then it is killed.

    Raises:
        Failed: it did not end well; the message ends with the last lines of its log.
    """
    folder = CACHE / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / f"{name}.json", folder / f"{name}.log"
    out.unlink(missing_ok=True)
    full = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
    started, used_s = time.time(), _used_s()
    with log.open("wb") as lines:
        child = subprocess.Popen(
            [*command, "--out", str(out)], env=full, stdout=lines, stderr=lines, start_new_session=True
        )
        scale = Scale(child.pid) if weigh else None
        try:
            code = child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            samples = scale.stop() if scale else []
            _end(child)
    wall_s = time.time() - started
    if code != 0 or not out.is_file():
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        raise Failed(f"{name} ended with code {code}:\n" + "\n".join(tail))
    report = json.loads(out.read_text(encoding="utf-8"))
    ends = report["rounds_s"]
    return Outcome(
        first_update_s=report["first_update_s"] - started,
        first_round_s=ends[0] - started,
        wall_s=wall_s,
        rounds_s=tuple(np.diff(ends).tolist()),
        losses=tuple(report["losses"]),
        checksum=report["checksum"],
        cpu_s=_used_s() - used_s,
        peak_pss_mib=max((mib for _, mib in samples), default=float("nan")),
        steady_pss_mib=max((mib for at, mib in samples if at >= ends[0]), default=float("nan")),
    )


def ours(script: Path, *arguments: str) -> list[str]:
    """Return the command that runs a script with this interpreter and this working tree."""
    return [sys.executable, str(script), *arguments]


def told(script: Path, *arguments: str) -> dict[str, Any]:
    """Run a script on one thread; returns what it prints last, which is JSON."""
    full = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(ours(script, *arguments), env=full, check=True, capture_output=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def _used_s() -> float:
    """Return the CPU seconds of the children that have ended and were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the contestant's session behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class Scale:
    """Samples the proportional set size (PSS, shared pages counted once) of a process and all below it."""

    def __init__(self, pid: int, every_s: float = 0.5) -> None:
        self._known: set[int] = {pid}
        self._every_s = every_s
        self._samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._weigh, daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[float, float]]:
        """Return (seconds since the epoch, MiB) of every sample."""
        self._stop.set()
        self._thread.join()
        return self._samples

    def _weigh(self) -> None:
        while not self._stop.wait(self._every_s):
            self._known |= below(self._known)
            total = sum(pss_mib(pid) for pid in self._known)
            if total:
                self._samples.append((time.time(), total))


def below(pids: set[int]) -> set[int]:
    """Return the processes that descend from any of `pids`; one that lost its parent stays known."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss_mib(pid: int) -> float:
    """Return the PSS of one process [MiB]; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def tried(name: str, missing: dict[str, str], what: Failed) -> None:
    """Note that a contestant cannot take part."""
    missing[name] = str(what).splitlines()[0]
    say(f"  {what}")
