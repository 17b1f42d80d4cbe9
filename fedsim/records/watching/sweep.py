"""`sweep.json` of a folder of runs: which points the grid has, and how each of them stands.

The folder's contract (docs/sweeps.md): a point is its experiment, by digest, and not its place in the list. Its run lies in a
folder named after what was changed; what that folder holds says how the point stands.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import write_atomically
from fedsim.files.opened import FACTS_BYTES, UnreadableError, bytes_of
from fedsim.records.watching.pace import Left
from fedsim.records.watching.status import RunStatus, run_status

FILE = "sweep.json"
PointState = Literal["waiting", "in flight", "begun", "done", "failed"]
"""`begun`: its run was interrupted or killed, and goes on when the sweep is started again."""
_STATES: Mapping[str, PointState] = {"running": "in flight", "done": "done", "failed": "failed"}


@dataclass(frozen=True)
class StoredPoint:
    """A point as `sweep.json` names it.

    Attributes:
        label: what was changed, as a folder name; changed: key path -> value, as text.
        folder: of its run, below the sweep's.
        digest: of its experiment, what is `auto` left open.
        problem: why it failed, if it did before it had a folder.
    """

    label: str
    folder: str
    digest: str
    changed: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class StoredSweep:
    """What `sweep.json` holds.

    Attributes:
        points: in the order of the grid.
        files: folder of a run -> file that it reads -> SHA-256, as it was when the run began.
        parallel: points that run at the same time; timeline_only: whether nothing is trained.
        host, pid, started, ended: of the process that ran it last; `ended` is None while it goes, or if it was killed.
    """

    points: tuple[StoredPoint, ...]
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    parallel: int = 1
    timeline_only: bool = False
    host: str = ""
    pid: int = 0
    started: str = ""
    ended: str | None = None

    def write(self, folder: Path) -> None:
        """Write it into the folder of the sweep."""
        write_atomically(folder / FILE, (json.dumps(asdict(self), indent=2) + "\n").encode())


def holds_sweep(folder: Path) -> bool:
    """Tell whether a folder is that of a sweep."""
    return (folder / FILE).is_file()


def read_sweep(folder: Path) -> StoredSweep:
    """Return what `sweep.json` holds.

    Raises:
        RunFolderError: it is damaged, or names a folder that is not below the sweep's.
    """
    path = folder / FILE
    try:
        sweep = TypeAdapter(StoredSweep).validate_json(bytes_of(path, FACTS_BYTES, folder=folder))
    except (UnreadableError, OSError, ValidationError, RecursionError) as problem:
        said = str(problem).splitlines()[0]
        fix = "remove that file: `fedsim sweep` writes it anew"
        raise RunFolderError(message(str(path), f"cannot be read ({said})", fix=fix)) from problem
    outside = next((p.folder for p in sweep.points if not _is_name(p.folder)), None)
    if outside is not None:
        fix = "remove that file: `fedsim sweep` writes it anew"
        raise RunFolderError(message(str(path), "names a folder outside the sweep's", got=outside, fix=fix))
    return sweep


def _is_name(folder: str) -> bool:
    return bool(folder) and folder not in (".", "..") and not set(folder) & {"/", "\\", "\0"}


@dataclass(frozen=True)
class PointStatus:
    """How a point stands; `run` is None if it has no folder, or one that cannot be read."""

    label: str
    state: PointState
    run: RunStatus | None = None
    problem: str = ""


@dataclass(frozen=True)
class SweepStatus:
    """How a sweep stands.

    Attributes:
        folder: of all runs.
        points: in the order of the grid.
        parallel: points that run at the same time.
        runs: whether its process goes on here; None: it is on another host, so nobody can tell.
        host, pid: of that process.
        left: real seconds until its end, from what finished points took; None: not known, or it does not run.
    """

    folder: Path
    points: tuple[PointStatus, ...]
    parallel: int
    runs: bool | None
    host: str
    pid: int
    left: Left | None = None

    def counted(self) -> dict[PointState, int]:
        """Return how many points stand in each way, of those ways that there are."""
        states = [point.state for point in self.points]
        ways: Sequence[PointState] = ("done", "in flight", "begun", "failed", "waiting")
        return {state: states.count(state) for state in ways if state in states}


def sweep_status(folder: Path) -> SweepStatus:
    """Return how a sweep and each of its points stand; nothing is written.

    Raises:
        RunFolderError: `sweep.json` is damaged.
    """
    stored = read_sweep(folder)
    points = tuple(_point_status(folder, point) for point in stored.points)
    runs = _runs(folder, stored)
    return SweepStatus(
        folder=folder,
        points=points,
        parallel=stored.parallel,
        runs=runs,
        host=stored.host,
        pid=stored.pid,
        left=_left(points, stored.parallel) if runs else None,
    )


def _point_status(folder: Path, point: StoredPoint) -> PointStatus:
    try:
        run = run_status(folder / point.folder)
    except RunFolderError as problem:
        if not (folder / point.folder).exists():
            return PointStatus(point.label, "failed" if point.problem else "waiting", problem=point.problem)
        return PointStatus(point.label, "failed", problem=problem.message.headline)
    state = _STATES.get(run.status, "begun")
    return PointStatus(point.label, state, run, run.reason if state == "failed" else point.problem)


def _runs(folder: Path, stored: StoredSweep) -> bool | None:
    if stored.ended is not None:
        return False
    from fedsim.records.info import RunInfo
    from fedsim.records.liveness.standing import standing

    info = RunInfo("sweep", "running", 0, "", started=stored.started, host=stored.host, pid=stored.pid)
    now = standing(folder, info)
    return now.alive if now.sure else None


def _left(points: Sequence[PointStatus], parallel: int) -> Left | None:
    """Return what is left: whole points at the mean of those that are done, begun ones by their own pace."""
    took_s = [p.run.wall_s for p in points if p.state == "done" and p.run is not None and p.run.wall_s]
    waiting = sum(point.state in ("waiting", "begun") for point in points)
    flying = [point.run.left for point in points if point.state == "in flight" and point.run is not None]
    known = [left for left in flying if left is not None]
    if (not took_s and (waiting or not known)) or len(known) < len(flying):
        return None
    mean_s = sum(took_s) / len(took_s) if took_s else 0.0
    apart_s = math.sqrt(sum((t - mean_s) ** 2 for t in took_s) / max(1, len(took_s) - 1)) if took_s else 0.0
    ahead_s = waiting * mean_s
    apart_s = 2.0 * max(apart_s * math.sqrt(waiting), 0.1 * ahead_s)
    at_once = max(1, min(parallel, len(flying) + waiting))
    now_s, least_s, most_s = (
        sum(values) / at_once
        for values in (
            [left.middle_s for left in known],
            [left.least_s for left in known],
            [left.most_s for left in known],
        )
    )
    longest_s = max((left.middle_s for left in known), default=0.0)
    middle_s = max(longest_s, now_s + ahead_s / at_once)
    least_s = max(0.0, min(middle_s, least_s + (ahead_s - apart_s) / at_once))
    return Left(middle_s, least_s, max(middle_s, most_s + (ahead_s + apart_s) / at_once))
