"""What a run records of devices that were followed: how long they were offline, and what their batteries took and gave."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from fedsim.clock.online.device import WatchedDevice
from fedsim.clock.online.device_states import DeviceStates
from fedsim.records.info import Batteries
from fedsim.records.rows import Cause


def stored_j(devices: Sequence[WatchedDevice]) -> float:
    """Return what all batteries hold at the start of a run [J]."""
    if isinstance(devices, DeviceStates):
        return devices.stored_at_start_j()
    return math.fsum(device.charge.battery.stored_j for device in devices if device.charge is not None)


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


def balance_of(devices: Sequence[WatchedDevice], stored_at_start_j: float, now_s: float) -> Batteries | None:
    """Return what all batteries took and gave until now; None if there are none.

    Args:
        devices: all of a run.
        stored_at_start_j: what all batteries held at the start [J].
        now_s: the end of the run [virtual s].
    """
    received_j, supplied_j, stored, levels = (array("d") for _ in range(4))
    for device in devices:
        device.settle(now_s)
        charge = device.charge
        if charge is not None:
            received_j.append(charge.received_j)
            supplied_j.append(charge.supplied_j)
            stored.append(charge.battery.stored_j)
            levels.append(charge.battery.level)
    if not levels:
        return None
    return Batteries(
        devices=len(levels),
        start_j=stored_at_start_j,
        received_j=math.fsum(received_j),
        supplied_j=math.fsum(supplied_j),
        end_j=math.fsum(stored),
        mean_level=float(np.mean(levels)),
    )
