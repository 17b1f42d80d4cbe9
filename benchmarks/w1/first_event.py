"""A timeline of the built-in task until its first event: `python first_event.py --out FILE`, by the public path."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from benchmarks.w1.recipe import Report


class _EnoughError(Exception):
    """The first event is there."""


def main() -> None:
    """Plan, start, stop at the first dispatch or commit, and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    asked = parser.parse_args()
    import fedsim

    report = Report()

    def watch(kind: str, _facts: dict[str, Any]) -> None:
        if kind == "time":
            report.trained()
            report.aggregated()
            raise _EnoughError

    blocks = {
        "population": {"preset": "mixed_edge_2025", "clients": 100, "availability": "charging"},
        "task": {
            "kind": "language",
            "charge_as": {"preset": "gemma-3-270m", "r": 8, "tokens_per_visit": 20000},
        },
        "protocol": {"kind": "buffered", "concurrency": 13, "buffer": 10},
        "budget": {"time_s": 43200},
    }
    with contextlib.suppress(_EnoughError):
        fedsim.simulate(fedsim.Experiment.model_validate(blocks), timeline_only=True, on_event=watch)
    report.save(asked.out)


if __name__ == "__main__":
    main()
