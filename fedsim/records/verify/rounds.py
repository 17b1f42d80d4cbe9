"""What protocols promise, from the settings and the tables: cohorts, deadlines, who was late, what a commit takes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from fedsim.records.verify.books import Books
from fedsim.records.verify.round_sums import Rounds, Terms

IN_TIME = ("landed", "rejected", "failed")
"""Outcomes of visits that a round has counted among those it wanted."""
SLACK_S = 1e-6
NEEDED = ("round", "visit", "client", "dispatched_s", "landed_s", "ended_s", "outcome", "committed_version")
"""Columns by which rounds are judged."""


def wrong_rounds(books: Books) -> Iterator[str]:
    """Say which rounds and buffers are not those of the settings' protocol."""
    if books.block("server").get("compute", "none") != "none":
        return  # commits take their time: rounds and buffers end before them
    kind = books.block("protocol").get("kind")
    if kind == "synchronous" and not books.unfinished:
        yield from _synchronous(books)
    if kind == "buffered" and not books.unfinished:
        yield from _buffered(books)
    if kind == "semi-synchronous":
        yield from _beats(books)
    at_work = books.number("protocol", "concurrency")
    if at_work is not None and not (books.run.columns("visits")["outcome"] == "polled").any():
        yield from _too_many_at_work(books, at_work)


# rounds -----------------------------------------------------------------------------------------


def _synchronous(books: Books) -> Iterator[str]:
    cohort = books.number("protocol", "cohort")
    if cohort is None:
        return
    asked = math.ceil(cohort * (books.number("protocol", "over_select") or 1.0) - 1e-9)
    visits = books.frame(*NEEDED)
    visits = visits[visits["round"] >= 0]
    visits = visits.assign(commit_s=books.commit_s(visits["committed_version"]))
    last = visits["round"].max()
    terms = Terms(
        cohort,
        asked,
        books.number("protocol", "deadline_s"),
        stops=books.block("protocol").get("late") == "stop",
    )
    rounds = Rounds(visits)
    for number, visits_of_round in rounds.one_by_one(rounds.doubtful(terms, IN_TIME, SLACK_S)):
        wrong = _wrong_round(books, visits_of_round, cohort, asked, over=number != last)
        if wrong is not None:
            column, what = wrong
            yield f"visits, column {column}: round {number} {what}"
            return


def _wrong_round(
    books: Books, visits: pd.DataFrame, cohort: float, asked: float, *, over: bool
) -> tuple[str, str] | None:
    """Return the column and what is wrong with a round; None if nothing is. `over`: another one came after it."""
    began_s = float(visits["dispatched_s"].iloc[0])
    if (visits["dispatched_s"] != began_s).any():
        return "dispatched_s", "was asked at several instants"
    if len(visits) > asked:
        return "round", f"asked {len(visits)} clients, the settings {asked:.0f}"
    in_time = visits[visits["outcome"].isin(IN_TIME)]
    if len(in_time) > cohort:
        return "outcome", f"counts {len(in_time)} visits in time, its cohort is {cohort:.0f}"
    deadline_s = books.number("protocol", "deadline_s")
    if deadline_s is not None and (in_time["landed_s"] > began_s + deadline_s + SLACK_S).any():
        return "landed_s", f"counts a visit that landed after its deadline of {deadline_s:g} s"
    if over and (in_time["outcome"] == "landed").any():
        dropped = in_time[(in_time["outcome"] == "landed") & (in_time["committed_version"] < 0)]
        if len(dropped):
            row = dropped.iloc[0]
            return (
                "committed_version",
                f"left visit {row['visit']} of client {row['client']} out of its commit",
            )
    return _wrong_reason(books, visits, in_time, cohort, deadline_s) or _wrong_commit(
        books, visits, in_time, cohort
    )


def _wrong_reason(
    books: Books, visits: pd.DataFrame, in_time: pd.DataFrame, cohort: float, deadline_s: float | None
) -> tuple[str, str] | None:
    """Return what is wrong with those that came in vain."""
    late, surplus = (visits[visits["outcome"] == outcome] for outcome in ("late", "surplus"))
    if len(surplus) and len(in_time) < cohort:
        return "outcome", f"has visits that were 'surplus', and only {len(in_time)} of {cohort:.0f} in time"
    if len(late) and (len(in_time) >= cohort or deadline_s is None):
        return "outcome", "has visits that were 'late', and ended before its deadline"
    stops = books.block("protocol").get("late") == "stop"
    began_s = float(visits["dispatched_s"].iloc[0])
    if stops and len(late) and (late["ended_s"] != late["ended_s"].iloc[0]).any():
        return "ended_s", "stopped its late visits at several instants"
    ends_s = began_s + (deadline_s or 0.0)
    if stops and len(late) and abs(float(late["ended_s"].iloc[0]) - ends_s) > SLACK_S:
        return (
            "outcome",
            f"has a visit that was 'late' at {late['ended_s'].iloc[0]:.9g} s, its deadline was {ends_s:.9g} s",
        )
    stopped = surplus[surplus["landed_s"].isna()]
    if stops and len(stopped) and len(in_time):
        full_s = float(in_time["landed_s"].max())
        if (np.abs(stopped["ended_s"] - full_s) > SLACK_S).any():
            return (
                "ended_s",
                f"stopped a visit that was 'surplus' at another instant than {full_s:.9g} s, when it was full",
            )
    return None  # fmt: skip


def _wrong_commit(
    books: Books, visits: pd.DataFrame, in_time: pd.DataFrame, cohort: float
) -> tuple[str, str] | None:
    """Return what is wrong with the instant of a round's commit."""
    taken = in_time[in_time["committed_version"] > 0]
    if taken.empty:
        return None
    if (taken["committed_version"] != taken["committed_version"].iloc[0]).any():
        return "committed_version", "is in several commits"
    full_s, commit_s = float(in_time["landed_s"].max()), float(taken["commit_s"].iloc[0])
    off = commit_s < full_s if books.takes_time else commit_s != full_s
    if len(in_time) == cohort and off:
        return "committed_version", f"was committed at {commit_s!r} s, and was full at {full_s!r} s"
    return None


# buffers and beats --------------------------------------------------------------------------------


def _buffered(books: Books) -> Iterator[str]:
    size = books.number("protocol", "buffer")
    commits = books.commits
    visits = books.frame("visit", "client", "order", "landed_s", "outcome", "committed_version")
    if size is None or (visits["outcome"] == "rejected").any():
        return
    wrong = commits[commits["updates"] != size]
    if len(wrong):
        row = wrong.iloc[0]
        yield f"commits, column updates: commit {row['version']} takes {row['updates']} updates, a buffer is {size:.0f}"
    landed = visits[visits["outcome"] == "landed"].sort_values(["landed_s", "order"])
    version = landed["committed_version"].to_numpy()
    due = np.where(version < 0, np.iinfo(np.int64).max, version)
    early = np.flatnonzero(np.diff(due) < 0)
    if early.size:
        row = landed.iloc[int(early[0])]
        where = f"visit {row['visit']} of client {row['client']}"
        yield f"visits, column committed_version: {where} landed before others that are in an earlier commit"
    full_s = landed[version > 0].groupby("committed_version")["landed_s"].max()
    times = commits.set_index("version")["time_s"].reindex(full_s.index)
    off_s = full_s - times if books.takes_time else np.abs(times - full_s)
    wrong_s = full_s[off_s > SLACK_S]
    if len(wrong_s):
        yield f"commits, column time_s: commit {wrong_s.index[0]} is not made when its buffer is full, at {wrong_s.iloc[0]:.9g} s"


def _beats(books: Books) -> Iterator[str]:
    beat_s = books.number("protocol", "beat_s")
    if not beat_s or books.takes_time:
        return
    off = np.abs(books.commits["time_s"] / beat_s - np.round(books.commits["time_s"] / beat_s)) * beat_s
    wrong = books.commits[off > SLACK_S]
    if len(wrong):
        yield f"commits, column time_s: commit {wrong['version'].iloc[0]} is not at a beat of {beat_s:g} s"


def _too_many_at_work(books: Books, at_work: float) -> Iterator[str]:
    """Say when more visits were under way than the protocol lets."""
    visits = books.run.columns("visits")
    begins, ends = np.sort(visits["dispatched_s"]), np.sort(visits["ended_s"])
    under_way = np.arange(1, len(begins) + 1) - np.searchsorted(ends, begins, "right")
    over = np.flatnonzero(under_way > at_work)
    if over.size:
        count = int(under_way[over[0]])
        yield f"visits, column dispatched_s: {count} visits are under way at {begins[over[0]]:.9g} s, the settings have {at_work:.0f}"
