"""`python -m benchmarks survival`: what checkpoints cost a run, and what a resume costs before it trains again.

A run with checkpoints and the same run without take turns; the ratio is of their whole wall times, inline, on one thread. A
resume is timed on runs that are done and are given one more commit: it makes their schedule once more, compares it with their
rows, and trains that commit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fedsim
from benchmarks.harness import CACHE, Results, interleaved, say

MODES: dict[str, dict[str, Any]] = {
    "off": {"checkpoint_s": "off"},
    "on": {},
    "every_commit": {"checkpoint_commits": 1},
}
"""`runtime` of each contestant: none, as by default, and one a commit."""
SAID = {"off": "no checkpoints", "on": "as by default", "every_commit": "one a commit"}
POPULATION = {"preset": "mixed_edge_2025", "clients": 200}
WORLDS: dict[str, dict[str, Any]] = {
    "language": {
        "population": {**POPULATION, "clients": 40},
        "task": {"kind": "language", "model": "builtin", "data": "builtin", "sequence": 32},
        "local": {"lr": 1e-3, "steps": 4, "batch": 4},
        "protocol": {"kind": "buffered", "concurrency": 16, "buffer": 8},
        "server_optimizer": {"kind": "adam", "lr": 0.01},
        "budget": {"commits": 40},
        "evaluate": {"every_commits": 20, "windows": 64},
    },
    "ditto": {
        "population": POPULATION,
        "task": {"kind": "quadratic", "dimension": 20_000},
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 4},
        "wire": {"dtype": "int8", "top_k": 0.1, "error_feedback": True},
        "protocol": {"kind": "synchronous", "cohort": 20},
        "personal": {"kind": "ditto"},
        "budget": {"commits": 60},
        "evaluate": {"every_commits": 20},
    },
}
"""A small language model under FedBuff, and Ditto with error feedback, which keeps 160 KB a client on disk."""
VISITS = (2_000, 20_000)
"""Of the runs that are resumed."""
PER_COMMIT = 20


def experiment(blocks: Mapping[str, Any], **runtime: Any) -> fedsim.Experiment:
    """Return an experiment that trains in this process."""
    return fedsim.Experiment.model_validate({**blocks, "runtime": {"executor": "inline", **runtime}})


def run(results: Results) -> None:
    """Time runs with and without checkpoints, then resumes."""
    quick = results.options.quick
    for name, blocks in WORLDS.items():
        say(f"  {name}")
        whole = blocks | ({"budget": {"commits": 4}} if quick else {})
        runs: dict[str, Callable[[], float]] = {
            mode: partial(seconds_of, experiment(whole, **runtime)) for mode, runtime in MODES.items()
        }
        for start in runs.values():
            start()
        found = interleaved(runs, results.options.counted, results.listen)
        for mode, seconds in found.items():
            results.add(f"{name}.{mode}_s", seconds, "s")
        for mode in ("on", "every_commit"):
            results.ratio(f"{name}.{mode}_over_off", found[mode], found["off"])
    visits = [n // (20 if quick else 1) for n in VISITS]
    resumes(results, visits)
    results.about = {"said": SAID, "worlds": list(WORLDS), "visits": visits}


def folder_of(name: str) -> Path:
    """Return an empty place for a run folder."""
    folder = CACHE / "survival" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def seconds_of(asked: fedsim.Experiment) -> float:
    """Return the wall seconds of a whole run [s]."""
    folder = folder_of("run")
    began_s = time.perf_counter()
    fedsim.simulate(asked, out=folder, report=False)
    return time.perf_counter() - began_s


def resumes(results: Results, visits: list[int]) -> None:
    """Time resumes of runs of so many visits."""
    blocks = {
        "population": POPULATION,
        "task": {"kind": "quadratic"},
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 4},
        "protocol": {"kind": "buffered", "concurrency": 50, "buffer": PER_COMMIT},
        "evaluate": {"every_commits": 1_000_000},
    }
    seconds: dict[int, list[float]] = {}
    for n in visits:
        commits = n // PER_COMMIT
        done = folder_of(f"done-{n}")
        fedsim.simulate(experiment({**blocks, "budget": {"commits": commits}}), out=done, report=False)
        seconds[n] = [resumed_s(done, commits + 1) for _ in range(results.options.counted)]
        results.add(f"resume_{n}_s", seconds[n], "s")
        say(f"  a resume after {n} visits: {min(seconds[n]):.2f} s")
    few, many = visits
    slopes = [
        1000 * (b - a) / (many - few)
        for a, b in zip(sorted(seconds[few]), sorted(seconds[many]), strict=True)
    ]
    results.add("replay_s_per_1000", slopes, "s")


def resumed_s(done: Path, commits: int) -> float:
    """Return the wall seconds that a copy of a run takes to be resumed and to make its last commit [s]."""
    copy = folder_of("resumed")
    shutil.copytree(done, copy)
    began_s = time.perf_counter()
    fedsim.resume(copy, budget={"commits": commits})
    return time.perf_counter() - began_s
