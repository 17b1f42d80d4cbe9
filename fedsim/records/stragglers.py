"""Who is waited for: where a run's virtual time went, how fairly clients took part, and a check on the queues.

Pure functions from a run's tables to small frames, as in `fedsim.records.views`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fedsim.arrays import Bools, Floats
from fedsim.records import views
from fedsim.records.rows import CAUSES
from fedsim.records.run import Run

PHASES = ("ask_s", "download_s", "train_s", "upload_s", "settle_s")
"""Parts of a commit's wait: until the client was asked, its three phases, after its update had landed."""


def waits(run: Run) -> pd.DataFrame:
    """Return for whom each commit waited, and what that client was doing.

    A commit waits for the last of its updates to land. The time since the commit before (or since the
    start) is cut along that visit: before it was asked, its download, training and upload, and what
    passed between its landing and the commit (a deadline, say).

    Returns:
        One row a commit: version, client, tier, device, and the seconds of `PHASES`, which add up to
        the time between the two commits.
    """
    marks = ["dispatched_s", "downloaded_s", "trained_s", "landed_s"]
    visits = run.frame("visits", "committed_version", "client", "order", *marks)
    used = visits[visits["committed_version"] >= 0]
    last = used.sort_values(["committed_version", "landed_s", "order"]).groupby("committed_version").tail(1)
    closed = run.commits[["version", "time_s"]].merge(
        last, left_on="version", right_on="committed_version", suffixes=("", "_visit")
    )
    closed = closed.merge(run.frame("clients", "client", "tier", "device"), on="client", how="left")
    end = closed["time_s"].to_numpy(np.float64)
    before = run.commits.set_index("version")["time_s"]
    begin = closed["version"].sub(1).map(before).fillna(0.0).to_numpy(np.float64)
    cuts = [begin, *(np.clip(closed[mark].to_numpy(np.float64), begin, end) for mark in marks), end]
    parts = {name: cuts[i + 1] - cuts[i] for i, name in enumerate(PHASES)}
    return pd.DataFrame(
        {"version": closed["version"], **{c: closed[c] for c in ("client", "tier", "device")}, **parts}
    )


def waited_by_tier(run: Run) -> pd.DataFrame:
    """Return whom the server waited for: one row a tier, slowest first.

    Returns:
        Columns commits (that a client of this tier closed), the seconds of `PHASES`, total_s, share (of
        the virtual time up to the last commit). `attrs["after_s"]` is the time after that commit.
    """
    waited = waits(run)
    sums = waited.groupby("tier")[list(PHASES)].sum()
    sums.insert(0, "commits", waited.groupby("tier").size())
    sums["total_s"] = sums[list(PHASES)].sum(axis=1)
    total = float(sums["total_s"].sum())
    sums["share"] = sums["total_s"] / total if total else np.nan
    tiers = [tier for tier in views.tiers(run) if tier in sums.index]
    sums = sums.reindex(tiers).rename_axis("tier")
    sums.attrs["after_s"] = max(0.0, (run.info.end_time_s or total) - total)
    return sums


def away(run: Run) -> pd.DataFrame:
    """Return what devices that went away cost: one row a cause (the last one, of a visit that met several).

    Returns:
        Columns visits (that met it), lost, shortened (committed or not), paused_s, lost_joules; without
        rows if no device went away during a visit.
    """
    visits = run.frame("visits", "away", "outcome", "work_share", "joules", "paused_s")
    met = visits[visits["away"] != ""]
    lost = met["outcome"] == "offline"
    counted = met.assign(
        visits=1, lost=lost, shortened=met["work_share"] < 1, lost_joules=met["joules"].where(lost, 0.0)
    )
    columns = ["visits", "lost", "shortened", "paused_s", "lost_joules"]
    order = [cause for cause in CAUSES if cause in set(met["away"])]
    return counted.groupby("away")[columns].sum().reindex(order).rename_axis("cause")


def gini(counts: Any) -> float:
    """Return the Gini coefficient of non-negative counts; 0: all equal; NaN if all are zero.

    Mean absolute difference of all pairs over twice the mean (Gini 1912), no small-sample correction.

    >>> gini([1, 1, 1]), gini([0, 0, 0, 4])
    (0.0, 0.75)
    """
    x = np.sort(np.asarray(counts, dtype=np.float64))
    if not x.sum():
        return float("nan")
    ranks = np.arange(1, x.size + 1)
    return float((2 * ranks - x.size - 1) @ x / (x.size * x.sum()))


def top_share(counts: Any, part: float = 0.3) -> float:
    """Return the share of the total that the largest `part` of the clients have; NaN if all are zero.

    FLASH (Yang et al., WWW 2021) finds 30 % of its clients doing 86 % of the computation. A part that is
    no whole number of clients counts the next one in proportion.
    """
    x = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    if not x.sum():
        return float("nan")
    whole = part * x.size
    sums = np.concatenate([[0.0], np.cumsum(x)])
    return float(np.interp(whole, np.arange(x.size + 1), sums) / x.sum())


def fairness(run: Run) -> pd.DataFrame:
    """Return how evenly clients took part.

    Returns:
        One row a count (`visits`, `landed`, `committed`, `flops`): gini, top_30_share, zero_share (of the
        clients that have none), mean.
    """
    people = views.participation(run)
    flops = run.frame("visits", "client", "flops").groupby("client")["flops"].sum()
    columns = {name: people[name].to_numpy(np.float64) for name in ("visits", "landed", "committed")}
    columns["flops"] = people["client"].map(flops).fillna(0.0).to_numpy(np.float64)
    rows = [
        (name, gini(x), top_share(x), float(np.mean(x == 0)), float(x.mean())) for name, x in columns.items()
    ]
    return pd.DataFrame(rows, columns=["count", "gini", "top_30_share", "zero_share", "mean"]).set_index(
        "count"
    )


def lorenz(run: Run) -> pd.DataFrame:
    """Return the Lorenz curves of `visits` and `committed`: shares against the share of the clients.

    Returns:
        Columns clients, visits, committed, each from 0 to 1 (NaN if nothing was counted).
    """
    people = views.participation(run)
    points = {"clients": np.linspace(0.0, 1.0, len(people) + 1)}
    for name in ("visits", "committed"):
        sums = np.concatenate([[0.0], np.cumsum(np.sort(people[name].to_numpy(np.float64)))])
        points[name] = sums / sums[-1] if sums[-1] else np.full(sums.size, np.nan)
    return pd.DataFrame(points)


def little(run: Run) -> pd.DataFrame:
    """Return Little's law, L = lambda W (Little 1961), for each phase and for whole visits.

    L, the mean number present, counts everybody until the end of the run. lambda and W come from those
    who had left by then. A gap of more than a few per cent says that the run is too short for its
    visits, or that a queue was still growing: means over its visits are then biased.

    Returns:
        One row a phase that somebody left: departures_per_s, mean_s, mean_number, product
        (departures_per_s x mean_s), relative_gap.
    """
    names = ["departures_per_s", "mean_s", "mean_number", "product", "relative_gap"]
    marks = ("dispatched_s", "downloaded_s", "trained_s", "landed_s")
    visits = run.frame("visits", *marks, "ended_s", "outcome")
    horizon = run.info.end_time_s or float(visits["ended_s"].max() or 0.0)
    times = [visits[name].to_numpy(np.float64) for name in marks]
    going = visits["outcome"].eq("in_flight").to_numpy()
    ended = visits["ended_s"].to_numpy(np.float64)
    rows = {"visit": _little(times[0], ended, ~going, horizon)}
    for at, name in enumerate(("download", "train", "upload")):
        start, finish = times[at], times[at + 1]
        there = ~np.isnan(start)
        left = ~np.isnan(finish) | ~going
        stop = np.where(np.isnan(finish), ended, finish)
        rows[name] = _little(start[there], stop[there], left[there], horizon)
    queues = {name: row for name, row in rows.items() if row is not None}
    return pd.DataFrame.from_dict(queues, orient="index", columns=names).rename_axis("phase")


def _little(start: Floats, stop: Floats, left: Bools, horizon: float) -> tuple[float, ...] | None:
    if not left.any() or horizon <= 0:
        return None
    rate, mean_s = int(left.sum()) / horizon, float(np.mean((stop - start)[left]))
    number = float(np.sum(np.minimum(stop, horizon) - start)) / horizon
    product = rate * mean_s
    return rate, mean_s, number, product, abs(number - product) / number if number else 0.0
