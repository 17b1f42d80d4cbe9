"""`python -m benchmarks tables`: write, close, load, audit and report runs of 10^5 and 10^6 visits: seconds and peak memory.

Each step is a process of its own; the run is a real timeline that is repeated (`benchmarks.long_run`). `tables_long` has 10^7.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import HERE, Results, say
from benchmarks.processes import ENVIRONMENT
from benchmarks.table_step import STEPS

SIZES = (100_000, 1_000_000)
GIB = 1024.0
LONGEST_S = 7200


def run(results: Results) -> None:
    """Measure every step at both sizes."""
    measure(results, (10_000,) if results.options.quick else SIZES)


def measure(results: Results, sizes: tuple[int, ...]) -> None:
    """Measure every step at some sizes, and check what is promised of each."""
    for visits in sizes:
        found: dict[str, list[float]] = {}
        for _ in range(results.options.counted if visits <= SIZES[0] else 1):
            results.listen()
            with tempfile.TemporaryDirectory(prefix="fedsim-tables-") as folder:
                steps = {step: _step(step, Path(folder) / "run", visits) for step in ("write", *STEPS)}
            for step, facts in steps.items():
                for fact, value in facts.items():
                    found.setdefault(f"{step}.{fact}", []).append(value)
        for key, values in found.items():
            unit = "MiB" if key.endswith("mib") else "s" if key.endswith("s") else "bytes"
            results.add(f"{visits}.{key}", values, unit)
        _check(results, visits, {key: max(values) for key, values in found.items()})
    results.about = {"sizes": list(sizes)}


def _check(results: Results, visits: int, found: dict[str, float]) -> None:
    """Check what is promised of a run of so many visits."""
    peak = max(value for key, value in found.items() if key.endswith("mib"))
    results.check(f"{visits:,} visits: no step takes 4 GiB", ok=peak < 4 * GIB, seen=f"{peak:.0f} MiB")
    page = found["report.seen"]
    results.check(f"{visits:,} visits: the page has less than 10 MB", ok=page < 10e6, seen=f"{page:,.0f}")
    if visits <= SIZES[-1]:
        seconds, mib = found["report.cpu_s"], found["report.mib"]
        results.check(
            f"{visits:,} visits: the page in under 60 s and 2 GiB",
            ok=seconds < 60 and mib < 2 * GIB,
            seen=f"{seconds:.1f} CPU seconds, {mib:.0f} MiB",
        )


def _step(step: str, folder: Path, visits: int) -> dict[str, float]:
    """Do one step in a process of its own; returns what it says."""
    command = [sys.executable, "-m", "benchmarks.table_step", step, str(folder), "--visits", str(visits)]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
        env=environment,
        timeout=LONGEST_S,
    )
    facts = json.loads(done.stdout.splitlines()[-1])
    say(f"  {visits:,} visits, {step}: {facts}")
    return {key: float(value) for key, value in facts.items() if isinstance(value, int | float)}
