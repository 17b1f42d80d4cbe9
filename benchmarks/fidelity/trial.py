"""One repetition: wire up a fresh lab, start server and clients, let them run, bring back the records."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.fidelity import quota
from benchmarks.fidelity.federation import PERIOD_S, Federation, Protocol, Work
from benchmarks.fidelity.lab import user_space
from benchmarks.fidelity.measure import CONGESTION, LEAD_S
from benchmarks.fidelity.spaces import end, expect, line, program

CALIBRATION_S = 30.0


def trial(federation: Federation, protocol: Protocol, work: Work, vector: bytes) -> dict[str, Any]:
    """Run a federation for real.

    Args:
        federation: clients, links, quotas.
        protocol: how the server asks.
        work: what clients do with their CPU.
        vector: version 0, float32.

    Returns:
        visits, commits (times in s from the start), lag_s of the start, the emulator's account, the
        load of the machine before, and `calibration`: for torch, each client's mean seconds a visit
        while all of them trained at their quotas.

    Raises:
        HostError: a process of it died.
    """
    base = quota.root()
    assert base is not None
    kind = {"kind": "spin", "cpu_s": federation.spin_s}
    if work == "torch":
        kind = {"kind": "torch", "experiment": federation.experiment(protocol)}
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="fedsim-version-0-"))
        file.write(vector)
        file.flush()
        lab = stack.enter_context(user_space(federation.net))
        common = {"congestion": CONGESTION, "vector": file.name}
        clients = []
        for number, device in enumerate(federation.devices):
            cgroup = stack.enter_context(quota.group(base, str(number), device.quota, PERIOD_S))
            settings = {**common, "client": number, "work": kind, "cgroup": str(cgroup)}
            started = program("client", json.dumps(settings), inside=lab.clients[number])
            clients.append(stack.enter_context(started))
        facts = {**common, "clients": len(clients), "protocol": federation.protocol(protocol)}
        server = stack.enter_context(program("server", json.dumps(facts), inside=lab.server))
        for process in (server, *clients):
            expect(process, "ready")
        calibration = _calibrate(clients) if work == "torch" else None
        for process in clients:
            process.stdin.write("go\n")
        for process in clients:
            expect(process, "serving")
        epoch_s = time.monotonic() + LEAD_S
        lab.begin(epoch_s)
        server.stdin.write(f"epoch {epoch_s!r}\n")
        found: dict[str, Any] = json.loads(line(server))
        for process in clients:  # before their network goes
            end(process)
        return {**found, "calibration": calibration, "emulator": lab.finish(), "load_before": load}


def _calibrate(clients: list[Any]) -> list[dict[str, float]]:
    """Let all clients train at once; returns the mean of {wall_s, cpu_s} of each one's visits."""
    for process in clients:
        process.stdin.write(f"calibrate {CALIBRATION_S}\n")
    answers = [json.loads(line(process)) for process in clients]
    return [
        {
            "visits": len(visits),
            "wall_s": sum(v["wall_s"] for v in visits) / len(visits),
            "cpu_s": sum(v["cpu_s"] for v in visits) / len(visits),
        }
        for visits in answers
    ]
