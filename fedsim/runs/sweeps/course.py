"""A sweep under way: whose turn it is, how points have ended, and `sweep.json`, which says so to others."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fedsim.errors import FedsimError
from fedsim.records.quantities import duration
from fedsim.records.run import Run, load
from fedsim.records.watching.sweep import StoredPoint, StoredSweep, holds_sweep, read_sweep
from fedsim.runs.sweeps.grid import Ending, Point, Result
from fedsim.runs.sweeps.inputs import Inputs
from fedsim.runs.sweeps.standing import Folders, Standing
from fedsim.runs.sweeps.work import Problem, Say, problem_of

HELD_S = 30.0
"""Real seconds to wait, after all other points, for those that other processes are at work on: children whose parent was killed."""


@dataclass(frozen=True)
class Turn:
    """A point that is to run now.

    Attributes:
        number: of the point in the grid, from 1.
        standing: what its folder holds.
        say: takes a line about it.
    """

    number: int
    standing: Standing
    say: Say


class Course:
    """The points of a sweep, and how each has ended."""

    def __init__(
        self, grid: Sequence[Point], *, timeline_only: bool, parallel: int, fail_fast: bool, say: Say
    ) -> None:
        """Read what was noted at an earlier start, and write down that this one has begun.

        Raises:
            RunFolderError: the file that says so is damaged.
        """
        self._grid, self._say, self._fail_fast = grid, say, fail_fast
        self._failed = False
        self._out = grid[0].folder.parent
        before = read_sweep(self._out) if holds_sweep(self._out) else StoredSweep(())
        self._files: dict[str, Mapping[str, str]] = {
            name: files for name, files in before.files.items() if (self._out / name).is_dir()
        }
        self._inputs = Inputs()
        self._folders = Folders(grid, self._inputs, timeline_only=timeline_only, files_then=self._files)
        self._results: dict[int, Result] = {}
        self._waiting = deque(range(len(grid)))
        self._held: deque[int] = deque()
        self._held_from_s: float | None = None
        self._stored = StoredSweep(
            tuple(_stored(point) for point in grid),
            self._files,
            parallel=parallel,
            timeline_only=timeline_only,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=_now(),
        )
        self._stored.write(self._out)

    def next(self) -> Turn | None:
        """Return the next point that is to run; those that are done, or cannot run, are settled on the way. None: no one now."""
        tries = len(self._waiting) + len(self._held)
        while tries and not self.stops:
            tries -= 1
            at = self._waiting.popleft() if self._waiting else self._held.popleft()  # they come last
            turn = self._turn(at)
            if turn is not None:
                return turn
        return None

    @property
    def stops(self) -> bool:
        """Whether a point has failed, and the sweep is to end then."""
        return self._fail_fast and self._failed

    @property
    def waits(self) -> bool:
        """Whether there are points that other processes are at work on, and patience with them."""
        if self.stops or not self._held:
            return False
        if self._held_from_s is None:
            self._held_from_s = time.monotonic()
            self._say(f"waits up to {HELD_S:.0f} s for what other processes are at work on")
        return time.monotonic() - self._held_from_s < HELD_S

    def _turn(self, at: int) -> Turn | None:
        point, say = self._grid[at], self._headed(at)
        try:
            standing = self._folders.standing(point)
            if standing.how == "in flight":
                self._held.append(at)
                return None
            if standing.how == "done":
                say(f"done already, skipped{f' ({standing.note})' if standing.note else ''}")
                self._results[at] = Result(point, "skipped", load(standing.point.folder))
                return None
            self._files[point.folder.name] = self._inputs.of(point.experiment)
        except Exception as error:
            self._fail(at, problem_of(error))
            return None
        self._note(at, "")
        return Turn(at + 1, standing, say)

    # how a turn ends ----------------------------------------------------------------------------

    def done(self, turn: Turn, run: Run | None = None) -> None:
        """Take a point that has come to its end; without its run, that is read."""
        try:
            run = load(turn.standing.point.folder) if run is None else run
        except FedsimError as problem:
            self._fail(turn.number - 1, problem_of(problem))
            return
        self._settle(turn.number - 1, "done", run=run)
        self._say(self.summary())

    def fail(self, turn: Turn, problem: Problem) -> None:
        """Take a point that has failed."""
        self._fail(turn.number - 1, problem)

    def stop(self, turn: Turn) -> None:
        """Take a point that was stopped because another one had failed."""
        self._settle(turn.number - 1, "stopped", problem="goes on when the sweep is started again")

    def _fail(self, at: int, problem: Problem) -> None:
        self._failed = True
        self._headed(at)(f"failed\nerror: {problem.text}")
        self._settle(at, "failed", problem=problem.line, exit_code=problem.exit_code)
        self._note(at, problem.line)

    def _settle(
        self, at: int, status: Ending, *, run: Run | None = None, problem: str = "", exit_code: int = 0
    ) -> None:
        self._results[at] = Result(self._grid[at], status, run, problem, exit_code)

    # what is said of it -------------------------------------------------------------------------

    def results(self) -> list[Result]:
        """Return how every point ended, in the order of the grid."""
        return [self._results.get(at) or self._unsettled(at) for at in range(len(self._grid))]

    def _unsettled(self, at: int) -> Result:
        point = self._grid[at]
        if at in self._held:
            why = "another process is at work on it; start the sweep again when that has ended"
            return Result(point, "in flight", None, why, 2)
        return Result(point, "waiting")

    def summary(self) -> str:
        """Return in a line how many points have ended, and how long the others will take if they are like those."""
        took_s = [
            r.run.info.wall_s for r in self._results.values() if r.status == "done" and r.run is not None
        ]
        known_s = [s for s in took_s if s is not None]
        ended, of = len(self._results), len(self._grid)
        text = f"sweep: {ended} of {of} points have ended"
        if ended == of or not known_s:
            return text
        left_s = sum(known_s) / len(known_s) * (of - ended) / self._stored.parallel
        return f"{text}, about {duration(round(left_s))} left"

    def close(self) -> None:
        """Write down that the sweep has ended."""
        self._stored = replace(self._stored, ended=_now())
        self._stored.write(self._out)

    def _note(self, at: int, problem: str) -> None:
        """Write down a point's problem, or that it has none any more, and the files that it reads."""
        points = list(self._stored.points)
        points[at] = replace(points[at], problem=problem)
        self._stored = replace(self._stored, points=tuple(points), files=self._files)
        self._stored.write(self._out)

    def _headed(self, at: int) -> Say:
        head = f"[{at + 1}/{len(self._grid)}] {self._grid[at].label}"
        return lambda text: self._say(f"{head}: {text}")


def _stored(point: Point) -> StoredPoint:
    changed = {key: str(value) for key, value in point.changed.items()}
    return StoredPoint(point.label, point.folder.name, point.experiment.digest, changed)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
