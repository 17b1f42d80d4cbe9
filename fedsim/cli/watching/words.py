"""How a run, or a sweep, stands: as text for people, as plain values for programs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.records.quantities import duration, number, percent, plural, said
from fedsim.records.watching.words import left_said, rounded

if TYPE_CHECKING:
    from fedsim.records.watching.score import LastScore
    from fedsim.records.watching.status import RunStatus
    from fedsim.records.watching.sweep import SweepStatus

ASLEEP_S = 600.0
"""Real seconds without a row after which that is said."""


def lines_of(run: RunStatus) -> list[str]:
    """Return how a run stands, in some lines."""
    return [*_where(run), *_how_far(run), *_how_fast(run), *_disk(run)]


def _where(run: RunStatus) -> Iterator[str]:
    where = f"process {run.pid} on {run.host}" if run.pid and run.host else ""
    wall = f"{duration(round(run.wall_s))} here" if run.wall_s is not None else ""
    facts = ", ".join(part for part in (where if run.runs else "", wall) if part)
    yield f"{run.name}: {run.status}{f' ({facts})' if facts else ''}"
    if run.reason and not run.runs:
        yield f"reason: {run.reason}"


def _how_far(run: RunStatus) -> Iterator[str]:
    limits: dict[str, Callable[[float], str]] = {
        "commits": lambda value: plural(int(value), "commit"),
        "time_s": duration,
        "up_bytes": lambda value: f"{said('bytes', value)} up",
    }
    budget = (
        " or ".join(limits[name](value) for name, value in run.budget.items()) or "no budget that can be read"
    )
    yield f"v{run.version} at t={duration(run.time_s)}: {percent(run.share)} of {budget}"
    total = sum(run.visits.values())
    ends = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in run.visits.items())
    yield f"visits: {total:,}{f' ({ends})' if ends else ''}"
    if run.score is not None:
        score = run.score
        yield f"{score.metric}: {_value(score)} on {score.split} at v{score.version}"


def _value(score: LastScore) -> str:
    return "not finite" if score.value is None else number(score.value, 4)


def _how_fast(run: RunStatus) -> Iterator[str]:
    if not run.runs:
        return
    if run.commits_per_min is not None and run.virtual_per_real is not None:
        yield (
            f"lately: {number(run.commits_per_min)} commits a minute,"
            f" {number(run.virtual_per_real)} virtual hours an hour"
        )
    if run.left is not None:
        until = time.strftime("%a %H:%M", time.localtime(time.time() + run.left.middle_s))
        yield f"{left_said(run.left)}, until {until}"
    if run.quiet_s is not None and run.quiet_s > ASLEEP_S:
        yield f"no row for {rounded(run.quiet_s)}"


def _disk(run: RunStatus) -> Iterator[str]:
    yield f"disk: {said('bytes', run.disk_bytes)} here, {said('bytes', run.free_bytes)} free"
    if run.checkpoint is not None and run.status != "done":
        of = "" if run.checkpoint.version is None else f" of v{run.checkpoint.version}"
        yield f"last checkpoint{of}, {rounded(run.checkpoint.age_s)} old"
    if run.status in ("killed", "interrupted", "failed"):
        yield f"next: fedsim resume {run.folder}; or fedsim report {run.folder}, for what there is"


def sweep_lines(sweep: SweepStatus) -> tuple[list[str], list[dict[str, str]]]:
    """Return how a sweep stands: lines, and a row a point."""
    running = {
        True: f"process {sweep.pid} runs it",
        False: "nobody runs it",
        None: f"it is, or was, run on {sweep.host}",
    }
    counts = ", ".join(f"{n} {state}" for state, n in sweep.counted().items())
    lines = [f"{sweep.folder}: {plural(len(sweep.points), 'point')}, {counts}; {running[sweep.runs]}"]
    if sweep.left is not None:
        lines.append(left_said(sweep.left))
    rows = []
    for point in sweep.points:
        row = {"point": point.label, "state": point.state}
        if point.run is not None:
            row |= {"used": percent(point.run.share), "commits": str(point.run.version)}
            if point.run.score is not None:
                row[point.run.score.metric] = _value(point.run.score)
            if point.run.left is not None:
                row["left"] = left_said(point.run.left).removeprefix("about ").removesuffix(" left")
        rows.append(row | ({"problem": point.problem} if point.problem else {}))
    return lines, rows


def plain(value: object) -> object:
    """Return a status as JSON values; what is not known is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
