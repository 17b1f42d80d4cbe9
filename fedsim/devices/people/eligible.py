"""Windows in which a device is idle, charging and on an unmetered network: what production systems ask for.

A device is charging by the sessions of `fedsim.devices.charging` (one on the mains always is), at home unless its owner has taken it
out, on an unmetered network while it is at home and the home has Wi-Fi, and idle unless its owner uses it, or did a while ago. So
nights count most, phones of homes without Wi-Fi never take part, and boards and desktops take part by day, too. The windows lie
inside those of `availability: charging` of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Bools, Names
from fedsim.config.classes import CLASSES
from fedsim.devices.availability import BLOCK, Availability
from fedsim.devices.charging import charging
from fedsim.devices.people.habits import Habits, Use
from fedsim.devices.people.places import DAYS, PERIOD_S, carried_by, outings, whole
from fedsim.devices.people.spans import (
    HOUR_S,
    Spans,
    less,
    spans_of,
    together,
    windows_from,
    without_short,
)
from fedsim.elementary import exp
from fedsim.rng import stream


@dataclass(frozen=True, eq=False)
class Circumstances:
    """How the owners of a population have their devices, (n,) each.

    Attributes:
        carried: the device goes out with its owner.
        on_mains: it has no battery.
        unmetered: its home has a network that costs nothing by the byte.
    """

    carried: Bools
    on_mains: Bools
    unmetered: Bools


def circumstances(tier: Names, unmetered: Bools) -> Circumstances:
    """Return how people have devices of these classes: phones are carried, devices that are not portable are on the mains.

    Args:
        tier: (n,) class of each client's device.
        unmetered: (n,) whose home has a network that costs nothing by the byte.
    """
    fixed = [name for name, implied in CLASSES.items() if not implied.portable]
    return Circumstances(carried_by(tier), np.isin(tier.astype(str), fixed), unmetered)


def eligible(habits: Habits, devices: Circumstances, seed: int) -> Availability:
    """Return when the devices are idle, charging and on an unmetered network.

    Args:
        habits: the figures of owners.
        devices: how they have their devices; the first n of a larger population are the same.
        seed: address of the randomness.
    """
    n = len(devices.carried)
    plugged = charging(n, seed, DAYS)

    def of_block(block: int) -> Availability:
        first, end = block * BLOCK, min((block + 1) * BLOCK, n)
        here = Circumstances(
            devices.carried[first:end], devices.on_mains[first:end], devices.unmetered[first:end]
        )
        left = _of_block(habits, here, spans_of(plugged, first, end), (seed, block))
        return without_short(windows_from(left, end - first, PERIOD_S), habits.shortest_s)

    return Availability.joined(of_block(block) for block in range(-(-n // BLOCK)))


def _of_block(habits: Habits, devices: Circumstances, plugged: Spans, address: tuple[int, int]) -> Spans:
    """Return the stretches of one block of devices, its clients the owners 0, 1, ..."""
    size = len(devices.carried)
    charges = _of_owners(plugged, devices.unmetered & ~devices.on_mains)
    mains = _of_owners(whole(size), devices.unmetered & devices.on_mains)
    out = _of_owners(outings(habits, *address), devices.carried & devices.unmetered)
    used = _of_owners(bouts(habits.use, *address), devices.unmetered)
    return less(less(together([charges, mains]), out, size), used, size)


def _of_owners(spans: Spans, who: Bools) -> Spans:
    """Return the spans of some owners, of those there are."""
    kept = np.flatnonzero(spans.owner < len(who))
    return spans.only(kept[who[spans.owner[kept]]])


def bouts(use: Use, seed: int, block: int) -> Spans:
    """Return when the owners of a block use their devices, and a while after; spans may overlap."""
    rng = stream(seed, "use", DAYS, block)
    factor = exp(use.device_sigma_ln * rng.standard_normal(BLOCK) - use.device_sigma_ln**2 / 2)
    by_hour = np.tile(np.asarray(use.bouts_per_hour, dtype=np.float64), DAYS)
    counts = rng.poisson(factor[:, np.newaxis] * by_hour)
    owner = np.repeat(np.arange(BLOCK, dtype=np.int64), counts.sum(axis=1))
    hour = np.repeat(np.tile(np.arange(len(by_hour)), BLOCK), counts.ravel())
    start_s = HOUR_S * (hour + rng.random(len(owner)))
    stop_s = start_s + use.mean_s * rng.standard_exponential(len(owner)) + use.idle_after_s
    over = np.flatnonzero(stop_s > PERIOD_S)
    beyond = Spans(owner[over], np.zeros(len(over)), np.minimum(stop_s[over] - PERIOD_S, PERIOD_S))
    return together([Spans(owner, start_s, np.minimum(stop_s, PERIOD_S)), beyond])
