"""What models say of a measured scenario: fedsim's clock, and size over bandwidth."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.fidelity.rows import Quota, Scenario
from benchmarks.fidelity.steps import Steps
from benchmarks.fidelity.tally import Durations
from fedsim.devices.compute import under_quota_s
from fedsim.network.predict import PlannedTransfer, transfers_s
from fedsim.network.sharing.flow import OneWayLink
from fedsim.network.traces import ConstantRate, RateTrace


def fedsim(scenario: Scenario) -> Durations:
    """Return the durations that fedsim's shared links give to these uploads."""
    links = [
        OneWayLink(_rates(up), rtt_s, scenario.framing)
        for up, rtt_s in zip(scenario.up, scenario.rtt_s, strict=True)
    ]
    transfers = [PlannedTransfer(flow.client, flow.size_bytes, flow.start_s) for flow in scenario.flows]
    server = ConstantRate(math.inf) if scenario.server is None else _rates(scenario.server)
    return transfers_s(transfers, links, server)


def quota_s(row: Quota) -> float:
    """Return how long fedsim takes for the CPU time of a row, under its quota [s]."""
    return under_quota_s(row.cpu_s, row.share, row.period_s)


def size_over_rate(scenario: Scenario) -> Durations:
    """Return bytes over the slower link's rate, everyone alone: no headers, handshake, slow start, sharing.

    The formula of the simulators in use. Where a rate changes, it is integrated.
    """
    return [
        _slower(scenario.up[flow.client], scenario.server).finish_s(flow.start_s, flow.size_bytes)
        - flow.start_s
        for flow in scenario.flows
    ]


def _rates(steps: Steps) -> ConstantRate | RateTrace:
    if steps.is_constant:
        return ConstantRate(steps.bytes_per_s[0])
    return RateTrace(np.array(steps.times_s), np.array(steps.bytes_per_s), "hold")


def _slower(own: Steps, server: Steps | None) -> Steps:
    if server is None:
        return own
    times_s = tuple(sorted({*own.times_s, *server.times_s}))
    return Steps(times_s, tuple(min(own.rate(t), server.rate(t)) for t in times_s))
