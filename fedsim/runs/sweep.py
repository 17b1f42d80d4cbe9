"""A plain grid: every point of `sweep:` in its own folder; what is done is skipped, what was begun goes on.

One point after the other in this process, or several at the same time in processes of their own. The tables of a point are those of
the same run alone, whichever way. docs/sweeps.md says what the folder of a sweep holds.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fedsim.callbacks.telling import OnEvent
from fedsim.errors import RunFolderError, TakenError, message
from fedsim.executors.host import cores
from fedsim.files.disk import telling
from fedsim.records.folder import REPORT, has_lines
from fedsim.records.liveness.hold import hold
from fedsim.records.quantities import duration, said
from fedsim.records.watching.sweep import FILE
from fedsim.runs.sweeps.child import Order
from fedsim.runs.sweeps.children import Children
from fedsim.runs.sweeps.course import Course, Turn
from fedsim.runs.sweeps.grid import Point, Result, cautions, points
from fedsim.runs.sweeps.work import Say, Shared, Watch, problem_of, run_point

__all__ = ["Point", "Result", "cautions", "points", "run_all", "summary"]

TURN_S = 0.5
"""Real seconds between two looks at what waits."""


def _unwatched(_head: str) -> nullcontext[OnEvent]:
    return nullcontext(_unseen)


def _unseen(_kind: str, _facts: dict[str, Any]) -> None:
    """Take an event that nobody looks at."""


def run_all(
    grid: Sequence[Point],
    *,
    timeline_only: bool = False,
    say: Say,
    watch: Watch = _unwatched,
    debug: bool = False,
    parallel: int = 1,
    fail_fast: bool = False,
) -> list[Result]:
    """Run the points that are not done; one that fails is reported and the next one goes on.

    In this process one executor serves all points with the same `runtime`, and after a failure a fresh one is made; points
    that differ in neither population nor data share them. Of several points at the same time each has a process
    and an executor of its own; where `runtime.workers` is open, they share the cores.

    Args:
        grid: the points, as of `points`.
        timeline_only: the schedules without weights or training.
        say: takes each line that tells how the grid goes.
        watch: makes the observer of one run, which is entered before the run and left after it.
        debug: print the traceback of a point that fails in this process.
        parallel: points that run at the same time; no result depends on it.
        fail_fast: stop at the first point that fails; the others go on when the sweep is started again.

    Raises:
        RunFolderError: another process runs a sweep in that folder; TakenError: it holds a run.
    """
    for caution in cautions(grid):
        say(caution)
    with _held(grid[0].folder.parent):
        course = Course(grid, timeline_only=timeline_only, parallel=parallel, fail_fast=fail_fast, say=say)
        with closing(course):
            if parallel == 1:
                _here(course, watch, timeline_only=timeline_only, debug=debug)
            else:
                order = _Orders(parallel, timeline_only=timeline_only)
                _apart(course, order, watch)
        return course.results()


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Have the folder of a sweep for this process alone, as long as it lives."""
    if (out / "run.json").exists() or has_lines(out):
        what = "holds a run, and a sweep's folder holds folders of runs"
        raise TakenError(message(str(out), what, fix="choose another --out"))
    if (out / REPORT).exists() and not (out / FILE).exists():
        what = f"has {REPORT} already, which the sweep would overwrite"
        raise TakenError(message(str(out), what, fix="choose another --out, or move it away"))
    try:
        with telling(out):
            out.mkdir(parents=True, exist_ok=True)
            lock = hold(out)
    except OSError as problem:
        raise RunFolderError(message(str(out), f"cannot be written to ({problem.strerror})")) from problem
    try:
        yield
    finally:
        lock.release()


def _here(course: Course, watch: Watch, *, timeline_only: bool, debug: bool) -> None:
    """Run one point after the other in this process."""
    with closing(Shared()) as shared:
        while True:
            turn = course.next()
            if turn is None:
                if not course.waits:
                    return
                time.sleep(TURN_S)
                continue
            try:
                run = run_point(turn.standing, shared, turn.say, watch, timeline_only=timeline_only)
            except Exception as error:
                if debug:
                    traceback.print_exc()
                course.fail(turn, problem_of(error))
                shared.close()
            else:
                course.done(turn, run)


class _Orders:
    """Writes the orders of points that run at the same time."""

    def __init__(self, parallel: int, *, timeline_only: bool) -> None:
        self.parallel, self._timeline_only = parallel, timeline_only
        self._workers = max(1, cores() // parallel)

    def of(self, turn: Turn) -> Order:
        """Return the order for a point."""
        point = turn.standing.point
        return Order(
            label=point.label,
            folder=str(point.folder.absolute()),
            experiment=point.experiment.plain(),
            how=turn.standing.how,
            timeline_only=self._timeline_only,
            workers=self._workers,
            path=list(sys.path),
        )


def _apart(course: Course, orders: _Orders, watch: Watch) -> None:
    """Run several points at the same time, each in a process of its own."""
    with Children() as children, ExitStack() as stack:
        turns: dict[int, Turn] = {}
        observers: dict[int, OnEvent] = {}
        while True:
            if course.stops:
                children.stop()
            while len(children) < orders.parallel and (turn := course.next()) is not None:
                head = f"[{turn.number}] {turn.standing.point.label}: "
                turns[turn.number], observers[turn.number] = turn, stack.enter_context(watch(head))
                children.start(turn.number, turn.standing, orders.of(turn))
            if not len(children) and not course.waits:
                return
            for news in children.news(TURN_S):
                child, turn = news.child, turns[news.child.number]
                if news.kind == "say":
                    turn.say(str(news.facts["text"]))
                elif news.kind != "ended":
                    kind = "done" if news.kind == "finished" else news.kind
                    observers[child.number](kind, dict(news.facts))
                elif child.problem is not None:
                    facts = {"status": "killed", "reason": child.problem.line, "folder": None}
                    observers[child.number]("stopped", facts)  # unless it could say so itself
                    course.fail(turn, child.problem)
                elif child.stopped:
                    course.stop(turn)
                else:
                    course.done(turn)


def summary(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return one row a point for the table at the end: how it ended and its main figures."""
    return [_row(result) for result in results]


def _row(result: Result) -> dict[str, str]:
    row = {"point": result.point.label, "status": result.status}
    if result.run is None:
        return row | ({"problem": result.problem} if result.problem else {})
    run, info = result.run, result.run.info
    row["commits"] = str(len(run.commits))
    row["virtual time"] = duration(info.end_time_s)
    row["up"] = said("bytes", info.totals.up_bytes)
    test = run.scores[run.scores["split"] == "test"]
    if len(test):
        metric = test["metric"].iloc[0]
        values = test[test["metric"] == metric].sort_values("version")["value"]
        row[str(metric)] = f"{values.iloc[0]:.4g} -> {values.iloc[-1]:.4g}"
    return row
