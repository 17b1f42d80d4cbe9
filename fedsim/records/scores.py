"""What a run's models scored: against time, bytes and energy, within a budget, on a grid, up to a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from fedsim.elementary import first_point
from fedsim.errors import RunFolderError, message, nearest
from fedsim.metrics.direction import rises
from fedsim.records.run import Run

X = Literal["version", "time_s", "up_bytes", "down_bytes", "joules"]
AXES: tuple[X, ...] = ("version", "time_s", "up_bytes", "down_bytes", "joules")


FINEST = 10_000_000
"""Points of a grid that are listed."""


def headline(run: Run, split: str = "test") -> str | None:
    """Return the first metric that was scored on a split, or None if there is none."""
    metrics = run.scores.loc[run.scores["split"] == split, "metric"]
    return str(metrics.iloc[0]) if len(metrics) else None


def scored(run: Run, metric: str, split: str = "test") -> pd.DataFrame:
    """Return every score of a metric with what the run had cost by that version.

    Returns:
        Columns version, time_s, up_bytes, down_bytes, joules (totals of all visits that had ended when the server took
        the version's updates, lost ones included; 0 at version 0) and value; one row a scored version.

    Raises:
        RunFolderError: the run has no such metric on that split.
    """
    known = run.scores.loc[run.scores["split"] == split, "metric"]
    if metric not in set(known):
        where = f"run {run.name}: scores of split {split!r}"
        fix = nearest(metric, set(known)) if len(known) else "give evaluate.splits this split"
        raise RunFolderError(message(where, "no such metric", got=metric, fix=fix))
    rows = run.scores.loc[(run.scores["split"] == split) & (run.scores["metric"] == metric)]
    totals = {"total_up_bytes": "up_bytes", "total_down_bytes": "down_bytes", "total_joules": "joules"}
    costs = run.commits[["version", *totals]].rename(columns=totals)
    joined = rows[["version", "time_s", "value"]].merge(costs, on="version", how="left")
    joined = joined.fillna(dict.fromkeys(totals.values(), 0))  # version 0 is made by no commit
    return joined.astype({"up_bytes": "int64", "down_bytes": "int64"})[[*AXES, "value"]]


def curve(run: Run, metric: str, x: X = "time_s", split: str = "test") -> pd.DataFrame:
    """Return a metric against one of the axes: columns `x` and `value`.

    Raises:
        RunFolderError: the run has no such metric on that split.
    """
    return scored(run, metric, split)[[x, "value"]]


def at(
    run: Run,
    *,
    time_s: float | None = None,
    up_bytes: float | None = None,
    joules: float | None = None,
    only: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Return the last scores within a budget: columns split, metric, version, value, server_version.

    A commit counts if it was made within the time given, and if what the run had spent when its updates were taken is at
    most the budget in each other unit, as `budget.up_bytes` has it; scores are not interpolated. `server_version` is the server's within the budget: if it is later than `version`, it was not
    scored, and the value is that of an older model (`evaluate.every_s` and `every_bytes` score on a grid that all runs
    have in common). Without a budget the last scores are returned, whatever they are.

    The value is NaN where the run says nothing about the budget: where only version 0, which it began with, was
    scored within it, and where the run ended before any unit of the budget was used up. With `only` (a split and a
    metric) there is one row, or none.
    """
    limits = {"time_s": time_s, "up_bytes": up_bytes, "joules": joules}
    given = {name: limit for name, limit in limits.items() if limit is not None and limit < math.inf}
    spent = {"time_s": run.info.end_time_s, **run.frame("visits", "up_bytes", "joules").sum().to_dict()}
    went_on = any(limit <= spent[name] for name, limit in given.items())
    costs = {"time_s": "time_s", "up_bytes": "total_up_bytes", "joules": "total_joules"}
    commits = run.commits
    for name, limit in given.items():
        commits = commits[commits[costs[name]] <= limit]
    server_version = int(commits["version"].max()) if len(commits) else 0
    rows = []
    for split, metric in run.scores[["split", "metric"]].drop_duplicates().itertuples(index=False):
        if only not in (None, (split, metric)):
            continue
        within = scored(run, metric, split)
        for name, limit in given.items():
            within = within[within[name] <= limit]
        last = within.iloc[-1] if len(within) else pd.Series({"version": 0, "value": math.nan})
        silent = given and not (went_on and last["version"])
        value = math.nan if silent else float(last["value"])
        rows.append((split, metric, int(last["version"]), value, server_version))
    return pd.DataFrame(rows, columns=["split", "metric", "version", "value", "server_version"])


def on_grid(
    run: Run,
    metric: str,
    *,
    every_s: float | None = None,
    every_bytes: float | None = None,
    split: str = "test",
) -> pd.DataFrame:
    """Return a metric of the version that the server had at each point of a grid, up to the end of the run.

    Args:
        run: any; if it was scored on that grid (`evaluate.every_s` or `every_bytes`), all values are there.
        metric: what.
        every_s: distance of the points [virtual s].
        every_bytes: instead of it: their distance in uploaded bytes.
        split: of the metric.

    Returns:
        One row a point: time_s or up_bytes, version (the server's then), value (NaN if that version was not scored).

    Raises:
        RunFolderError: not exactly one grid is given, it is too fine, or the run has no such metric.
    """
    if (every_s is None) == (every_bytes is None):
        raise RunFolderError(message(f"run {run.name}", "needs one grid", fix="give every_s or every_bytes"))
    by_time = every_s is not None
    every = float(every_s if every_s is not None else every_bytes or 0.0)
    end = run.info.end_time_s if by_time else float(run.columns("visits")["up_bytes"].sum())
    if end / every > FINEST:
        what = f"would have {end / every:.3g} points"
        raise RunFolderError(message(f"run {run.name}: the grid", what, fix="choose a coarser one"))
    points = every * np.arange(math.floor(end / every) + 2)
    points = points[points <= end]
    costs = run.commits["time_s" if by_time else "total_up_bytes"].to_numpy(dtype=np.float64)
    versions = np.concatenate([[0], run.commits["version"].to_numpy(dtype=np.int64)])
    held = versions[np.searchsorted(costs, points, side="right")]
    values = scored(run, metric, split).set_index("version")["value"].reindex(held)
    return pd.DataFrame(
        {"time_s" if by_time else "up_bytes": points, "version": held, "value": values.to_numpy()}
    )


def _at_points(run: Run, scores: pd.DataFrame, every_s: float) -> pd.DataFrame:
    """Return the scores of versions that were the server's at a point of a grid, with the first such point as their time."""
    at = np.array([first_point(every_s, time_s) for time_s in scores["time_s"].tolist()])
    replaced = pd.Series(run.commits["time_s"].to_numpy(), index=run.commits["version"].to_numpy() - 1)
    until = scores["version"].map(replaced).fillna(math.inf).to_numpy(dtype=np.float64)
    return scores.assign(time_s=at)[(at < until) & (at <= run.info.end_time_s)]


def common_target(runs: Sequence[Run], metric: str, split: str = "test") -> float:
    """Return the best value that every run reached at some time: a target that is chosen after the fact.

    It is the best score of the worst run, so that run reaches it near the end of its budget by construction, and how many
    times sooner another one does depends on how long the budget was. Declare targets before the runs
    (`evaluate.targets`) for any conclusion.
    """
    values = [scored(run, metric, split)["value"] for run in runs]
    return float(min(v.max() for v in values) if rises(metric) else max(v.min() for v in values))


def time_to_target(
    runs: Sequence[Run], metric: str, target: float, split: str = "test", *, every_s: float | None = None
) -> pd.DataFrame:
    """Return what each run had cost at its first score that reaches a target.

    Args:
        runs: whose costs.
        metric: what is scored.
        target: what it is to reach.
        split: of the metric.
        every_s: look at the points of this grid only [virtual s]: all runs are then looked at equally often, and
            `time_s` is a point's. None: at every scored version, at the time of its commit.

    Returns:
        One row a run: run, version, time_s, up_bytes, down_bytes, joules, value (all NaN if the target was not
        reached), reached, watched_s (end of the run: who had not reached it was seen not to until then, and not longer).
        No mean of the times of those that did says anything of all: see `fedsim.records.comparisons`.
    """
    rows = []
    for run in runs:
        points = scored(run, metric, split)
        if every_s is not None:
            points = _at_points(run, points, every_s)
        reached = points[points["value"] >= target] if rises(metric) else points[points["value"] <= target]
        first = reached.head(1).to_dict("records")
        about = {"run": run.name, "reached": bool(first), "watched_s": run.info.end_time_s}
        rows.append(about | (first[0] if first else {}))
    frame = pd.DataFrame(rows, columns=["run", *AXES, "value", "reached", "watched_s"])
    types = dict.fromkeys([*AXES, "value", "watched_s"], "float64")
    return frame.astype(types | {"reached": "bool"})
