"""The same work in fedsim, by its public path: an `Experiment`, `fedsim.simulate`, a run folder.

`python fedsim_run.py --world DIR --out FILE --rounds 6 --executor ray --workers 2 --training auto`: the whole
program, with clock, roster, deltas, rows and report, as any user would start it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.w1.recipe import Report


def main() -> None:
    """Run the experiment and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cohort", type=int, default=None)
    parser.add_argument("--clients", type=int, default=None)
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--training", default="auto")
    asked = parser.parse_args()
    import fedsim
    from benchmarks.w1.world import World

    facts = json.loads((Path(asked.world) / "world.json").read_text(encoding="utf-8"))
    world = World(**{name: facts[name] for name in World.__dataclass_fields__})
    blocks: dict[str, Any] = {
        "budget": {"commits": asked.rounds},
        "runtime": {"executor": asked.executor, "workers": asked.workers},
        "numerics": {"training": asked.training},
    }
    if asked.cohort is not None:
        blocks["protocol"] = {"kind": "synchronous", "cohort": asked.cohort}
    if asked.clients is not None:
        world = replace(world, clients=asked.clients)
    report = Report()

    def watch(kind: str, _facts: dict[str, Any]) -> None:
        if kind == "commit":
            report.trained()  # the first commit bounds the first update from above
            report.aggregated()

    folder = Path(asked.out).with_suffix(".run")
    shutil.rmtree(folder, ignore_errors=True)
    run = fedsim.simulate(world.experiment(Path(asked.world), **blocks), out=folder, on_event=watch)
    report.losses = [float(value) for value in run.visits.groupby("round").loss.mean()]
    report.summed(_adapter(folder / "adapter"))
    report.save(asked.out)


def _adapter(folder: Path) -> np.ndarray[Any, Any]:
    from safetensors.numpy import load_file

    return np.concatenate([a.ravel() for a in load_file(folder / "adapter_model.safetensors").values()])


if __name__ == "__main__":
    main()
