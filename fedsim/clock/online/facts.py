"""What a run records of devices that were followed: how long they were offline, and what their batteries took and gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedsim.clock.online.device import WatchedDevice
from fedsim.devices.battery import Charge
from fedsim.records.info import Batteries
from fedsim.records.rows import Cause


def stored_j(devices: Sequence[WatchedDevice]) -> float:
    """Return what all batteries hold [J]."""
    return math.fsum(charge.battery.stored_j for charge in _charges(devices))


def offline_shares(
    devices: Sequence[WatchedDevice], offline_s: Mapping[Cause, float], now_s: float
) -> dict[Cause, float]:
    """Return the shares of time that devices were offline, by cause, over all of them.

    Args:
        devices: all of a run.
        offline_s: how long those were offline that are online again, by cause, all together [s].
        now_s: the end of the run [virtual s].
    """
    total_s = dict(offline_s)
    for device in devices:
        if not device.online:
            total_s[device.cause] += now_s - device.offline_since_s
    run_s = len(devices) * now_s or 1.0
    return {cause: seconds / run_s for cause, seconds in total_s.items() if seconds}


def balance_of(devices: Sequence[WatchedDevice], stored_at_start_j: float) -> Batteries | None:
    """Return what all batteries took and gave; None if there are none.

    Args:
        devices: all of a run, settled at its end.
        stored_at_start_j: what all batteries held at the start [J].
    """
    charges = _charges(devices)
    if not charges:
        return None
    return Batteries(
        devices=len(charges),
        start_j=stored_at_start_j,
        received_j=math.fsum(c.received_j for c in charges),
        supplied_j=math.fsum(c.supplied_j for c in charges),
        end_j=stored_j(devices),
        mean_level=float(np.mean([c.battery.level for c in charges])),
    )


def _charges(devices: Sequence[WatchedDevice]) -> list[Charge]:
    return [device.charge for device in devices if device.charge is not None]
