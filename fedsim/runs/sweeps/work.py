"""One point run in this process: begun, or gone on with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fedsim.blame import described
from fedsim.callbacks.telling import OnEvent
from fedsim.checks.gate import prepared
from fedsim.clock.plan import Plan, ground
from fedsim.config.experiment import RuntimeConfig
from fedsim.config.loading import naming
from fedsim.errors import FedsimError, RunFolderError
from fedsim.executors import Executor
from fedsim.records.run import Run
from fedsim.runs import simulation
from fedsim.runs.preflight.forecast import forecast
from fedsim.runs.preflight.needs import needs_of
from fedsim.runs.resuming.folder import held
from fedsim.runs.resuming.resume import resume
from fedsim.runs.sweeps.grid import Point
from fedsim.runs.sweeps.standing import Standing, put_aside

PLANS = 4
"""Populations and data sets that are kept for later points."""

Say = Callable[[str], None]
Watch = Callable[[str], AbstractContextManager[OnEvent]]
"""Makes the observer of one run; the text stands before what it says, where several runs say something."""


@dataclass(frozen=True)
class Problem:
    """Why a point failed: the whole text, its first line, and the exit code for it."""

    text: str
    exit_code: int

    @property
    def line(self) -> str:
        """The first line."""
        return next(iter(self.text.splitlines()), "")


def problem_of(error: Exception) -> Problem:
    """Return what went wrong, in words."""
    if isinstance(error, FedsimError):
        return Problem(str(error), error.exit_code)
    return Problem(f"unexpected {described(error)}", 1)


class Shared:
    """What points have in common: plans that were made already, and the executor of their `runtime`."""

    def __init__(self, workers: int | None = None) -> None:
        """Take how many processes Ray may start where an experiment leaves that open; None: as many as fit."""
        self._workers = workers
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

    def executor(self, point: Point, say: Say) -> Executor:
        """Return the executor that serves the point's `runtime`, not opened for its task yet; says if one must start."""
        runtime = point.experiment.runtime
        if self._executor is None or self._runtime != runtime:
            self.close()
            if runtime.executor == "ray":
                say("starts Ray, once for all points with this runtime")
            workers = self._workers if runtime.workers == "auto" and self._workers else runtime.workers
            alike = runtime.model_copy(update={"workers": workers})
            self._runtime = runtime
            self._executor = simulation.executor_for(point.experiment.model_copy(update={"runtime": alike}))
        return self._executor

    def close(self) -> None:
        """Close the executor, if there is one; the next point gets a fresh one."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None


def run_point(standing: Standing, shared: Shared, say: Say, watch: Watch, *, timeline_only: bool) -> Run:
    """Run a point that is not done, or go on with its run; what is in the way is put aside.

    Raises:
        FedsimError: see `fedsim.simulate`.
    """
    point = standing.point
    plan = shared.plan(point)
    needs = needs_of(plan, point.folder, forecast(plan), timeline_only=timeline_only)
    for caution in needs.cautions():
        say(caution)
    needs.check()
    executor = None if timeline_only else shared.executor(point, say)
    if standing.how == "begun":
        say(f"goes on in {point.folder}")
        try:
            with watch("") as on_event:
                return resume(
                    point.folder, executor, experiment=point.experiment, on_event=on_event, trust=True
                )
        except RunFolderError as problem:
            say(f"cannot go on: {problem.message.headline}")
    if standing.how in ("begun", "another"):
        with held(point.folder):  # unless another process goes on with it
            aside = put_aside(point.folder)
        say(f"an unfinished run is put aside as {aside.name}")
    say(f"runs in {point.folder}")
    with watch("") as on_event:
        return simulation.simulate(
            plan, executor, out=point.folder, timeline_only=timeline_only, on_event=on_event
        )
