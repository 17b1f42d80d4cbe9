"""A timeline in a process of its own: `python benchmarks/engine_run.py --clients 100000 --world charging`; prints JSON."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.server.server import Server

WORLDS: dict[str, dict[str, Any]] = {
    "charging": {"population": {"availability": "charging"}},
    "always": {},
    "batteries": {"population": {"availability": "charging"}, "energy": {"battery": {}}},
    "max-min": {"population": {"availability": "charging"}, "network": {"sharing": "max-min"}},
    "round": {"population": {"availability": "charging"}},
}
"""Name -> what it has that is not as in `settings`; `round` is one synchronous round, of which the planning is measured."""
SHARE, BUFFERS = 100, 10
"""One client in so many is at work at a time, and so many buffers are filled by those."""


def settings(world: str, clients: int, time_s: float) -> dict[str, Any]:
    """Return the experiment of a world as plain values."""
    at_work = max(10, clients // SHARE)
    plain: dict[str, Any] = {
        "name": f"{world}-{clients}",
        "population": {"preset": "mixed_edge_2025", "clients": clients},
        "task": {
            "kind": "quadratic",
            "charge_as": {"preset": "gemma-3-270m", "r": 8, "tokens_per_visit": 20000},
        },
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 4},
        "network": {"sharing": "private"},
        "protocol": {"kind": "buffered", "concurrency": at_work, "buffer": max(1, at_work // BUFFERS)},
        "evaluate": {"every_commits": 10**9},
        "budget": {"time_s": time_s},
        "runtime": {"executor": "inline"},
    }
    if world == "round":
        plain |= {"protocol": {"kind": "synchronous", "cohort": at_work}, "budget": {"time_s": 1.0}}
    for block, values in WORLDS[world].items():
        plain[block] = {**plain.get(block, {}), **values}
    return plain


def measure(world: str, clients: int, time_s: float) -> dict[str, float]:
    """Run a timeline and return how long it took, what it did, and the most memory that this process has held."""
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    from fedsim.checks.gate import prepared
    from fedsim.clock.plan_tables import clients_table
    from fedsim.config.experiment import Experiment
    from fedsim.records.writer import Writer
    from fedsim.runs.course import run_to_the_end
    from fedsim.runs.course import world as world_of
    from fedsim.server.ledger import quiet

    plan = prepared(Experiment.model_validate(settings(world, clients, time_s)))
    writer = Writer(None, plan.experiment)
    writer.clients(clients_table(plan))
    server = world_of(plan, None, writer, quiet)
    ready_s, ready_cpu_s = time.perf_counter(), time.process_time()
    if world == "round":
        return planned(server, at_work=max(10, clients // SHARE))
    run_to_the_end(server, quiet)
    ended_s, ended_cpu_s = time.perf_counter(), time.process_time()
    events = next(server.env._eid)  # noqa: SLF001  # SimPy numbers its events
    run = writer.close(status="done")
    closed_cpu_s = time.process_time()
    return {
        "plan_s": ready_s - begun_s,
        "plan_cpu_s": ready_cpu_s - begun_cpu_s,
        "loop_s": ended_s - ready_s,
        "loop_cpu_s": ended_cpu_s - ready_cpu_s,
        "close_cpu_s": closed_cpu_s - ended_cpu_s,
        "wall_s": time.perf_counter() - begun_s,
        "cpu_s": closed_cpu_s - begun_cpu_s,
        "visits": float(run.count("visits")),
        "commits": float(run.count("commits")),
        "events": float(events),
        "peak_mib": peak_mib(),
    }


def planned(server: Server, at_work: int) -> dict[str, float]:
    """Have a round chosen and dispatched; returns how long that took, and the memory."""
    from fedsim.runs.course import no_garbage_pauses

    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    with no_garbage_pauses():  # as in a run
        while server.visits.begun < at_work:
            server.env.step()
    return {
        "planned_s": time.perf_counter() - begun_s,
        "planned_cpu_s": time.process_time() - begun_cpu_s,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """Return the most memory that this process has held [MiB]."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=sorted(WORLDS), default="charging")
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--time-s", type=float, default=86_400.0)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.world, asked.clients, asked.time_s)))


if __name__ == "__main__":
    main()
