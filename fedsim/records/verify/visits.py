"""What holds for every visit: one row an invariant, with the mask of the visits that break it and a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fedsim.arrays import Bools
from fedsim.records.rows import CAUSES, OUTCOMES
from fedsim.records.verify.amounts import AMOUNTS, MEMORY
from fedsim.records.verify.books import Books, equal, nth_of, repeated
from fedsim.records.verify.energy import ENERGY
from fedsim.records.verify.invariants import Finding, Invariant
from fedsim.records.verify.online import ONLINE
from fedsim.records.verify.seconds import SECONDS

INSTANTS = ("dispatched_s", "downloaded_s", "trained_s", "landed_s", "ended_s")


def broken_visits(books: Books) -> Iterator[str]:
    """Yield one sentence an invariant that does not hold."""
    findings = [Finding(invariant) for invariant in INVARIANTS]
    for block in books.blocks():
        for invariant, finding in zip(INVARIANTS, findings, strict=True):
            if not invariant.whole:
                finding.look(block)
    for invariant, finding in zip(INVARIANTS, findings, strict=True):
        if invariant.whole:
            finding.look(books)
        yield from finding.said()


# endings ----------------------------------------------------------------------------------------


def _placed_twice(books: Books) -> Bools:
    order = books.frame("order")["order"].to_numpy()
    return np.asarray(repeated(order) | (order < 0))


def _ended_twice(books: Books) -> Bools:
    visits = books.frame("client", "visit")
    return repeated(visits["client"].to_numpy(), visits["visit"].to_numpy())


def _without_predecessor(books: Books) -> Bools:
    if books.unfinished:
        return np.zeros(books.run.count("visits"), dtype=np.bool_)
    visits = books.frame("client", "visit")
    client, visit = visits["client"].to_numpy(), visits["visit"].to_numpy()
    order, nth = nth_of(client, visit)
    lacks = np.zeros(len(order), dtype=np.bool_)
    lacks[order] = nth != visit[order]
    return np.asarray(~repeated(client, visit) & lacks)


ENDINGS = (
    Invariant(
        "every dispatch has its own place",
        _placed_twice,
        lambda r: f"has the place {r['order']} of another dispatch",
        whole=True,
    ),
    Invariant(
        "one ending a visit",
        _ended_twice,
        lambda _: "has more than one ending",
        whole=True,
    ),
    Invariant(
        "no visit is missing",
        _without_predecessor,
        lambda _: "follows a visit that has no row",
        whole=True,
    ),
    Invariant(
        "clients are known",
        lambda b: ~b.visits["client"].isin(b.known.column("rank").index),
        lambda _: "is of a client that is not in clients",
    ),
    Invariant(
        "endings are known",
        lambda b: ~b.visits["outcome"].isin(OUTCOMES),
        lambda r: f"ends as {r['outcome']!r}, which is no outcome",
    ),
    Invariant(
        "what landed has an instant of landing",
        lambda b: (b.visits["outcome"] == "landed") & b.visits["landed_s"].isna(),
        lambda _: "is 'landed' without an instant of landing",
    ),
    Invariant(
        "commits take what landed",
        lambda b: (b.visits["committed_version"] >= 0) & (b.visits["outcome"] != "landed"),
        lambda r: f"ended as {r['outcome']!r} and is in commit {r['committed_version']} all the same",
    ),
)


# instants ---------------------------------------------------------------------------------------


def _skipped(books: Books) -> Bools:
    reached = ~np.isnan(books.visits[list(INSTANTS)].to_numpy(dtype=float))
    dispatched, downloaded, trained, landed, ended = reached.T
    return np.asarray(~dispatched | ~ended | (trained & ~downloaded) | (landed & ~trained))


def _backwards(books: Books) -> Bools:
    last_s = books.visits["dispatched_s"].to_numpy(dtype=float)
    backwards = last_s < 0
    for name in INSTANTS[1:]:
        now_s = books.visits[name].to_numpy(dtype=float)
        backwards |= now_s < last_s
        last_s = np.where(np.isnan(now_s), last_s, now_s)
    return np.asarray(backwards)


def _overlapping(books: Books) -> Bools:
    names = ("client", "dispatched_s", "order", "ended_s")
    visits = books.frame(*names)
    client, dispatched_s, place, ended_s = (visits[name].to_numpy() for name in names)
    order, nth = nth_of(client, dispatched_s, place)
    overlapping = np.zeros(len(order), dtype=np.bool_)
    overlapping[order[1:]] = (nth[1:] > 0) & (dispatched_s[order[1:]] < ended_s[order[:-1]])
    return overlapping


PHASES = (
    Invariant("no instant is skipped", _skipped, lambda _: "lacks an instant that comes before one it has"),
    Invariant(
        "instants are in order",
        _backwards,
        lambda r: "goes backwards in time: " + ", ".join(f"{name} {r[name]:.6g}" for name in INSTANTS),
    ),
    Invariant(
        "one visit at a time",
        _overlapping,
        lambda r: (
            f"was dispatched at {r['dispatched_s']:.6g} s while the client's previous visit was under way"
        ),
        whole=True,
    ),
)


# devices that go away, batteries ----------------------------------------------------------------


def _took_s(visits: pd.DataFrame) -> pd.Series[float]:
    return visits["ended_s"] - visits["dispatched_s"]


def _paused_too_long(books: Books) -> Any:
    paused_s, took_s = books.visits["paused_s"], _took_s(books.visits)
    return ~(paused_s >= 0) | ((paused_s > took_s) & ~equal(paused_s, took_s))


def _cut_without_reason(books: Books) -> Any:
    visits = books.visits
    reason = (books.on_close == "partial") & (visits["away"] != "") & visits["trained_s"].notna()
    return (visits["work_share"] < 1) & ~reason


AWAY = (
    Invariant(
        "causes are known",
        lambda b: ~b.visits["away"].isin(["", *CAUSES]),
        lambda r: f"was away for {r['away']!r}, which is no cause",
    ),
    Invariant(
        "who is offline has a cause",
        lambda b: (b.visits["outcome"] == "offline") & (b.visits["away"] == ""),
        lambda _: "is 'offline' without a cause",
    ),
    Invariant(
        "pauses are within the visit",
        _paused_too_long,
        lambda r: f"paused for {r['paused_s']:.6g} s of {r['ended_s'] - r['dispatched_s']:.6g} s",
    ),
    Invariant(
        "pauses are allowed and have a cause",
        lambda b: (b.visits["paused_s"] > 0) & ((b.visits["away"] == "") | (b.on_close == "lost")),
        lambda r: f"paused for {r['paused_s']:.6g} s, and nothing says that it may",
    ),
    Invariant(
        "a share of the steps is a share",
        lambda b: ~((b.visits["work_share"] > 0) & (b.visits["work_share"] <= 1)),
        lambda r: f"made a share of {r['work_share']} of its steps",
    ),
    Invariant(
        "work is cut where that is allowed",
        _cut_without_reason,
        lambda r: f"made {r['work_share']:.3g} of its steps, and nothing says why",
    ),
    Invariant(
        "a battery's level is a share",
        lambda b: (b.visits["battery"] < 0) | (b.visits["battery"] > 1),
        lambda r: f"leaves a battery at a level of {r['battery']}",
    ),
)


# versions and staleness -------------------------------------------------------------------------


def _unknown_commit(books: Books) -> Any:
    version = books.visits["committed_version"]
    unknown = (version != -1) & ~version.isin(books.commits["version"])
    if books.unfinished:  # the row of the commit itself comes last
        unknown &= version != len(books.commits) + 1
    return unknown


VERSIONS = (
    Invariant(
        "the newest version is sent",
        lambda b: b.visits["version"] != b.visits["expected_version"],
        lambda r: (
            f"carries version {r['version']}, but {r['expected_version']} versions were committed at its dispatch"
        ),
    ),
    Invariant(
        "staleness counts commits",
        lambda b: b.visits["staleness"] != b.visits["expected_staleness"],
        lambda r: f"has staleness {r['staleness']}, the commits give {r['expected_staleness']}",
    ),
    Invariant(
        "commits of visits exist",
        _unknown_commit,
        lambda r: f"is in commit {r['committed_version']}, which does not exist",
    ),
    Invariant(
        "commits take what has landed by then",
        lambda b: b.visits["landed_s"] > b.visits["commit_s"],
        lambda r: f"landed after commit {r['committed_version']}, which took it",
    ),
)

INVARIANTS = (*ENDINGS, *PHASES, *AMOUNTS, *AWAY, *MEMORY, *VERSIONS, *SECONDS, *ENERGY, *ONLINE)
"""All of them, in the order in which they are checked."""
