"""Where devices are: at home, or out with their owners; drawn by address, in days that repeat."""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Bools, Floats, Names
from fedsim.config.classes import CLASSES
from fedsim.config.fields import DAY_S
from fedsim.devices.availability import BLOCK, Availability
from fedsim.devices.people.habits import Habits, Outings
from fedsim.devices.people.spans import (
    HOUR_S,
    Spans,
    less,
    spans_of,
    together,
    unrolled,
    windows_from,
)
from fedsim.elementary import exp
from fedsim.rng import stream

DAYS = 14
"""Days that are drawn and repeat, as many as those of `fedsim.devices.charging`."""
PERIOD_S = DAYS * DAY_S


def outings(habits: Habits, seed: int, block: int) -> Spans:
    """Return when the devices of a block of clients are out, if they are carried at all; spans may overlap.

    Args:
        habits: the figures.
        seed: address of the randomness.
        block: which block of clients; they become the owners 0, 1, ...
    """
    rng = stream(seed, "places", DAYS, block)
    works = rng.random(BLOCK) < habits.workers
    return together([_of(rng, habits.work, works), _of(rng, habits.other, np.ones(BLOCK, dtype=np.bool_))])


def _of(rng: np.random.Generator, kind: Outings, who: Bools) -> Spans:
    chance = rng.random((BLOCK, DAYS))
    z_start, z_length = rng.standard_normal((2, BLOCK, DAYS))
    on = np.isin(np.arange(DAYS) % 7, kind.days)
    owner, day = np.nonzero(who[:, np.newaxis] & on & (chance < kind.chance))
    hour = np.clip(kind.start_hour + kind.start_sigma_h * z_start[owner, day], 0.0, 24.0)
    length_s = HOUR_S * kind.length_h * exp(kind.length_sigma_ln * z_length[owner, day])
    return unrolled(owner, DAY_S * day + HOUR_S * hour, np.minimum(length_s, DAY_S), PERIOD_S)


def at_home(habits: Habits, n: int, seed: int, carried: Bools) -> Availability:
    """Return when the devices of n clients are at home: those that are not carried, always.

    Args:
        habits: the figures.
        n: number of clients; the first n of a larger draw are the same.
        seed: address of the randomness.
        carried: (n,) which devices go out with their owners.
    """
    parts = []
    for block, first in enumerate(range(0, n, BLOCK)):
        size = min(BLOCK, n - first)
        out = outings(habits, seed, block)
        away = carried[first : first + size][np.minimum(out.owner, size - 1)] & (out.owner < size)
        home = less(whole(size), out.only(away), size)
        parts.append(windows_from(home, size, PERIOD_S))
    return Availability.joined(parts)


def carried_by(tier: Names) -> Bools:
    """Return which devices go out with their owners, (n,): phones."""
    return np.isin(tier.astype(str), [name for name, implied in CLASSES.items() if implied.cellular])


def whole(n: int) -> Spans:
    """Return one span over the whole period for each of n owners."""
    return Spans(np.arange(n), np.zeros(n), np.full(n, PERIOD_S))


def share_by_hour(windows: Availability) -> Floats:
    """Return which share of the clients is in a window, by hour of the day, (24,), over all days of windows that repeat in days."""
    spans = spans_of(windows, 0, windows.n)
    edges_s: Floats = HOUR_S * np.arange(round(windows.period_s / HOUR_S) + 1, dtype=np.float64)
    inside_s = np.diff(_since(spans.start_s, edges_s) - _since(spans.stop_s, edges_s))
    return np.asarray((inside_s / (HOUR_S * windows.n)).reshape(-1, 24).mean(axis=0), dtype=np.float64)


def _since(times_s: Floats, edges_s: Floats) -> Floats:
    """Return the seconds from all times that have come until each edge, summed."""
    ordered = np.sort(times_s)
    come = np.searchsorted(ordered, edges_s)
    return np.asarray(come * edges_s - np.append(0.0, np.cumsum(ordered))[come], dtype=np.float64)
