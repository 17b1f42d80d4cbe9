"""The points of a sweep: checked experiments, each with the folder that its run gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedsim.checks.gate import admit
from fedsim.clock.components import parts_of
from fedsim.config.experiment import Experiment
from fedsim.config.loading import label, sweep_points
from fedsim.records.run import Run

LENGTHS = ("local", "local.steps", "local.epochs", "local.batch")
"""Keys of how long a visit trains."""


@dataclass(frozen=True)
class Point:
    """One point of the grid before it runs.

    Attributes:
        label: folder name, made of the changed values.
        changed: key path -> value.
        experiment, folder: what to run and where.
    """

    label: str
    changed: dict[str, Any]
    experiment: Experiment
    folder: Path


Ending = Literal["done", "skipped", "failed", "in flight", "stopped", "waiting"]
"""`in flight`: another process is at work on it; `stopped`, `waiting`: it goes on, or begins, when the sweep is started again."""


@dataclass(frozen=True)
class Result:
    """How one point ended; `run` is None if it failed before it had tables."""

    point: Point
    status: Ending
    run: Run | None = None
    problem: str = ""
    exit_code: int = 0


def points(path: str | Path, overrides: Sequence[str] = (), out: Path | None = None) -> list[Point]:
    """Return the checked grid; `out` is the folder of all runs (default `runs/NAME`).

    Raises:
        ExperimentError: a point that is no valid experiment; nothing has run then.
    """
    grid = sweep_points(path, overrides)
    out = out or Path("runs") / grid[0][1].name.removesuffix(f".{label(grid[0][0])}")
    labels = _labels(grid)
    for text, (_, experiment) in zip(labels, grid, strict=True):
        admit(experiment, f"{path} ({text})")
    return [
        Point(text, changed, experiment, out / text)
        for text, (changed, experiment) in zip(labels, grid, strict=True)
    ]


def _labels(grid: Sequence[tuple[dict[str, Any], Experiment]]) -> list[str]:
    """Return a folder name a point; values that look alike in one are told apart by the experiment, not by their place."""
    names = [label(changed) for changed, _ in grid]
    alike = {name for name, times in Counter(names).items() if times > 1}
    names = [
        f"{name}_{experiment.digest[:8]}" if name in alike else name
        for name, (_, experiment) in zip(names, grid, strict=True)
    ]
    seen = Counter[str]()
    unlike = []
    for name in names:  # experiments that differ in their `runtime` alone
        seen[name] += 1
        unlike.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unlike


def cautions(grid: Sequence[Point]) -> list[str]:
    """Return what a reader of the grid's results must know, a sentence each: work that costs the clock nothing."""
    charges = (parts_of(p.experiment).task.charge(full=p.experiment.lora.full) for p in grid)
    if not any(charge is not None and charge.visit_tokens is not None for charge in charges):
        return []
    return [
        f"note: task.charge_as.tokens_per_visit charges every visit alike, so the points of {key} differ in what "
        "is trained and not in its time; remove it, or sweep it too"
        for key in LENGTHS
        if len({str(point.changed.get(key)) for point in grid}) > 1
        and not any("task.charge_as" in changed for point in grid for changed in point.changed)
    ]
