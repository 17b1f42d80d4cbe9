"""How long configurations take to targets: those declared before the runs, else one chosen afterwards, which is said."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fedsim.records import comparisons, views
from fedsim.records.quantities import number, said
from fedsim.report.parts import Table, plural
from fedsim.report.several.differences import Contest
from fedsim.report.several.fronts import costs


def tables(found: Contest, targets: Sequence[float]) -> list[Table]:
    """Return two tables a target; without one, those of the best value that every run reached.

    Args:
        found: what is compared.
        targets: as whoever makes the page asks for them, before those that the runs declare.
    """
    wanted = _wanted(found, targets)
    if wanted:
        return [
            made
            for target in wanted
            for made in (_table(found, target, "Declared target"), costs(found, target))
        ]
    target = views.common_target(found.c.runs, found.metric)
    return [
        _table(found, target, "Target chosen afterwards, the best value that every run reached"),
        costs(found, target),
    ]


def of_one_run(found: Contest, targets: Sequence[float]) -> list[Table]:
    """Return when the only run reached the targets that somebody has named, and at what cost; nothing without one."""
    grid_s = comparisons.common_grid_s(found.c.runs)
    rows = []
    for target in _wanted(found, targets):
        row = views.time_to_target(found.c.runs, found.metric, target, every_s=grid_s).iloc[0]
        cells = [f"not in {said('time_s', row['watched_s'])}", "–", "–", "–"]
        if row["reached"]:
            amounts = (said(kind, row[name]) for kind, name in (("bytes", "up_bytes"), ("joules", "joules")))
            cells = [said("time_s", row["time_s"]), str(int(row["version"])), *amounts]
        rows.append((number(target), *cells))
    header = ("declared target", "reached after", "commits", "uploaded", "energy")
    caption = f"{found.shown[:1].upper()}{found.shown[1:]} of that or better, checked {_seen(grid_s)}"
    return [Table(header, rows, caption)] if rows else []


def _wanted(found: Contest, targets: Sequence[float]) -> list[float]:
    """Return the targets that somebody has named: for the page first, then in the runs."""
    declared = comparisons.declared_targets(found.c.runs, found.metric)
    return list(dict.fromkeys([*map(float, targets), *declared]))


def _seen(grid_s: float | None) -> str:
    return (
        "at every scored version" if grid_s is None else f"at every {said('time_s', grid_s)} of virtual time"
    )


def _table(found: Contest, target: float, what: str) -> Table:
    runs, metric, c = found.c.runs, found.metric, found.c
    until_s = min(max(run.info.end_time_s for run in found.runs(group)) for group in c.present)
    grid_s = comparisons.common_grid_s(runs)
    times = comparisons.time_to_target_by_configuration(runs, metric, target, until_s=until_s)
    rows: list[tuple[str, ...]] = []
    for group, (_, row) in zip(c.present, times.iterrows(), strict=True):
        difference = "–" if group == c.present[0] else _difference(found, group, target, until_s)
        reached = f"{plural(int(row['runs']), 'run')}, {int(row['reached'])} reached it"
        means = said("time_s", row["restricted_mean_s"]), said("time_s", row["median_s"])
        rows.append((c.names[group], reached, *means, difference))
    if len(runs) > len(rows):
        reached_by_run = views.time_to_target(runs, metric, target, every_s=grid_s)
        rows += [
            (label, *_one(row)) for label, (_, row) in zip(c.labels, reached_by_run.iterrows(), strict=True)
        ]
    header = (
        "",
        "runs",
        f"mean time, at most {said('time_s', until_s)}",
        "median time",
        f"sooner or later than {c.names[c.present[0]]}",
    )
    caption = (
        f"{what}: {found.shown} of {number(target)} or better, checked {_seen(grid_s)}; a run that never reached it counts with "
        f"the whole {said('time_s', until_s)} (restricted mean, Kaplan-Meier median)"
    )
    return Table(header, rows, caption)


def _one(row: pd.Series) -> tuple[str, str, str, str]:
    """Return a single run's cells: when it reached the target and at what cost, or until when it did not."""
    if not row["reached"]:
        return "not reached", f"> {said('time_s', row['watched_s'])}", "–", "–"
    cost = f"{plural(int(row['version']), 'commit')}, {said('bytes', row['up_bytes'])} up, {said('joules', row['joules'])}"
    return "reached", said("time_s", row["time_s"]), cost, "–"


def _difference(found: Contest, group: int, target: float, until_s: float) -> str:
    """Return by how much a configuration is sooner (below 0) or later than the first, pair by pair."""
    row = comparisons.paired_time_difference(
        found.runs(group), found.runs(found.c.present[0]), found.metric, target, until_s=until_s
    ).iloc[0]
    if row["missing"] or not row["pairs"]:
        return "–"
    mean = _signed(row["mean"])
    if row["method"] == "none":
        return mean
    open_ = " no difference shown" if row["low"] <= 0 <= row["high"] else ""
    return f"{mean} ({_signed(row['low'])} to {_signed(row['high'])}){open_}"


def _signed(seconds: float) -> str:
    """Return a difference of times with its sign, in words of its size."""
    if seconds == 0:
        return said("time_s", 0.0)
    return f"{'+' if seconds > 0 else '-'}{said('time_s', abs(seconds))}"
