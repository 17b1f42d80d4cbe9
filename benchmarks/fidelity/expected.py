"""The same federation under fedsim's clock: profiles written from the lab's settings, nothing fitted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.fidelity.federation import MBIT, PERIOD_S, Federation, Protocol
from benchmarks.fidelity.rows import FRAMING
from fedsim.clock.plan import Plan, prepare
from fedsim.config.experiment import Experiment
from fedsim.cost.formulas import train_flops
from fedsim.devices.availability import Availability
from fedsim.devices.population import Population
from fedsim.records.run import Run
from fedsim.runs.simulation import simulate

PLENTY = 1e15


@lru_cache(maxsize=8)
def plan(federation: Federation, protocol: Protocol) -> Plan:
    """Return the experiment with its text split and its adapter laid out; its population is a stand-in."""
    return prepare(Experiment.model_validate(federation.experiment(protocol)))


def version_0(federation: Federation) -> bytes:
    """Return the adapter that clients start from, as float32 bytes: what is really sent."""
    return plan(federation, "synchronous").task.initial().astype(np.float32).tobytes()


def simulated(
    federation: Federation, protocol: Protocol, train_s: Sequence[float] | None, *, naive: bool = False
) -> Run:
    """Return the timeline that fedsim gives to a federation.

    Args:
        federation: clients, links, quotas.
        protocol: how the server asks.
        train_s: seconds of each client's visit, calibrated at its quota; None: the CPU seconds of
            `spin` under the quota, which needs no measurement.
        naive: size over bandwidth, nobody in anybody's way, CPU time over quota.
    """
    base = plan(federation, protocol)
    if naive:
        changed = {"sharing": "private", "model": "size-over-rate"}
        network = base.experiment.network.model_copy(update=changed)
        base = base.alike(base.experiment.model_copy(update={"network": network}))
    population = fleet(federation, base, train_s, stretch=not naive)
    made = Plan(base.experiment, population, base.task, base.shape)
    return simulate(made, timeline_only=True)


def fleet(
    federation: Federation, base: Plan, train_s: Sequence[float] | None, *, stretch: bool
) -> Population:
    """Return the lab's clients as fedsim's: speed = FLOPs of a visit / its seconds."""
    n = len(federation.devices)
    quotas = np.array([device.quota for device in federation.devices])
    flops = np.array([train_flops(base.shape, base.tokens(client)) for client in range(n)])
    if train_s is not None:
        seconds, shares = np.array(train_s), np.ones(n)
    elif stretch:
        seconds, shares = np.full(n, federation.spin_s), quotas
    else:
        seconds, shares = federation.spin_s / quotas, np.ones(n)
    zero, plenty = np.zeros(n), np.full(n, PLENTY)
    names = np.array([f"lab-{client}" for client in range(n)], dtype=object)
    return Population(
        device=names,
        tier=np.full(n, "lab", dtype=object),
        network=names,
        flops_per_s=flops / seconds,
        memory_bytes=plenty,
        usable_memory_bytes=plenty,
        memory_bytes_per_s=plenty,
        down_bytes_per_s=np.array([device.down_mbps * MBIT for device in federation.devices]),
        up_bytes_per_s=np.array([device.up_mbps * MBIT for device in federation.devices]),
        rtt_s=np.array([device.rtt_ms / 1e3 for device in federation.devices]),
        framing=np.full(n, FRAMING["tun"]),
        train_w=zero,
        idle_w=zero,
        down_radio_w=zero,
        down_radio_j_per_byte=zero,
        up_radio_w=zero,
        up_radio_j_per_byte=zero,
        battery_wh=zero,
        cpu_quota=shares,
        cpu_period_s=np.full(n, PERIOD_S),
        tail_s=zero,
        tail_w=zero,
        availability=Availability.always(n),
        sources={"lab": federation.name},
    )


def records(run: Run) -> dict[str, Any]:
    """Return a run's visits and commits in the form of the real server's report; only what has landed."""
    visits = run.visits[run.visits.outcome == "landed"].sort_values("landed_s")
    columns = ["client", "dispatched_s", "downloaded_s", "trained_s", "landed_s", "staleness"]
    return {
        "visits": visits[columns].to_dict("records"),
        "commits": run.commits[["version", "time_s"]].to_dict("records"),
    }
