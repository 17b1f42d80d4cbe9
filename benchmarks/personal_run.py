"""Training of clients that keep an adapter each, in a process of its own: `python benchmarks/personal_run.py --clients 100000`; prints JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.engine_run import peak_mib

COHORT, VISITS_PER_CLIENT = 1000, 3
"""Clients of a round, and visits of the whole run for each client there is: all but one in twenty have trained by then."""


def settings(clients: int) -> dict[str, Any]:
    """Return the experiment as plain values: Ditto, 8 KB a client."""
    return {
        "name": f"personal-{clients}",
        "population": {"preset": "mixed_edge_2025", "clients": clients},
        "task": {"kind": "quadratic", "dimension": 2000},
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
        "protocol": {"kind": "synchronous", "cohort": min(COHORT, clients // 10)},
        "personal": {"kind": "ditto", "clients": 100},
        "budget": {"commits": VISITS_PER_CLIENT * clients // min(COHORT, clients // 10)},
        "evaluate": {"every_commits": 10**9},
        "runtime": {"executor": "inline"},
    }


def measure(clients: int) -> dict[str, float]:
    """Train; returns the most memory of the process after a tenth of the commits, after the last one, and with the closing."""
    import fedsim

    experiment = fedsim.Experiment.model_validate(settings(clients))
    commits = int(experiment.budget.commits or 0)
    marks = {max(1, commits // 10): "early_mib", commits: "late_mib"}
    held: dict[str, float] = {}

    def watch(kind: str, facts: dict[str, Any]) -> None:
        if kind == "commit" and facts["version"] in marks:
            held[marks[facts["version"]]] = peak_mib()

    folder = Path(tempfile.mkdtemp(prefix="fedsim-personal-"))
    begun_cpu_s = time.process_time()
    try:
        run = fedsim.simulate(experiment, out=folder / "run", on_event=watch, report=False)
        kept = (folder / "run" / "kept" / "personal.f32").stat().st_size
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        **held,
        "peak_mib": peak_mib(),
        "visits": float(run.info.totals.visits if run.info.totals else 0),
        "kept_mib": kept / 2**20,
        "cpu_s": time.process_time() - begun_cpu_s,
    }


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    print(json.dumps(measure(parser.parse_args().clients)))


if __name__ == "__main__":
    main()
