"""How a run stands, asked from another terminal: read in a fraction of a second, and without writing anything.

No table is folded, and neither pandas nor torch is imported. What a damaged folder does not tell is left open.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedsim.errors import ExperimentError, RunFolderError, message
from fedsim.files.opened import FACTS_BYTES, SETTINGS_BYTES, UnreadableError, bytes_of
from fedsim.records.watching.lines import Facts, disk_bytes, last_rows
from fedsim.records.watching.missing import no_run
from fedsim.records.watching.pace import USED, Left, Pace, shares_of
from fedsim.records.watching.parts import endings, is_folded, newest_rows
from fedsim.records.watching.score import LastScore, last_score

LATELY_S = 600.0
"""Real seconds over which a speed is that of `lately`."""
_NUMBERED = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint: of which version (None: its name does not say), and how old [real s]."""

    version: int | None
    age_s: float


@dataclass(frozen=True)
class RunStatus:
    """How one run stands.

    Attributes:
        folder, name, status, reason: as in `run.json`; a run whose process is gone is `killed`.
        host, pid, started: where it runs or ran.
        wall_s: real seconds since its start, those in which it did not run left out; None: not known.
        quiet_s: real seconds since its last row; None if it does not run.
        budget: limit -> value, of those that it has.
        share: used of the limit that is nearest to its end.
        version, time_s: commits, and virtual time [s].
        visits: outcome -> how many have ended so.
        score: the last one; None: nothing was scored.
        commits_per_min, virtual_per_real: lately, per real time; None if it does not run or nobody knows yet.
        left: real seconds until its end; None likewise.
        disk_bytes, free_bytes: of its folder, and what the disk has left.
        checkpoint: the newest; None: there is none.
        timeline_only: whether nothing is trained.
    """

    folder: Path
    name: str
    status: str
    reason: str = ""
    host: str = ""
    pid: int | None = None
    started: str = ""
    wall_s: float | None = None
    quiet_s: float | None = None
    budget: Mapping[str, float] = field(default_factory=dict)
    share: float = 0.0
    version: int = 0
    time_s: float = 0.0
    visits: Mapping[str, int] = field(default_factory=dict)
    score: LastScore | None = None
    commits_per_min: float | None = None
    virtual_per_real: float | None = None
    left: Left | None = None
    disk_bytes: int = 0
    free_bytes: int = 0
    checkpoint: Checkpoint | None = None
    timeline_only: bool = False

    @property
    def runs(self) -> bool:
        """Whether it goes on."""
        return self.status == "running"


def run_status(folder: Path) -> RunStatus:
    """Return how the run in a folder stands.

    Raises:
        RunFolderError: the folder does not exist, or holds no run that can be read.
    """
    head = _head(folder)
    status = _status(folder, head)
    commits = newest_rows(folder, "commits")
    walls = last_rows(folder / "wall.jsonl")
    totals = _mapping(head.get("totals"))
    visits = _counts(totals.get("outcomes")) if is_folded(folder) else endings(folder)
    version = int(_number(commits[-1].get("version"))) if commits else int(_number(totals.get("commits")))
    now = _Now(folder, commits, walls) if status == "running" else None
    budget = _budget(folder)
    pace = None if now is None else now.pace(budget, _number(head.get("visits_after")))
    time_s = _time_s(folder, commits, head)
    used = {"time_s": time_s, "version": version, "total_up_bytes": _up_bytes(commits, totals)}
    return RunStatus(
        folder=folder,
        name=str(head.get("name", folder.name)),
        status=status,
        reason=str(head.get("reason", "")),
        host=str(head.get("host", "")),
        pid=int(_number(head.get("pid"))) or None,
        started=str(head.get("started", "")),
        wall_s=_known(head.get("wall_s")) if now is None else now.wall_s,
        quiet_s=None if now is None else now.quiet_s,
        budget=budget,
        share=max(shares_of(budget, used).values(), default=0.0),
        version=version,
        time_s=time_s,
        visits=visits,
        score=_last_score(folder, _mapping(head.get("last_score"))),
        commits_per_min=None if now is None else now.speed("version", 60.0),
        virtual_per_real=None if now is None else now.speed("time_s", 1.0),
        left=None if pace is None or now is None or now.wall_s is None else pace.left(now.wall_s),
        disk_bytes=disk_bytes(folder),
        free_bytes=shutil.disk_usage(folder).free,
        checkpoint=newest_checkpoint(folder / "checkpoints"),
        timeline_only=head.get("timeline_only") is True,
    )


def _head(folder: Path) -> Facts:
    path = folder / "run.json"
    if not path.is_file():
        raise RunFolderError(no_run(folder, path.name))
    try:
        head = json.loads(bytes_of(path, FACTS_BYTES, folder=folder))
    except (UnreadableError, OSError, ValueError, RecursionError) as problem:
        raise RunFolderError(message(str(path), f"cannot be read ({problem})")) from problem
    if not isinstance(head, dict):
        raise RunFolderError(message(str(path), "is damaged: it is no mapping"))
    return head


def _status(folder: Path, head: Facts) -> str:
    status = str(head.get("status", "killed"))
    if status != "running":
        return status
    from fedsim.records.folder import may_be_alive  # and with it NumPy and pydantic, for runs that go on only
    from fedsim.records.info import read_info

    return status if may_be_alive(read_info(folder / "run.json"), folder) else "killed"


def _budget(folder: Path) -> dict[str, float]:
    """Return the limits of a run, those that are set."""
    import yaml

    from fedsim.files.yaml_file import plain

    try:
        data = bytes_of(folder / "experiment.yaml", SETTINGS_BYTES, folder=folder)
        blocks = _mapping(plain(data.decode("utf-8")))
    except (UnreadableError, ExperimentError, OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        return {}
    budget = _mapping(blocks.get("budget"))
    return {limit: value for limit in USED if (value := _number(budget.get(limit))) > 0}


class _Now:
    """The real time of a run that goes on: its wall clock, and what it did when."""

    def __init__(self, folder: Path, commits: Sequence[Facts], walls: Sequence[Facts]) -> None:
        facts = {int(_number(row.get("version"))): row for row in commits}
        self._made = [
            (_number(wall.get("wall_s")), facts[version])
            for wall in walls
            if (version := int(_number(wall.get("version")))) in facts
        ]
        self.quiet_s = _quiet_s(folder)
        last_s = _number(walls[-1].get("wall_s")) if walls else None
        self.wall_s = None if last_s is None else last_s + _since(folder / "wall.jsonl")

    def pace(self, budget: Mapping[str, float], visits_after: float) -> Pace:
        """Return how fast the run has gone."""
        pace = Pace(visits_after)
        for wall_s, row in self._made:
            facts = {fact: _number(row.get(fact)) for fact in USED.values()}
            pace.note(wall_s, shares_of(budget, facts), _number(row.get("updates")))
        return pace

    def speed(self, fact: str, per_s: float) -> float | None:
        """Return how much of a fact came in `per_s` real seconds lately; None if nobody knows yet."""
        if self.wall_s is None or len(self._made) < 2:
            return None
        from_s = self.wall_s - LATELY_S
        began_s, first = next((m for m in self._made if m[0] >= from_s), self._made[-2])
        last = self._made[-1][1]
        if first is last:
            began_s, first = self._made[-2]
        took_s = self.wall_s - began_s
        return per_s * (_number(last.get(fact)) - _number(first.get(fact))) / took_s if took_s > 0 else None


def _quiet_s(folder: Path) -> float:
    """Return the real seconds since the last row of any table."""
    return min((_since(path) for path in folder.glob("*.jsonl")), default=_since(folder / "run.json"))


def _since(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0


def _time_s(folder: Path, commits: Sequence[Facts], head: Facts) -> float:
    """Return the latest virtual instant that is known [s]."""
    visits = newest_rows(folder, "visits", 2**16)
    ended = [_number(row.get("ended_s")) for row in visits]
    made = [_number(row.get("time_s")) for row in commits[-1:]]
    return max([_number(head.get("end_time_s")), *ended, *made])


def _up_bytes(commits: Sequence[Facts], totals: Facts) -> float:
    return _number(commits[-1].get("total_up_bytes")) if commits else _number(totals.get("up_bytes"))


def _last_score(folder: Path, known: Facts) -> LastScore | None:
    """Return the last score: `known` as `run.json` has it of a run that has ended, else what its rows say."""
    if known:
        return last_score([known])
    return last_score(newest_rows(folder, "scores", 2**16) or _folded_scores(folder / "scores.parquet"))


def _folded_scores(path: Path) -> list[Facts]:
    if not path.is_file():
        return []
    from fedsim.records.tables import read_parquet, rows_of

    try:
        return [*rows_of(read_parquet("scores", path))]
    except RunFolderError:
        return []


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint in a folder of them; its version is the last number of its name."""
    try:
        files = [
            (path.stat().st_mtime, path.stem) for path in folder.iterdir() if not path.name.startswith(".")
        ]
    except OSError:
        return None
    if not files:
        return None
    written_s, stem = max(files)
    number = _NUMBERED.search(stem)
    return Checkpoint(None if number is None else int(number[1]), max(0.0, time.time() - written_s))


def _mapping(value: object) -> Facts:
    return value if isinstance(value, dict) else {}


def _counts(value: object) -> dict[str, int]:
    return {str(name): int(_number(count)) for name, count in _mapping(value).items()}


def _number(value: object, other: float = 0.0) -> float:
    """Return a number of a file, `other` if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return other


def _known(value: object) -> float | None:
    return None if value is None else _number(value)
