"""A whole run in a process of its own, looked at every few milliseconds: `python benchmarks/pace_run.py demo-sync`; prints JSON.

A thread looks at the stack of the main thread and says by the files in it what the run is at. It waits for Python's lock only, so
matrix products are seen as long as they take.
"""

from __future__ import annotations

import time

BEGUN_S = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from types import FrameType  # noqa: E402
from typing import Any  # noqa: E402

DEMO, PTB = ("demo-sync", "demo-fedbuff"), "ptb-fedbuff"
ROOT = Path(__file__).parents[1]
LOOK_S = 0.005
PARTS = {
    "clients' own models": ("fedsim/server/after/",),
    "scoring": ("fedsim/server/values/evaluations.py", "fedsim/server/values/score_calls.py"),
    "training": ("fedsim/server/values/trainer.py", "fedsim/executors/"),
    "report": ("fedsim/report/",),
    "checkpoints": ("fedsim/runs/resuming/",),
    "aggregation": (
        "fedsim/aggregators/",
        "fedsim/server/values/commits.py",
        "fedsim/network/number_formats.py",
    ),
    "tables": ("fedsim/records/",),
    "imports": ("importlib._bootstrap",),
    "start": ("fedsim/checks/", "fedsim/tasks/", "fedsim/config/", "fedsim/training/"),
    "clock": ("/simpy/", "fedsim/clock/", "fedsim/protocols/", "fedsim/server/", "fedsim/network/"),
}
"""What a run is at -> files that say so; the first that any of the stack's files says is meant."""
PTB_S = 2 * 3600.0
"""Virtual seconds of the Penn Treebank here, without models of its clients; its study has 48 hours, with them."""


def files(frame: FrameType | None) -> Iterator[str]:
    """Yield the files of a stack."""
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


def part_of(stack: list[str]) -> str:
    """Return what a run is at whose stack has these files.

    >>> part_of(["torch/nn/functional.py", "/x/fedsim/executors/calls.py", "/x/fedsim/server/values/evaluations.py"])
    'scoring'
    """
    for part, words in PARTS.items():
        if any(word in file for word in words for file in stack):
            return part
    return "rest"


class Watch:
    """Looks at the main thread until it is told to stop.

    Attributes:
        seen: looks by what the run was at.
    """

    def __init__(self) -> None:
        """Begin to look."""
        self.seen: Counter[str] = Counter()
        self._main = threading.main_thread().ident
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            frame = sys._current_frames().get(self._main or 0)  # noqa: SLF001  # there is no other way to see it
            self.seen[part_of([file.replace("\\", "/") for file in files(frame)])] += 1

    def shares(self) -> dict[str, float]:
        """Stop; returns the share of the looks by what the run was at."""
        self._over.set()
        self._thread.join()
        return {part: self.seen[part] / max(1, self.seen.total()) for part in [*PARTS, "rest"]}


def experiment(name: str, executor: str) -> Any:
    """Return one of the demo's experiments, or the Penn Treebank's, of which the data must lie in `data/`."""
    if name == PTB:
        from fedsim.config.loading import load

        changes = [f"budget.time_s={PTB_S:.0f}", "personal={kind: none}", f"runtime.executor={executor}"]
        return load(ROOT / "experiments" / "ptb" / "fedbuff.yaml", changes)
    from fedsim.cli.demos.text import TEXT

    return next(one for one in TEXT.experiments(runtime={"executor": executor}) if one.name == name)


def measure(name: str, executor: str) -> dict[str, Any]:
    """Run it; returns virtual and real time, and where the latter went."""
    watch = Watch() if executor == "inline" else None
    import fedsim

    with tempfile.TemporaryDirectory(prefix="fedsim-pace-") as folder:
        run = fedsim.simulate(experiment(name, executor), out=Path(folder) / "run")
        shares = {} if watch is None else watch.shares()
        return {
            "virtual_s": run.info.end_time_s,
            "real_s": time.perf_counter() - BEGUN_S,
            "updates": float(run.commits["updates"].sum()),
            "shares": shares,
        }


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=(*DEMO, PTB))
    parser.add_argument("--executor", choices=("inline", "ray"), default="inline")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.name, asked.executor)))


if __name__ == "__main__":
    main()
