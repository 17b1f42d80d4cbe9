"""`python trivial_run.py --out FILE --clients 1000 --rounds 6`: trivial updates through the whole of fedsim."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from benchmarks.w1.recipe import Report


def main() -> None:
    """Run the experiment and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--client-batch", default="auto")
    asked = parser.parse_args()
    import fedsim

    batch = asked.client_batch
    experiment = fedsim.Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": asked.clients},
            "task": {"kind": "benchmarks.trivial_task:Trivial"},
            "protocol": {"kind": "synchronous", "cohort": asked.clients},
            "budget": {"commits": asked.rounds},
            "evaluate": {"every_commits": 1_000_000},
            "numerics": {"client_batch": batch if batch == "auto" else int(batch)},
            "runtime": {"executor": asked.executor, "workers": 2},
        }
    )
    report = Report()

    def watch(kind: str, _facts: dict[str, Any]) -> None:
        if kind == "commit":
            report.trained()
            report.aggregated()

    folder = Path(asked.out).with_suffix(".run")
    shutil.rmtree(folder, ignore_errors=True)
    run = fedsim.simulate(experiment, out=folder, on_event=watch)
    report.losses = [float(run.scores.value.iloc[-1])]
    report.checksum = float(len(run.visits))
    shutil.rmtree(folder)
    report.save(asked.out)


if __name__ == "__main__":
    main()
