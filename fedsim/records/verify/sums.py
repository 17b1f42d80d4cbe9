"""What must add up: commits, scored versions, and the totals of `run.json`, from the visits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsim.arrays import Bools
from fedsim.records.verify.books import Books, equal


def wrong_versions(books: Books) -> Iterator[str]:
    """Say which commits are out of order."""
    commits = books.commits
    expected = np.arange(1, len(commits) + 1)
    wrong = np.flatnonzero(commits["version"].to_numpy() != expected)
    if wrong.size:
        yield f"commit {commits['version'].iloc[wrong[0]]} stands where version {expected[wrong[0]]} belongs"
    times = commits["time_s"].to_numpy(dtype=float)
    early = np.flatnonzero(~(np.diff(times, prepend=0.0) >= 0))
    if early.size:
        version = commits["version"].iloc[early[0]]
        yield f"commit {version} at {times[early[0]]:.6g} s comes before the one ahead of it"


def wrong_commits(books: Books) -> Iterator[str]:
    """Say which commits tell of other updates than their visits."""
    commits = books.commits
    visits = books.frame("committed_version", "staleness", "up_bytes")
    taken = visits[visits["committed_version"] >= 0].groupby("committed_version")
    recomputed = {
        "updates": taken.size(),
        "mean_staleness": taken["staleness"].mean(),
        "max_staleness": taken["staleness"].max(),
        "up_bytes": taken["up_bytes"].sum(),
    }
    for name, by_version in recomputed.items():
        values = commits[name].to_numpy()
        expected = commits["version"].map(by_version).fillna(0).to_numpy()
        yield from _said(commits, ~equal(values, expected), name, values, expected)


def wrong_running_totals(books: Books) -> Iterator[str]:
    """Say which commits tell of other sums over all visits that had ended when their updates were taken."""
    if books.unfinished:
        return
    visits, commits = books.run.columns("visits"), books.commits
    ended, times, from_s = visits["ended_s"], commits["time_s"].to_numpy(), books.taken_from_s()
    # What lands at the very instant of a commit is in its sums; what is stopped then may be or not.
    surely = np.where(pd.isna(visits["landed_s"]), ended, np.nextafter(ended, -np.inf))
    for name in ("up_bytes", "down_bytes", "joules"):
        values, amounts = commits[f"total_{name}"].to_numpy(), visits[name]
        low = _sums_until(amounts, surely, from_s, "left")
        high = _sums_until(amounts, ended, times, "right")
        good = ((values > low) | equal(values, low)) & ((values < high) | equal(values, high))
        yield from _said(commits, ~good, f"total_{name}", values, high)


def _sums_until(
    amounts: NDArray[Any],
    at_s: NDArray[np.float64],
    times: NDArray[np.float64],
    side: Literal["left", "right"],
) -> NDArray[Any]:
    """Return, for each time, the sum of the amounts before it (`left`) or until it (`right`)."""
    order = np.argsort(at_s, kind="stable")
    sums = np.concatenate([np.zeros(1, amounts.dtype), np.cumsum(amounts[order])])
    return np.asarray(sums[np.searchsorted(at_s[order], times, side)])


def _said(
    commits: pd.DataFrame, broken: Bools, name: str, values: NDArray[Any], expected: NDArray[Any]
) -> Iterator[str]:
    """Say once what is wrong with the first of the broken commits, and how many more there are."""
    at = np.flatnonzero(broken)
    if at.size:
        first = int(at[0])
        more = f" (and {at.size - 1} more)" if at.size > 1 else ""
        version = commits["version"].iloc[first]
        yield f"commit {version} has {name} {values[first]:.12g}, its visits give {expected[first]:.12g}{more}"


def wrong_totals(books: Books) -> Iterator[str]:
    """Say where `run.json` tells of other totals than the tables."""
    if books.unfinished:
        return
    told, visits = books.run.info.totals, books.run.columns("visits")
    sums = (
        ("visits", told.visits, books.run.count("visits")),
        ("commits", told.commits, len(books.commits)),
        ("up_bytes", told.up_bytes, visits["up_bytes"].sum()),
        ("down_bytes", told.down_bytes, visits["down_bytes"].sum()),
        ("joules", told.joules, visits["joules"].sum()),
        ("gross_joules", told.gross_joules, visits["gross_joules"].sum()),
    )
    for name, value, expected in sums:
        if not (equal(value, expected) or math.isnan(value)):
            yield f"run.json tells of {value} {name} in total, the tables of {expected}"


def unbalanced_batteries(books: Books) -> Iterator[str]:
    """Say whether all batteries together hold what came in and did not go out."""
    told = books.run.info.batteries
    if told is not None:
        expected = told.start_j + told.received_j - told.supplied_j
        if not equal(told.end_j, expected):
            what = f"run.json tells of {told.end_j:.12g} J in batteries at the end"
            yield f"{what}, what came and went gives {expected:.12g}"


def wrong_scores(books: Books) -> Iterator[str]:
    """Say which scores are of no version, or come too early, and which versions must have one."""
    scores, commits = books.run.scores, books.commits
    if scores.empty:
        return
    last = int(commits["version"].max()) if len(commits) else 0
    time_s = dict(zip(commits["version"], commits["time_s"], strict=True)) | {0: 0.0}
    for row in scores.to_dict("records"):
        if row["version"] not in time_s:
            yield f"a score is of version {row['version']}, which was never committed"
            break
        if row["time_s"] < time_s[row["version"]]:
            yield f"version {row['version']} was scored at {row['time_s']:.6g} s, before its commit"
            break
    if books.run.info.status == "done":
        for version in sorted({0, last} - set(scores["version"])):
            yield f"version {version} has no score, and the first and the last must have one"
