"""The federations that are run for real and simulated: links, quotas, work, protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.fidelity.lab import Access, Net
from benchmarks.fidelity.steps import Steps

MBIT = 1e6 / 8
PERIOD_S = 0.1
"""Enforcement period of the CPU quotas, the kernel's default."""
Work = Literal["spin", "torch"]
Protocol = Literal["synchronous", "buffered"]


@dataclass(frozen=True)
class Device:
    """A client: its link [Mbit/s, ms] and its share of a core."""

    up_mbps: float
    down_mbps: float
    rtt_ms: float
    quota: float


@dataclass(frozen=True)
class Federation:
    """Clients behind one server link that they share.

    Attributes:
        name: in the results.
        devices: the clients.
        ingress_mbps, egress_mbps: the server's link.
        spin_s: CPU seconds of a visit with work `spin`; not a multiple of any client's budget.
        steps: training steps of a visit with work `torch`.
        rounds: synchronous rounds; the buffered server runs for `time_s` with buffers of `buffer`.
    """

    name: str
    devices: tuple[Device, ...]
    ingress_mbps: float
    egress_mbps: float
    spin_s: float = 0.305
    steps: int = 12
    rounds: int = 6
    time_s: float = 90.0
    buffer: int = 2

    @property
    def net(self) -> Net:
        """The star to wire up, with fair queues at the server."""
        clients = tuple(
            Access(Steps.constant(d.up_mbps * MBIT), Steps.constant(d.down_mbps * MBIT), d.rtt_ms / 1e3)
            for d in self.devices
        )
        return Net(clients, Steps.constant(self.ingress_mbps * MBIT), Steps.constant(self.egress_mbps * MBIT))

    def protocol(self, kind: Protocol) -> dict[str, Any]:
        """Return the protocol as the real server takes it."""
        if kind == "synchronous":
            return {"kind": kind, "rounds": self.rounds}
        return {"kind": kind, "buffer": self.buffer, "time_s": self.time_s}

    def experiment(self, kind: Protocol) -> dict[str, Any]:
        """Return the same as a fedsim experiment: real adapters of the built-in model, 1.05 MB each way."""
        n = len(self.devices)
        if kind == "synchronous":
            protocol: dict[str, Any] = {"kind": kind, "cohort": n}
            budget: dict[str, Any] = {"commits": self.rounds}
        else:
            protocol = {"kind": kind, "concurrency": n, "buffer": self.buffer}
            budget = {"time_s": self.time_s}
        return {
            "name": f"{self.name}-{kind}",
            "population": {"preset": "homogeneous", "clients": n},
            "network": {
                "server_up_mbps": self.egress_mbps,
                "server_down_mbps": self.ingress_mbps,
                "sharing": "max-min",
            },
            "task": {"kind": "language"},
            "lora": {"r": 48, "alpha": 48},
            "local": {"optimizer": "adamw", "lr": 1e-3, "steps": self.steps, "batch": 8},
            "protocol": protocol,
            "budget": budget,
            "runtime": {"executor": "inline"},
        }


FEDERATIONS = {
    "four": Federation(
        "four",
        (
            Device(20, 40, 20, 0.10),
            Device(10, 30, 40, 0.30),
            Device(5, 20, 60, 0.20),
            Device(2, 10, 80, 0.15),
        ),
        ingress_mbps=8,
        egress_mbps=20,
    ),
    "eight": Federation(
        "eight",
        (
            Device(20, 40, 20, 0.10),
            Device(20, 40, 30, 0.20),
            Device(10, 30, 40, 0.15),
            Device(10, 30, 60, 0.08),
            Device(8, 20, 30, 0.12),
            Device(5, 20, 80, 0.20),
            Device(4, 10, 50, 0.10),
            Device(2, 10, 100, 0.15),
        ),
        ingress_mbps=12,
        egress_mbps=24,
        buffer=3,
    ),
}
