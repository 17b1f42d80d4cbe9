"""A run as a Chrome trace: who downloaded, trained and uploaded when, for Perfetto.

Open the file at ui.perfetto.dev or chrome://tracing. Times are virtual, in whole microseconds.
One process for the server (versions, counters), one for the clients (a track each); arrows lead
from a version to the visits that start from it and from an upload to the version it went into.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.files.atomic import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from fedsim.records.run import Run

SERVER, CLIENTS = 1, 2
VERSIONS = 1
"""Process and thread numbers; the track of client c is thread c + 1."""

Event = dict[str, Any]
_ORDER = {"M": 0, "C": 1, "X": 2, "s": 3, "f": 4, "i": 5}


def export(run: Run, path: str | Path) -> None:
    """Write the trace of a run to `path` (JSON, trace event format; folders are made).

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(event, allow_nan=False) for event in events(run))
    head = {"displayTimeUnit": "ms", "otherData": {"run": run.name, "clock": "virtual microseconds"}}
    text = json.dumps(head)[:-1] + f', "traceEvents": [\n{lines}\n]}}\n'
    write_atomically(path, text.encode())


def events(run: Run) -> list[Event]:
    """Return all trace events: names first, then by time; of slices that start together the longer first."""
    rows = _records(run.visits.sort_values(["dispatched_s", "order"]))
    events = [*_names(run), *_versions(run), *_in_flight(run), *_staleness(run.commits)]
    committed_s = dict(zip(run.commits["version"], run.commits["time_s"], strict=True))
    for row in rows:
        events += _visit(row, committed_s)
    return sorted(events, key=lambda e: (e["ph"] != "M", e.get("ts", 0), _ORDER[e["ph"]], -e.get("dur", 0)))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _names(run: Run) -> Iterator[Event]:
    def meta(kind: str, pid: int, tid: int, **args: Any) -> Event:
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}

    for pid, name in ((SERVER, "server"), (CLIENTS, "clients")):
        yield meta("process_name", pid, 0, name=name)
        yield meta("process_sort_index", pid, 0, sort_index=pid)
    yield meta("thread_name", SERVER, VERSIONS, name="versions")
    took_part = run.clients[run.clients["client"].isin(run.visits["client"])]
    for row in _records(took_part):
        client = int(row["client"])
        yield meta(
            "thread_name", CLIENTS, client + 1, name=f"client {client} ({row['tier']}, {row['network']})"
        )
        yield meta("thread_sort_index", CLIENTS, client + 1, sort_index=client)


def _versions(run: Run) -> Iterator[Event]:
    commits = _records(run.commits)
    starts = [0, *(_us(row["time_s"]) for row in commits)]
    end = max([starts[-1], *(_us(t) for t in run.visits["ended_s"])])
    for version, (start, stop) in enumerate(zip(starts, [*starts[1:], end], strict=True)):
        row = commits[version - 1] if version else {}
        args = _args(row, ("updates", "mean_staleness", "max_staleness", "up_bytes", "update_norm"))
        yield _slice(f"version {version}", (SERVER, VERSIONS), start, stop, args)


def _visit(row: dict[str, Any], committed_s: dict[int, float]) -> Iterator[Event]:
    client, order, tid = int(row["client"]), int(row["order"]), int(row["client"]) + 1
    start, end = _us(row["dispatched_s"]), _us(row["ended_s"])
    args = _args(
        row,
        ("outcome", "version", "staleness", "down_bytes", "up_bytes", "joules", "examples", "tokens", "loss"),
    )
    yield _slice(f"visit {int(row['visit'])}: {row['outcome']}", (CLIENTS, tid), start, end, args)
    begin_s = row["dispatched_s"]
    names = ("download", "refused" if row["outcome"] == "memory" else "train", "upload")
    for name, instant in zip(names, ("downloaded_s", "trained_s", "landed_s"), strict=True):
        reached = not math.isnan(row[instant])
        stop = _us(row[instant]) if reached else end
        if stop > _us(begin_s):
            yield _slice(name, (CLIENTS, tid), _us(begin_s), stop, {})
        if not reached:
            break
        begin_s = row[instant]
    yield from _arrow("model", 2 * order, (SERVER, VERSIONS, start), (CLIENTS, tid, start))
    if row["committed_version"] in committed_s:
        upload = (CLIENTS, tid, _us(row["trained_s"]))
        commit = (SERVER, VERSIONS, _us(committed_s[row["committed_version"]]))
        yield from _arrow("update", 2 * order + 1, upload, commit)
    if row["outcome"] not in ("landed", "in_flight"):
        where = {"pid": CLIENTS, "tid": tid, "ts": end, "s": "t"}
        yield {"ph": "i", "name": row["outcome"], "cat": "loss", **where, "args": {"client": client}}


def _in_flight(run: Run) -> Iterator[Event]:
    begins = np.rint(run.visits["dispatched_s"].to_numpy(dtype=float) * 1e6).astype(np.int64)
    ends = np.rint(run.visits["ended_s"].to_numpy(dtype=float) * 1e6).astype(np.int64)
    change = np.concatenate([np.ones(len(begins), np.int64), -np.ones(len(ends), np.int64)])
    instants, place = np.unique(np.concatenate([begins, ends]), return_inverse=True)
    level = np.cumsum(np.bincount(place, weights=change, minlength=len(instants))).astype(np.int64)
    for ts, value in zip(instants.tolist(), level.tolist(), strict=True):
        yield _counter("visits in flight", ts, {"visits": value})


def _staleness(commits: pd.DataFrame) -> Iterator[Event]:
    for row in _records(commits):
        values = {"mean": float(row["mean_staleness"]), "max": int(row["max_staleness"])}
        yield _counter("staleness", _us(row["time_s"]), values)


def _args(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Pick what is known: JSON has no NaN."""
    return {n: row[n] for n in names if n in row and not (isinstance(row[n], float) and math.isnan(row[n]))}


def _slice(name: str, track: tuple[int, int], start: int, stop: int, args: Event) -> Event:
    where = {"pid": track[0], "tid": track[1], "ts": start, "dur": stop - start}
    return {"ph": "X", "name": name, "cat": "slice", **where, "args": args}


def _counter(name: str, ts: int, values: dict[str, Any]) -> Event:
    return {"ph": "C", "name": name, "pid": SERVER, "tid": 0, "ts": ts, "args": values}


def _arrow(name: str, number: int, begin: tuple[int, int, int], end: tuple[int, int, int]) -> Iterator[Event]:
    for ph, (pid, tid, ts) in (("s", begin), ("f", end)):
        event = {"ph": ph, "name": name, "cat": "flow", "id": number, "pid": pid, "tid": tid, "ts": ts}
        yield event | ({"bp": "e"} if ph == "f" else {})
