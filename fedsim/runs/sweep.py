"""A plain grid: every point of `sweep:` in its own folder, one after the other; what is done is skipped."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedsim.checks.gate import admit, prepared
from fedsim.clock.auto import with_auto_as_stored
from fedsim.clock.components import parts_of
from fedsim.clock.plan import Plan, ground
from fedsim.config.experiment import Experiment, RuntimeConfig
from fedsim.config.loading import label, naming, sweep_points
from fedsim.errors import FedsimError, RunFolderError, message
from fedsim.executors import Executor
from fedsim.records.folder import holds_run
from fedsim.records.quantities import duration, said
from fedsim.records.run import Run, load
from fedsim.runs import simulation
from fedsim.server.ledger import OnEvent

LENGTHS = ("local", "local.steps", "local.epochs", "local.batch")
"""Keys of how long a visit trains."""
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
        admit(experiment, f"{path} ({text})")
    return [
        Point(text, changed, experiment, out / text)
        for text, (changed, experiment) in zip(labels, grid, strict=True)
    ]


def run_all(
    grid: Sequence[Point],
    *,
    timeline_only: bool = False,
    say: Callable[[str], None],
    watch: Callable[[], AbstractContextManager[OnEvent]] = lambda: nullcontext(_unseen),
    debug: bool = False,
) -> list[Result]:
    """Run the points in order; one that fails is reported and the next one goes on.

    One executor serves all points with the same `runtime`; after a failure a fresh one is made. Points
    that differ in neither population nor data share them.

    Args:
        grid: the points, as of `points`.
        timeline_only: the schedules without weights or training.
        say: takes each line that tells how the grid goes.
        watch: makes the observer of one run, which is entered before the run and left after it.
        debug: print the traceback of a point that fails.
    """
    results: list[Result] = []
    for caution in cautions(grid):
        say(caution)
    with closing(_Shared()) as shared:
        for number, point in enumerate(grid, start=1):
            tell = _headed(say, f"[{number}/{len(grid)}] {point.label}")
            try:
                result = _result(point, shared, timeline_only, tell, watch)
            except Exception as problem:
                if debug:
                    traceback.print_exc()
                text, code = _said(problem)
                tell(f"failed\nerror: {text}")
                result = Result(point, "failed", None, text.splitlines()[0], code)
                shared.close()
            results.append(result)
    return results


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


def _headed(say: Callable[[str], None], head: str) -> Callable[[str], None]:
    return lambda text: say(f"{head}: {text}")


def _unseen(_kind: str, _facts: dict[str, Any]) -> None:
    """Take an event that nobody looks at."""


def _result(
    point: Point,
    shared: _Shared,
    timeline_only: bool,
    say: Callable[[str], None],
    watch: Callable[[], AbstractContextManager[OnEvent]],
) -> Result:
    """Run a point, unless its folder holds its run already."""
    finished = _finished(point, timeline_only=timeline_only)
    if finished is not None:
        say("done already, skipped")
        return Result(point, "skipped", finished)
    say(f"runs in {point.folder}")
    plan = shared.plan(point)
    executor = None if timeline_only else shared.executor(point, say)
    with watch() as on_event:
        run = simulation.simulate(
            plan, executor, out=point.folder, timeline_only=timeline_only, on_event=on_event
        )
    return Result(point, "done", run)


def _said(problem: Exception) -> tuple[str, int]:
    """Return what went wrong in words, and the exit code for it."""
    if isinstance(problem, FedsimError):
        return str(problem), problem.exit_code
    return f"unexpected {type(problem).__name__}: {problem}", 1


class _Shared:
    """What points have in common: plans that were made already, and the executor of their `runtime`."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        self._runtime: RuntimeConfig | None = None
        self._executor: Executor | None = None

    def plan(self, point: Point) -> Plan:
        """Return the plan of a point; population and data are those of an earlier point where they are equal."""
        with naming(point.experiment, point.label):
            known = ground(point.experiment)
            plan = prepared(point.experiment, self._plans.get(known), point.label)
        self._plans.setdefault(known, plan)
        if len(self._plans) > PLANS:
            del self._plans[next(iter(self._plans))]
        return plan

    def executor(self, point: Point, say: Callable[[str], None]) -> Executor:
        """Return the executor that serves the point's `runtime`, not opened for its task yet; says if one must start."""
        if self._executor is None or self._runtime != point.experiment.runtime:
            self.close()
            if point.experiment.runtime.executor == "ray":
                say("starts Ray, once for all points with this runtime")
            self._runtime, self._executor = (
                point.experiment.runtime,
                simulation.executor_for(point.experiment),
            )
        return self._executor

    def close(self) -> None:
        """Close the executor, if there is one; the next point gets a fresh one."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None


def _finished(point: Point, *, timeline_only: bool) -> Run | None:
    """Return the run that is in the folder if it is this one and complete; make room if it is not complete.

    Raises:
        RunFolderError: the folder holds a run of another experiment.
    """
    if not holds_run(point.folder):
        return None
    run = load(point.folder)
    digest = with_auto_as_stored(point.experiment, run.experiment).digest
    same = run.info.digest == digest and run.info.timeline_only == timeline_only
    if run.info.status == "done":
        if same:
            return run
        what, fix = "holds the run of another experiment", "choose another --out, or move that folder away"
        raise RunFolderError(message(str(point.folder), what, fix=fix))
    if run.info.status == "running":
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
            run, info = result.run, result.run.info
            row["commits"] = str(len(run.commits))
            row["virtual time"] = duration(info.end_time_s)
            row["up"] = said("bytes", info.totals.up_bytes)
            test = run.scores[run.scores["split"] == "test"]
            if len(test):
                metric = test["metric"].iloc[0]
                values = test[test["metric"] == metric].sort_values("version")["value"]
                row[str(metric)] = f"{values.iloc[0]:.4g} -> {values.iloc[-1]:.4g}"
        elif result.problem:
            row["problem"] = result.problem
        rows.append(row)
    return rows
