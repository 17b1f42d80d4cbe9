"""`run`: federations of real processes, repeated, beside the same federations under fedsim's clock."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fidelity import permits, quota
from benchmarks.fidelity.compare import summary
from benchmarks.fidelity.expected import records, simulated, version_0
from benchmarks.fidelity.federation import Federation, Protocol, Work
from benchmarks.fidelity.trial import trial


def forbidden() -> str | None:
    """Return why this machine cannot run federations for real, or None."""
    return permits.tun() or permits.quotas()


def run(
    federations: Sequence[Federation],
    works: Sequence[Work],
    protocols: Sequence[Protocol],
    *,
    repetitions: int,
    out: Path | None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run every federation with every work and protocol; write the results as they come.

    Args:
        federations: clients behind a server link.
        works: what clients do with their CPU.
        protocols: how the server asks.
        repetitions: of each, in a fresh lab.
        out: JSON file; what it holds of other combinations is kept.
        say: told of every repetition.

    Returns:
        {host, results}: one result a combination, see `compare.summary`, with `trials`: of each
        repetition the start's lag, the emulator's account, the load before and the calibration.

    Raises:
        HostError: a process died.
    """
    base = quota.root()
    assert base is not None
    quota.sweep(base)
    answer: dict[str, Any] = {"host": host(), "results": []}
    if out is not None and out.is_file():
        answer["results"] = json.loads(out.read_text("utf-8"))["results"]
    for federation in federations:
        vector = version_0(federation)
        for work in works:
            for protocol in protocols:
                one = _combination(federation, protocol, work, vector, repetitions, say)
                same = (one["federation"], one["work"], one["protocol"])
                kept = [r for r in answer["results"] if (r["federation"], r["work"], r["protocol"]) != same]
                answer["results"] = [*kept, one]
                if out is not None:
                    out.write_text(json.dumps(answer, indent=1) + "\n", "utf-8")
    return answer


def _combination(
    federation: Federation,
    protocol: Protocol,
    work: Work,
    vector: bytes,
    repetitions: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    measured = []
    for repetition in range(repetitions):
        measured.append(trial(federation, protocol, work, vector))
        say(f"{federation.name} {protocol} {work}: repetition {repetition + 1} of {repetitions}")
    seconds = [
        None if m["calibration"] is None else [c["wall_s"] for c in m["calibration"]] for m in measured
    ]
    predicted = {
        name: [records(simulated(federation, protocol, s, naive=naive)) for s in seconds]
        for name, naive in (("fedsim", False), ("size / bandwidth", True))
    }
    one = summary(federation, protocol, work, measured, predicted)
    keys = ("lag_s", "calibration", "emulator", "load_before")
    trials = [{**{key: m[key] for key in keys}, "train_s": train_s(m)} for m in measured]
    return {**one, "trials": trials}


def train_s(measured: dict[str, Any]) -> list[float]:
    """Return each client's mean seconds of training in a run, to be held against the calibration."""
    took: dict[int, list[float]] = {}
    for visit in measured["visits"]:
        took.setdefault(int(visit["client"]), []).append(visit["trained_s"] - visit["downloaded_s"])
    return [sum(took[client]) / len(took[client]) for client in sorted(took)]


def host() -> dict[str, Any]:
    """Return what a reader must know of the machine."""
    return {
        "system": platform.system(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "realtime": permits.realtime(),
    }
