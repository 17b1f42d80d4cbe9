"""A plain grid: every point of `sweep:` in its own folder, one after the other; what is done is skipped."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedsim.checks.blocks import check
from fedsim.cli.progress import Progress, seconds
from fedsim.config.experiment import Experiment
from fedsim.config.loading import label, naming, sweep_points
from fedsim.errors import FedsimError, RunFolderError, message
from fedsim.records.quantities import said

if TYPE_CHECKING:
    from fedsim.executors import Executor
    from fedsim.records.run import Run


PLANS = 4
"""Populations and data sets that are kept for later points."""


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


@dataclass(frozen=True)
class Result:
    """How one point ended; `run` is None if it failed before it had tables."""

    point: Point
    status: Literal["done", "skipped", "failed"]
    run: Run | None = None
    problem: str = ""
    exit_code: int = 0


def points(path: str | Path, overrides: Sequence[str] = (), out: Path | None = None) -> list[Point]:
    """Return the checked grid; `out` is the folder of all runs (default `runs/NAME`).

    Raises:
        ExperimentError: a point that is no valid experiment; nothing has run then.
    """
    grid = sweep_points(path, overrides)
    labels = [label(changed) for changed, _ in grid]
    if len(set(labels)) < len(labels):  # values that look alike once they are a folder name
        labels = [f"{text}_{number}" for number, text in enumerate(labels)]
    out = out or Path("runs") / grid[0][1].name.removesuffix(f".{label(grid[0][0])}")
    for text, (_, experiment) in zip(labels, grid, strict=True):
        check(experiment, f"{path} ({text})")
    return [
        Point(text, changed, experiment, out / text)
        for text, (changed, experiment) in zip(labels, grid, strict=True)
    ]


def run_all(
    grid: Sequence[Point], *, timeline_only: bool = False, say: Callable[[str], None], debug: bool = False
) -> list[Result]:
    """Run the points in order; one that fails is reported and the next one goes on.

    One executor serves all points with the same `runtime`; after a failure a fresh one is made. Points
    that differ in neither population nor data share them.
    """
    from fedsim.clock.plan import Plan, ground, prepare
    from fedsim.runs.simulation import executor_for, simulate

    plans: dict[str, Plan] = {}
    results: list[Result] = []
    worker: tuple[Any, Executor] | None = None
    try:
        for number, point in enumerate(grid, start=1):
            head = f"[{number}/{len(grid)}] {point.label}"
            try:
                finished = _finished(point, timeline_only=timeline_only)
                if finished is not None:
                    say(f"{head}: done already, skipped")
                    results.append(Result(point, "skipped", finished))
                    continue
                say(f"{head}: runs in {point.folder}")
                with naming(point.experiment, point.label):
                    known = ground(point.experiment)
                    plan = prepare(point.experiment, plans.get(known))
                    plans.setdefault(known, plan)
                    if len(plans) > PLANS:
                        del plans[next(iter(plans))]
                if not timeline_only and (worker is None or worker[0] != point.experiment.runtime):
                    if worker is not None:
                        worker[1].close()
                    worker = point.experiment.runtime, executor_for(point.experiment)
                executor = None if timeline_only or worker is None else worker[1]
                with Progress() as progress:
                    run = simulate(
                        plan, executor, out=point.folder, timeline_only=timeline_only, on_event=progress
                    )
                results.append(Result(point, "done", run))
            except Exception as problem:
                if debug:
                    traceback.print_exc()
                expected = isinstance(problem, FedsimError)
                text = str(problem) if expected else f"unexpected {type(problem).__name__}: {problem}"
                say(f"{head}: failed\nerror: {text}")
                code = problem.exit_code if isinstance(problem, FedsimError) else 1
                results.append(Result(point, "failed", None, text.splitlines()[0], code))
                if worker is not None:
                    worker[1].close()
                    worker = None
    finally:
        if worker is not None:
            worker[1].close()
    return results


def _finished(point: Point, *, timeline_only: bool) -> Run | None:
    """Return the run that is in the folder if it is this one and complete; make room if it is not complete.

    Raises:
        RunFolderError: the folder holds a run of another experiment.
    """
    from fedsim.clock.auto import with_auto_as_stored
    from fedsim.records.folder import holds_run
    from fedsim.records.run import load

    if not holds_run(point.folder):
        return None
    run = load(point.folder)
    digest = with_auto_as_stored(point.experiment, run.experiment).digest
    same = run.info.get("digest") == digest and bool(run.info.get("timeline_only")) == timeline_only
    if run.info["status"] == "done":
        if same:
            return run
        what, fix = "holds the run of another experiment", "choose another --out, or move that folder away"
        raise RunFolderError(message(str(point.folder), what, fix=fix))
    if run.info["status"] == "running":
        what, fix = "holds a run that is still going", "wait for it, or choose another --out"
        raise RunFolderError(message(str(point.folder), what, fix=fix))
    number = 1
    while (aside := point.folder.with_name(f"{point.folder.name}.unfinished-{number}")).exists():
        number += 1
    point.folder.rename(aside)  # kept, so that a failure can be looked at
    return None


def summary(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return one row a point for the table at the end: how it ended and its main figures."""
    rows = []
    for result in results:
        row = {"point": result.point.label, "status": result.status}
        if result.run is not None:
            run, totals = result.run, result.run.info.get("totals", {})
            row["commits"] = str(len(run.commits))
            row["virtual time"] = seconds(run.info.get("end_time_s", 0.0))
            row["up"] = said("bytes", totals.get("up_bytes", 0))
            test = run.scores[run.scores["split"] == "test"]
            if len(test):
                metric = test["metric"].iloc[0]
                values = test[test["metric"] == metric].sort_values("version")["value"]
                row[str(metric)] = f"{values.iloc[0]:.4g} -> {values.iloc[-1]:.4g}"
        elif result.problem:
            row["problem"] = result.problem
        rows.append(row)
    return rows
