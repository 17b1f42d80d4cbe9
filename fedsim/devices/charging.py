"""Charging windows, generated: when a phone hangs on its plug."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

import hetero_profiles
from fedsim.arrays import Floats, Ints
from fedsim.config.fields import DAY_S
from fedsim.devices.availability import BLOCK, Availability
from fedsim.elementary import exp
from fedsim.rng import stream


def charging(n: int, seed: int, days: int = 14, start_hour: float = 0.0) -> Availability:
    """Return when n phones charge: `days` drawn days that repeat.

    Sessions start as a Poisson process with a lognormal rate for each device and a hazard for each hour of
    the day; whether one is long depends on that hour. Overlapping sessions and those less than a minute
    apart are one. The figures and what they were fitted to are in hetero_profiles/charging.yaml.

    Args:
        n: number of clients; the first n of a larger draw are the same.
        seed: address of the randomness.
        days: whole days before the pattern repeats.
        start_hour: local hour of the day at virtual time 0.
    """
    figures = yaml.safe_load(hetero_profiles.locate("charging.yaml").read_text("utf-8"))
    period_s = days * DAY_S

    def of_block(block: int) -> Availability:
        owner, start_s, length_s = _sessions(figures, seed, block, days)
        clients = min(BLOCK, n - block * BLOCK)
        mine = owner < clients
        start_s = np.mod(start_s[mine] - 3600.0 * start_hour, period_s)
        stop_s, gap_s = start_s + length_s[mine], figures["merge_gap_s"]
        return Availability.from_windows(
            owner[mine], start_s, stop_s, n=clients, period_s=period_s, gap_s=gap_s
        )

    return Availability.joined(of_block(block) for block in range(-(-n // BLOCK)))


def _sessions(figures: Mapping[str, Any], seed: int, block: int, days: int) -> tuple[Ints, Floats, Floats]:
    """Return (device, start, length) of the raw sessions of one block of devices, which are counted from 0."""
    rng = stream(seed, "charging", days, block)
    z = rng.standard_normal(BLOCK)
    per_day = figures["start_rate_factor"] * exp(
        figures["start_rate_per_day_mu_ln"] + figures["start_rate_per_day_sigma_ln"] * z
    )
    hazard = np.tile(figures["start_hazard_by_hour"], days) / 24
    cumulated = np.append(0.0, np.cumsum(hazard))
    # A Poisson process: how many starts in all, then each placed by the hazard on its own.
    count = rng.poisson(per_day * cumulated[-1])
    device = np.repeat(np.arange(BLOCK, dtype=np.int64), count)
    draws = rng.random(len(device)) * cumulated[-1]
    start_s = 3600.0 * np.interp(draws, cumulated, np.arange(len(cumulated)))
    hour = (start_s // 3600).astype(np.int64) % 24
    long = rng.random(len(device)) < np.asarray(figures["long_probability_by_hour"])[hour]
    z = rng.standard_normal(len(device))
    length_s = np.where(
        long,
        exp(figures["long_session_s_mu_ln"] + figures["long_session_s_sigma_ln"] * z),
        exp(figures["short_session_s_mu_ln"] + figures["short_session_s_sigma_ln"] * z),
    )
    low_s = np.where(long, figures["long_session_min_s"], figures["short_session_min_s"])
    high_s = np.where(long, figures["session_max_s"], figures["short_session_max_s"])
    return device, start_s, np.clip(length_s, low_s, high_s)
