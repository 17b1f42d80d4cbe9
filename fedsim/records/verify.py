"""The auditor: replays the accounting of a run from its tables alone.

Nothing of the simulator is used. Each invariant that does not hold gives one sentence that names
the first visit or commit which breaks it, and how many more do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.records.info import UNFINISHED
from fedsim.records.rows import CAUSES, OUTCOMES
from fedsim.records.tables import TABLES
from fedsim.records.verify_links import links

if TYPE_CHECKING:
    import pandas as pd

    from fedsim.records.run import Run

Mask = NDArray[np.bool_]
INSTANTS = ("dispatched_s", "downloaded_s", "trained_s", "landed_s", "ended_s")


def verify(run: Run) -> list[str]:
    """Return what is wrong with a run's tables, one sentence an invariant; empty if all hold.

    Checked: one ending per visit; instants in order; no client in two visits at once; bytes, FLOPs and
    joules in their bounds; gross joules recomputed from joules, idle power and time; pauses and cut work where
    `population.on_close` allows them, with a cause; batteries' joules in, out and left; transfers no faster
    than their links and the server's; memory refusals and plans against the clients' memory; versions
    consecutive and staleness recomputed; the sums of every commit and of `run.json` recomputed from the
    visits; scored versions.
    """
    missing = [
        f"{table} has no column {column!r}"
        for table in ("visits", "commits", "scores", "clients")
        for column in TABLES[table]
        if column not in getattr(run, table).columns
    ]
    if missing:
        return missing
    checks = (
        _endings,
        _phases,
        _overlaps,
        _amounts,
        _gross,
        _away,
        _batteries,
        _links,
        _memory,
        _versions,
        _staleness,
        _commits,
        _totals,
        _scores,
    )
    return [problem for check in checks for problem in check(run)]


def _endings(run: Run) -> Iterator[str]:
    v = run.visits
    yield from _visits(
        v,
        v.duplicated("order") | (v["order"] < 0),
        lambda r: f"has the place {r['order']} of another dispatch",
    )
    yield from _visits(v, v.duplicated(["client", "visit"]), lambda _: "has more than one ending")
    if run.info.status not in UNFINISHED:
        nth = v.sort_values(["client", "visit"]).groupby("client").cumcount().reindex(v.index)
        gap = ~v.duplicated(["client", "visit"]) & (nth != v["visit"])
        yield from _visits(v, gap, lambda _: "follows a visit that has no row")
    yield from _visits(
        v, ~v["client"].isin(run.clients["client"]), lambda _: "is of a client that is not in clients"
    )
    yield from _visits(
        v, ~v["outcome"].isin(OUTCOMES), lambda r: f"ends as {r['outcome']!r}, which is no outcome"
    )
    yield from _visits(
        v,
        (v["outcome"] == "landed") & v["landed_s"].isna(),
        lambda _: "is 'landed' without an instant of landing",
    )
    yield from _visits(
        v,
        (v["committed_version"] >= 0) & (v["outcome"] != "landed"),
        lambda r: f"ended as {r['outcome']!r} and is in commit {r['committed_version']} all the same",
    )


def _phases(run: Run) -> Iterator[str]:
    v = run.visits
    reached = ~np.isnan(v[list(INSTANTS)].to_numpy(dtype=float))
    skipped = (
        ~reached[:, 0] | ~reached[:, 4] | (reached[:, 2] & ~reached[:, 1]) | (reached[:, 3] & ~reached[:, 2])
    )
    yield from _visits(v, skipped, lambda _: "lacks an instant that comes before one it has")
    last = v["dispatched_s"].to_numpy(dtype=float)
    backwards = last < 0
    for name in INSTANTS[1:]:
        now = v[name].to_numpy(dtype=float)
        backwards |= now < last
        last = np.where(np.isnan(now), last, now)
    yield from _visits(
        v, backwards, lambda r: "goes backwards in time: " + ", ".join(f"{n} {r[n]:.6g}" for n in INSTANTS)
    )


def _overlaps(run: Run) -> Iterator[str]:
    v = run.visits.sort_values(["client", "dispatched_s", "order"])
    before = v.groupby("client")["ended_s"].shift()
    yield from _visits(
        v,
        v["dispatched_s"] < before,
        lambda r: (
            f"was dispatched at {r['dispatched_s']:.6g} s while the client's previous visit was under way"
        ),
    )


def _amounts(run: Run) -> Iterator[str]:
    v = run.visits
    amounts = ("down_bytes", "up_bytes", "serialized_down_bytes", "serialized_up_bytes")
    for name in (*amounts, "flops", "joules", "gross_joules"):
        amount = v[name].to_numpy()
        bad = ~(np.isfinite(amount) & (amount >= 0))
        shown = v.assign(what=name, amount=amount)
        yield from _visits(shown, bad, lambda r: f"has {r['what']} {r['amount']}, which is no amount")
    unsent = v["trained_s"].isna()
    yield from _visits(
        v,
        unsent & ((v["up_bytes"] > 0) | (v["serialized_up_bytes"] > 0)),
        lambda r: f"uploaded {r['up_bytes']} bytes before its training was done",
    )
    yield from _visits(
        v, v["downloaded_s"].isna() & (v["flops"] > 0), lambda _: "computed before its download was done"
    )
    landed = v["landed_s"].notna()
    yield from _visits(
        v,
        landed & (v["up_bytes"] == 0) & (v["serialized_up_bytes"] > 0),
        lambda _: "landed without a byte uploaded",
    )
    if (run.experiment.get("task") or {}).get("charge_as") is None:
        yield from _visits(
            v,
            landed & (v["up_bytes"] != v["serialized_up_bytes"]),
            lambda r: f"counts {r['up_bytes']} bytes up, but serialised {r['serialized_up_bytes']}",
        )


def _gross(run: Run) -> Iterator[str]:
    v = run.visits
    idle_w = _of_client(run, "idle_w").to_numpy(dtype=float)
    there_s = v["ended_s"] - v["dispatched_s"] - v["paused_s"]
    expected = v["joules"].to_numpy() + idle_w * there_s.to_numpy()
    found = v["gross_joules"].to_numpy()
    yield from _visits(
        v.assign(expected=expected),
        np.isfinite(expected) & ~_same(found, expected),
        lambda r: (
            f"has gross_joules {r['gross_joules']:.12g}, joules and idle power give {r['expected']:.12g}"
        ),
    )


def _away(run: Run) -> Iterator[str]:
    v = run.visits
    policy = (run.experiment.get("population") or {}).get("on_close", "lost")
    yield from _visits(
        v, ~v["away"].isin(["", *CAUSES]), lambda r: f"was away for {r['away']!r}, which is no cause"
    )
    yield from _visits(
        v, (v["outcome"] == "offline") & (v["away"] == ""), lambda _: "is 'offline' without a cause"
    )
    took_s, paused_s = v["ended_s"] - v["dispatched_s"], v["paused_s"]
    yield from _visits(
        v,
        ~(paused_s >= 0) | ((paused_s > took_s) & ~_same(paused_s, took_s)),
        lambda r: f"paused for {r['paused_s']:.6g} s of {r['ended_s'] - r['dispatched_s']:.6g} s",
    )
    yield from _visits(
        v,
        (paused_s > 0) & ((v["away"] == "") | (policy == "lost")),
        lambda r: f"paused for {r['paused_s']:.6g} s, and nothing says that it may",
    )
    share = v["work_share"]
    cut = share < 1
    yield from _visits(
        v, ~((share > 0) & (share <= 1)), lambda r: f"made a share of {r['work_share']} of its steps"
    )
    yield from _visits(
        v,
        cut & ((policy != "partial") | (v["away"] == "") | v["trained_s"].isna()),
        lambda r: f"made {r['work_share']:.3g} of its steps, and nothing says why",
    )


def _batteries(run: Run) -> Iterator[str]:
    level = run.visits["battery"]
    yield from _visits(
        run.visits, (level < 0) | (level > 1), lambda r: f"leaves a battery at a level of {r['battery']}"
    )
    told = run.info.batteries
    if told is not None:
        wanted = told.start_j + told.received_j - told.supplied_j
        if not _same(told.end_j, wanted):
            yield f"run.json tells of {told.end_j:.12g} J in batteries at the end, what came and went gives {wanted:.12g}"


def _links(run: Run) -> Iterator[str]:
    for visits, bad, problem in links(run):
        yield from _visits(visits, bad, problem)


def _of_client(run: Run, name: str) -> pd.Series[Any]:
    """Return a column of the clients' table, one entry a visit; NaN for clients that are not in it."""
    known = run.clients.drop_duplicates("client").set_index("client")[name]
    return run.visits["client"].map(known)


def _memory(run: Run) -> Iterator[str]:
    v, clients = run.visits, run.clients
    short = clients["client"][clients["needed_memory_bytes"] > clients["usable_memory_bytes"]]
    whole = v["rank"] == _of_client(run, "rank")  # a smaller adapter may fit where the client's own does not
    small = v["client"].isin(short) & whole
    yield from _visits(
        v, (v["outcome"] == "memory") & ~small, lambda _: "ran out of memory on a device that has enough"
    )
    yield from _visits(
        v, v["trained_s"].notna() & small, lambda _: "trained on a device whose memory is too small"
    )
    yield from _visits(
        v.assign(most=_of_client(run, "rank")),
        v["rank"] > _of_client(run, "rank"),
        lambda r: f"trained rank {r['rank']}, its client has {r['most']:.0f}",
    )
    plan = _of_client(run, "memory_plan")
    yield from _visits(
        v.assign(plan=plan),
        plan.notna() & whole & (v["memory_plan"] != plan),
        lambda r: f"has the memory plan {r['memory_plan']!r}, its client {r['plan']!r}",
    )


def _versions(run: Run) -> Iterator[str]:
    c = run.commits
    expected = np.arange(1, len(c) + 1)
    wrong = np.flatnonzero(c["version"].to_numpy() != expected)
    if wrong.size:
        yield f"commit {c['version'].iloc[wrong[0]]} stands where version {expected[wrong[0]]} belongs"
    times = c["time_s"].to_numpy(dtype=float)
    early = np.flatnonzero(~(np.diff(times, prepend=0.0) >= 0))
    if early.size:
        yield f"commit {c['version'].iloc[early[0]]} at {times[early[0]]:.6g} s comes before the one ahead of it"


def _staleness(run: Run) -> Iterator[str]:
    v, c = run.visits, run.commits
    made = np.searchsorted(
        np.sort(c["time_s"].to_numpy(dtype=float)), v["dispatched_s"].to_numpy(dtype=float), "right"
    )
    yield from _visits(
        v.assign(made=made),
        v["version"].to_numpy() != made,
        lambda r: f"carries version {r['version']}, but {r['made']} versions were committed at its dispatch",
    )
    expected = np.where(v["committed_version"] > 0, v["committed_version"] - 1 - v["version"], -1)
    yield from _visits(
        v.assign(expected=expected),
        v["staleness"].to_numpy() != expected,
        lambda r: f"has staleness {r['staleness']}, the commits give {r['expected']}",
    )
    unknown = (v["committed_version"] != -1) & ~v["committed_version"].isin(c["version"])
    if run.info.status in UNFINISHED:  # the row of the commit itself comes last
        unknown &= v["committed_version"] != len(c) + 1
    yield from _visits(v, unknown, lambda r: f"is in commit {r['committed_version']}, which does not exist")
    time_s = v["committed_version"].map(c.drop_duplicates("version").set_index("version")["time_s"])
    yield from _visits(
        v, v["landed_s"] > time_s, lambda r: f"landed after commit {r['committed_version']}, which took it"
    )


def _commits(run: Run) -> Iterator[str]:
    v, c = run.visits, run.commits
    taken = v[v["committed_version"] >= 0].groupby("committed_version")
    expected = {
        "updates": taken.size(),
        "mean_staleness": taken["staleness"].mean(),
        "max_staleness": taken["staleness"].max(),
        "up_bytes": taken["up_bytes"].sum(),
    }
    for name, values in expected.items():
        found, wanted = c[name].to_numpy(), c["version"].map(values).fillna(0).to_numpy()
        yield from _rows(c, ~_same(found, wanted), name, found, wanted)
    if run.info.status in UNFINISHED:
        return
    ended, times = v["ended_s"].to_numpy(), c["time_s"].to_numpy()
    # What lands at the very instant of a commit is in its sums; what is stopped then may be or not.
    surely = np.where(v["landed_s"].isna(), ended, np.nextafter(ended, -np.inf))
    for name in ("up_bytes", "down_bytes", "joules"):
        found, amounts = c[f"total_{name}"].to_numpy(), v[name].to_numpy()
        low = _summed(amounts, surely, times, "left")
        high = _summed(amounts, ended, times, "right")
        good = ((found > low) | _same(found, low)) & ((found < high) | _same(found, high))
        yield from _rows(c, ~good, f"total_{name}", found, high)


def _summed(amounts: Any, at_s: Any, times: Any, side: Literal["left", "right"]) -> Any:
    """Return, for each time, the sum of the amounts before it (`left`) or until it (`right`)."""
    order = np.argsort(at_s, kind="stable")
    sums = np.concatenate([np.zeros(1, amounts.dtype), np.cumsum(amounts[order])])
    return sums[np.searchsorted(at_s[order], times, side)]


def _same(found: Any, wanted: Any) -> Mask:
    """Compare whole numbers exactly, sums of floats up to the order of summation."""
    if np.issubdtype(np.asarray(found).dtype, np.integer):
        return np.asarray(found == wanted)
    return np.asarray(np.isclose(found, wanted, rtol=1e-9, atol=1e-9))


def _totals(run: Run) -> Iterator[str]:
    if run.info.status in UNFINISHED:
        return
    told, v = run.info.totals, run.visits
    sums = (
        ("visits", told.visits, len(v)),
        ("commits", told.commits, len(run.commits)),
        ("up_bytes", told.up_bytes, v["up_bytes"].sum()),
        ("down_bytes", told.down_bytes, v["down_bytes"].sum()),
        ("joules", told.joules, v["joules"].sum()),
        ("gross_joules", told.gross_joules, v["gross_joules"].sum()),
    )
    for name, value, wanted in sums:
        if not (_same(value, wanted) or math.isnan(value)):
            yield f"run.json tells of {value} {name} in total, the tables of {wanted}"


def _scores(run: Run) -> Iterator[str]:
    if run.scores.empty:
        return
    last = int(run.commits["version"].max()) if len(run.commits) else 0
    time_s = dict(zip(run.commits["version"], run.commits["time_s"], strict=True)) | {0: 0.0}
    for row in run.scores.to_dict("records"):
        if row["version"] not in time_s:
            yield f"a score is of version {row['version']}, which was never committed"
            break
        if row["time_s"] < time_s[row["version"]]:
            yield f"version {row['version']} was scored at {row['time_s']:.6g} s, before its commit"
            break
    for version in sorted({0, last} - set(run.scores["version"])):
        if run.info.status == "done":
            yield f"version {version} has no score, and the first and the last must have one"


def _visits(frame: pd.DataFrame, bad: Any, problem: Callable[[Any], str]) -> Iterator[str]:
    """Say once what is wrong with the first bad visit, and how many more there are."""
    at = np.flatnonzero(np.asarray(bad, dtype=bool))
    if at.size:
        row = frame.iloc[int(at[0])]
        more = f" (and {at.size - 1} more)" if at.size > 1 else ""
        yield f"visit {row['visit']} of client {row['client']} {problem(row)}{more}"


def _rows(c: pd.DataFrame, bad: Mask, name: str, found: Any, wanted: Any) -> Iterator[str]:
    at = np.flatnonzero(bad)
    if at.size:
        first = int(at[0])
        more = f" (and {at.size - 1} more)" if at.size > 1 else ""
        version = c["version"].iloc[first]
        yield f"commit {version} has {name} {found[first]:.12g}, its visits give {wanted[first]:.12g}{more}"
