"""Runs without a simulator: one written by hand, and small asynchronous ones played by a plain loop."""

from __future__ import annotations

import heapq
import math
from typing import Any

from fedsim.records.info import RunInfo, Totals, totals_of
from fedsim.records.run import Run
from fedsim.records.tables import TABLES, frame, joined, pack_lines

NAN = math.nan
SIZE = 1000
IDLE_W = 0.25
VISIT = {
    "round": -1,
    "away": "",
    "paused_s": 0.0,
    "work_share": 1.0,
    "battery": NAN,
    "staleness": -1,
    "committed_version": -1,
    "serialized_down_bytes": SIZE,
    "serialized_up_bytes": 0,
    "flops": 0.0,
    "rank": 8,
    "memory_plan": "fits",
    "computed": False,
    "examples": 4,
    "tokens": 64,
    "loss": NAN,
}


def made(tables: dict[str, list[dict[str, Any]]], totals: Totals | None = None) -> Run:
    """A run of these rows; its run.json tells of `totals`, or of what the rows add up to."""
    columns = {name: joined(name, [pack_lines(name, tables.get(name, []))]) for name in TABLES}
    frames = {name: frame(name, columns[name]) for name in TABLES}
    task = {"kind": "language", "charge_as": None}
    about = RunInfo(name="handmade", status="done", seed=0, digest="", totals=totals or totals_of(columns))
    return Run(None, {"task": task}, about, **frames)


def client(number: int, needed: float = 1e9) -> dict[str, Any]:
    names = {"device": "phone", "tier": "phone-mid", "network": "lte", "client": number, "rank": 8}
    rates = dict.fromkeys(["flops_per_s", "down_bytes_per_s", "up_bytes_per_s"], 1e6)
    memory = {"memory_bytes": 4e9, "usable_memory_bytes": 1.8e9, "needed_memory_bytes": needed}
    memory |= {"memory_plan": "fits" if needed <= 1.8e9 else "refused", "idle_w": IDLE_W}
    return names | rates | memory | {"rtt_s": 0.004, "online_share": 1.0, "examples": 4, "tokens": 64}


def commit(
    version: int, time_s: float, staleness: list[int], *, up: int, down: int, joules: float
) -> dict[str, Any]:
    return {
        "version": version,
        "time_s": time_s,
        "updates": len(staleness),
        "mean_staleness": sum(staleness) / len(staleness),
        "max_staleness": max(staleness),
        "up_bytes": SIZE * len(staleness),
        "total_up_bytes": up,
        "total_down_bytes": down,
        "total_joules": joules,
        "update_norm": 1.0,
        "mean_cosine": NAN,
    }


def score(version: int, time_s: float) -> dict[str, Any]:
    return {"version": version, "time_s": time_s, "split": "test", "metric": "perplexity", "value": 9.0}


def with_gross(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"gross_joules": row["joules"] + IDLE_W * (row["ended_s"] - row["dispatched_s"])}


def by_hand() -> Run:
    """Three clients, seven visits, two commits; every number below can be checked on paper."""
    rows = [
        # order, client, visit, version, dispatched, downloaded, trained, landed, ended, outcome, up, joules
        (0, 0, 0, 0, 0.0, 1.0, 5.0, 6.0, 6.0, "landed", SIZE, 3.0),
        (1, 1, 0, 0, 0.0, 2.0, 8.0, 10.0, 10.0, "landed", SIZE, 5.0),
        (2, 2, 0, 0, 0.0, 1.0, NAN, NAN, 1.5, "memory", 0, 0.5),
        (3, 0, 1, 1, 6.0, 7.0, 11.0, 12.0, 12.0, "landed", SIZE, 3.0),
        (4, 1, 1, 1, 10.0, 12.5, NAN, NAN, 15.0, "offline", 0, 2.0),
        (5, 0, 2, 2, 12.0, 13.0, 17.0, NAN, 17.5, "late", 400, 2.5),
        (6, 1, 2, 2, 45.0, NAN, NAN, NAN, 45.5, "in_flight", 0, 0.25),
    ]
    names = ["order", "client", "visit", "version", "dispatched_s", "downloaded_s", "trained_s", "landed_s"]
    names += ["ended_s", "outcome", "up_bytes", "joules"]
    visits = [VISIT | dict(zip(names, row, strict=True)) | {"down_bytes": SIZE} for row in rows]
    for order, version, staleness in ((0, 1, 0), (1, 2, 1), (3, 2, 0)):
        visits[order] |= {"committed_version": version, "staleness": staleness, "computed": True, "loss": 2.5}
    for row in visits:
        if not math.isnan(row["trained_s"]):
            row |= {"serialized_up_bytes": SIZE, "flops": 1e9}
    visits[4]["away"] = "window"
    visits[6]["down_bytes"] = 250
    visits[2]["memory_plan"] = "refused"
    totals = Totals(
        clients=3,
        visits=7,
        commits=2,
        up_bytes=3400,
        down_bytes=6250,
        joules=16.25,
        gross_joules=16.25 + IDLE_W * (6.0 + 10.0 + 1.5 + 6.0 + 5.0 + 5.5 + 0.5),
    )
    return made(
        {
            "clients": [client(0), client(1), client(2, needed=2e9)],
            "visits": [with_gross(row) for row in visits],
            "commits": [
                commit(1, 6.0, [0], up=1000, down=2000, joules=3.5),
                commit(2, 12.0, [1, 0], up=3000, down=4000, joules=11.5),
            ],
            "scores": [score(0, 0.0), score(2, 12.0)],
        },
        totals=totals,
    )


def played(phases: list[tuple[float, float, float, bool]], clients: int, buffer: int) -> Run:
    """Play FedBuff over `phases` (download, train, upload [s], and whether it is lost at the end of training)."""
    queue: list[tuple[float, int, dict[str, Any]]] = []
    visits: list[dict[str, Any]] = []
    commits: list[dict[str, Any]] = []
    landed: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []
    plan = iter(phases)

    def dispatch(number: int, now: float) -> None:
        course = next(plan, None)
        if course is None:
            return
        down, train, up, lost = course
        row = VISIT | {"order": len(visits), "client": number, "version": len(commits), "dispatched_s": now}
        row |= {
            "visit": sum(v["client"] == number for v in visits),
            "down_bytes": SIZE,
            "downloaded_s": now + down,
        }
        trained = now + down + train
        row |= {
            "trained_s": NAN,
            "landed_s": NAN,
            "up_bytes": 0,
            "joules": 1.0,
            "ended_s": trained,
            "outcome": "offline",
            "away": "window",
        }
        if not lost:
            row |= {"trained_s": trained, "landed_s": trained + up, "ended_s": trained + up, "up_bytes": SIZE}
            row |= {"outcome": "landed", "away": "", "serialized_up_bytes": SIZE, "flops": 1e9}
        visits.append(row)
        heapq.heappush(queue, (row["ended_s"], row["order"], row))

    for number in range(clients):
        dispatch(number, 0.0)
    while queue:
        now, free = queue[0][0], []
        while queue and queue[0][0] == now:
            row = heapq.heappop(queue)[2]
            ended.append(row)
            free.append(row["client"])
            if row["outcome"] == "landed":
                landed.append(row)
        while len(landed) >= buffer:
            taken, landed = landed[:buffer], landed[buffer:]
            version = len(commits) + 1
            for row in taken:
                row |= {"committed_version": version, "staleness": version - 1 - row["version"]}
            up = sum(row["up_bytes"] for row in ended)
            stale = [row["staleness"] for row in taken]
            commits.append(
                commit(version, now, stale, up=up, down=SIZE * len(ended), joules=float(len(ended)))
            )
        for number in free:
            dispatch(number, now)
    rows = [with_gross(row) for row in visits]
    return made({"clients": [client(n) for n in range(clients)], "visits": rows, "commits": commits})
