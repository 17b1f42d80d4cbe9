"""`measure FOLDER`: run uploads and CPU quotas on this machine, and write rows for `--check`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fidelity import permits, quota
from benchmarks.fidelity.client import PAUSE_S, Worker
from benchmarks.fidelity.federation import MBIT, PERIOD_S
from benchmarks.fidelity.lab import Access, Lab, Net, kernel, user_space
from benchmarks.fidelity.spaces import expect, program
from benchmarks.fidelity.steps import Steps

LEAD_S = 1.5
"""Starts are announced this long ahead, so that a slow process is late for none; the lag is written down."""
CONGESTION = "cubic"


@dataclass(frozen=True)
class Upload:
    """A job: who sends how many bytes, when [s]."""

    client: int
    size_bytes: int
    start_s: float = 0.0


def uploads(lab: Lab, jobs: Sequence[Upload]) -> list[dict[str, Any]]:
    """Run uploads in a wired lab; returns rows {job, client, size, start, lag, conn, t_rx, t_ack, retr}."""
    with ExitStack() as stack:
        receiver = stack.enter_context(program("uploads", "receive", str(len(jobs)), inside=lab.server))
        senders = []
        for client in sorted({job.client for job in jobs}):
            mine = [
                {"job": number, "size": job.size_bytes, "start": job.start_s, "cc": CONGESTION}
                for number, job in enumerate(jobs)
                if job.client == client
            ]
            sender = program("uploads", "send", json.dumps(mine), inside=lab.clients[client])
            senders.append(stack.enter_context(sender))
        for process in (receiver, *senders):
            expect(process, "ready")
        epoch_s = time.monotonic() + LEAD_S
        lab.begin(epoch_s)
        for sender in senders:
            sender.stdin.write(f"epoch {epoch_s!r}\n")
        sent = {row["job"]: row for sender in senders for row in map(json.loads, sender.stdout)}
        arrived = {row["job"]: row["arrived_s"] for row in map(json.loads, receiver.stdout)}
    return [
        {
            "job": number,
            "client": job.client,
            "size": job.size_bytes,
            "start": job.start_s,
            **{key: sent[number][key] for key in ("lag", "conn", "t_ack", "retr")},
            "t_rx": arrived[number] - sent[number]["began_s"],
        }
        for number, job in enumerate(jobs)
    ]


def measure(folder: Path, *, repetitions: int = 1, say: Callable[[str], None] = print) -> None:
    """Write single_upload, shared_link, rate_trace and cpu_quota rows, as far as the kernel allows."""
    folder.mkdir(parents=True, exist_ok=True)
    delayed, plain = permits.tun() is None, permits.kernel_limits() is None
    for name, rows in (
        ("single_upload", _singles(delayed=delayed, plain=plain)),
        ("shared_link", _shared(delayed=delayed, plain=plain)),
        ("rate_trace", _traces(delayed=delayed)),
        ("cpu_quota", _quotas),
    ):
        with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            for repetition in range(repetitions):
                for row in rows():
                    file.write(json.dumps({**row, "rep": repetition}) + os.linesep)
                    file.flush()
                    say(f"{name}: {row.get('name') or row.get('mode') or row['q']}")


Rows = Callable[[], Iterator[dict[str, Any]]]


def _singles(*, delayed: bool, plain: bool) -> Rows:
    def rows() -> Iterator[dict[str, Any]]:
        for mbps, size in ((1, 1_000_000), (5, 1_000_000), (5, 5_000_000), (20, 1_000_000), (20, 5_000_000)):
            for mode, allowed, rtt_ms in (("tun", delayed, 50), ("tbf", plain, 0)):
                if not allowed:
                    continue
                queue = max(64_000, round(mbps * MBIT * 0.05))
                net = star([(mbps, rtt_ms)], 10_000, fair=True, queue_bytes=queue)
                with (user_space if mode == "tun" else kernel)(net) as lab:
                    (row,) = uploads(lab, [Upload(0, size)])
                    lab.finish()
                yield {**row, "mode": mode, "rate": mbps * 1e6, "rtt": rtt_ms, "q": queue, "cc": CONGESTION}

    return rows


SIZES = tuple(Upload(n, (n + 1) * 1_000_000) for n in range(4))
EQUAL = tuple(Upload(n, 2_500_000) for n in range(4))
STAGGERED = tuple(Upload(n, 2_000_000, n / 2) for n in range(4))
CAPPED = tuple(Upload(n, size) for n, size in enumerate((1_000_000, 2_000_000, 3_000_000, 3_000_000)))
FAST, MIXED = (20, 20, 20, 20), (2, 5, 20, 20)


def _shared(*, delayed: bool, plain: bool) -> Rows:
    tun = [
        ("equal_fq", FAST, (50,) * 4, True, EQUAL),
        ("sizes_fq", FAST, (50,) * 4, True, SIZES),
        ("stagger_fq", FAST, (50,) * 4, True, STAGGERED),
        ("caps_fq", MIXED, (50,) * 4, True, CAPPED),
        ("rtt_fq", FAST, (10, 50, 100, 200), True, EQUAL),
        ("equal_fifo", FAST, (50,) * 4, False, EQUAL),
        ("sizes_fifo", FAST, (50,) * 4, False, SIZES),
    ]
    htb = [
        ("equal_htb", FAST, (0,) * 4, True, EQUAL),
        ("stagger_htb", FAST, (0,) * 4, True, STAGGERED),
        ("caps_htb", MIXED, (0,) * 4, True, CAPPED),
    ]
    wanted = [("tun", *row) for row in tun if delayed] + [("htb", *row) for row in htb if plain]

    def rows() -> Iterator[dict[str, Any]]:
        for mode, name, rates, rtts, fair, jobs in wanted:
            net = star(list(zip(rates, rtts, strict=True)), 20, fair=fair)
            with (user_space if mode == "tun" else kernel)(net) as lab:
                found = uploads(lab, jobs)
                account = lab.finish()
            yield {
                "name": name,
                "mode": mode,
                "cc": CONGESTION,
                "clients": [{"up": up * 1e6, "rtt": rtt} for up, rtt in zip(rates, rtts, strict=True)],
                "server": {"in": 20e6, "q": net.queue_bytes, "fq": fair},
                "rows": found,
                "st": account,
            }

    return rows


def _traces(*, delayed: bool) -> Rows:
    up = {"t": [0, 2, 5], "r": [5e6, 1e6, 10e6]}
    outage = {"t": [0, 1, 3], "r": [8e6, 0.0, 8e6]}
    server = {"t": [0, 1.5, 3.5], "r": [20e6, 6e6, 20e6]}
    wanted: list[tuple[str, list[Any], Any, list[Upload]]] = [
        ("uplink_steps", [up], None, [Upload(0, 3_000_000)]),
        ("uplink_outage", [outage], None, [Upload(0, 2_000_000)]),
        ("server_steps", [20e6] * 3, server, [Upload(n, 2_000_000, 0.3 * n) for n in range(3)]),
    ]

    def rows() -> Iterator[dict[str, Any]]:
        for name, ups, ingress, jobs in wanted if delayed else []:
            free = Steps.constant(1e4 * MBIT)
            clients = tuple(Access(_steps(rate), free, 0.05) for rate in ups)
            net = Net(clients, free if ingress is None else _steps(ingress), free)
            with user_space(net) as lab:
                found = uploads(lab, jobs)
                lab.finish()
            yield {"kind": "trace", "name": name, "up": ups, "C": ingress, "rtt": 50, "rows": found}

    return rows


def _quotas() -> Iterator[dict[str, Any]]:
    base = quota.root()
    for share, cpu_s in ((0.5, 0.62), (0.25, 0.31), (0.1, 0.155)) if base is not None else ():
        assert base is not None
        with quota.group(base, "spin", share, PERIOD_S) as cgroup:
            worker = Worker({"work": {"kind": "spin", "cpu_s": cpu_s}, "cgroup": str(cgroup)})
            time.sleep(PAUSE_S)  # a full budget
            began_s = time.monotonic()
            answer, _ = worker.train(0, b"")
            wall_s = time.monotonic() - began_s
            worker.close()
        yield {"k": "spin", "q": share, "per": 1e3 * PERIOD_S, "wall": wall_s, "cpu": answer["cpu_s"]}


def _steps(rate: Any) -> Steps:
    if isinstance(rate, dict):
        return Steps(tuple(rate["t"]), tuple(bits / 8 for bits in rate["r"]))
    return Steps.constant(rate / 8)


def star(
    links: list[tuple[float, float]], server_mbps: float, *, fair: bool, queue_bytes: int = 125_000
) -> Net:
    """Return a star of clients (uplink [Mbit/s], RTT [ms]) whose downlinks are not in the way."""
    free = Steps.constant(1e4 * MBIT)
    clients = tuple(Access(Steps.constant(up * MBIT), free, rtt / 1e3, queue_bytes) for up, rtt in links)
    return Net(clients, Steps.constant(server_mbps * MBIT), free, fair, queue_bytes)
