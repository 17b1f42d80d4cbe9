"""When the clients of an experiment are online: always, while charging, or by a table; in which time zones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import hetero_profiles
from fedsim.arrays import Floats, Names
from fedsim.config.words import no_such_file
from fedsim.devices.availability import BLOCK, Availability, OnlineTimes, windows_of
from fedsim.devices.charging import charging
from fedsim.devices.outages import interrupted
from fedsim.devices.tables import read_window_table
from fedsim.errors import ProfileError, message
from fedsim.rng import stream

if TYPE_CHECKING:
    from fedsim.config.population import PopulationConfig


def online_times(
    config: PopulationConfig, columns: dict[str, Names], seed: int
) -> tuple[OnlineTimes, dict[str, str]]:
    """Return when the clients are online, and what was used, for the record of a run.

    Args:
        config: `availability`, `time_zones` and `outages`.
        columns: `network` and `tier` of every client, for outages that they share.
        seed: address of the randomness.

    Raises:
        ProfileError: no such file, a broken one, or time zones for windows that do not repeat.
    """
    n, sources = config.clients, {"availability": config.availability}
    windows: OnlineTimes = Availability.always(n)
    if config.availability != "always":
        if config.time_zones != (0.0,):
            sources["time_zones"] = ", ".join(f"{zone:g}" for zone in config.time_zones)
        windows, sources["availability_sha256"] = windows_in_zones(
            "population.availability", config.availability, n, config.time_zones, seed
        )
    if config.outages is None:
        return windows, sources
    sources["outages"] = ", ".join(f"{name} {value}" for name, value in config.outages)
    return interrupted(windows, config.outages, columns, seed), sources


def windows_in_zones(
    field: str, source: str, n: int, zones_h: Sequence[float], seed: int
) -> tuple[Availability, str]:
    """Return the windows that a field asks for, in the clients' time zones, and the SHA-256 of their source.

    Args:
        field: name of the field, for errors.
        source: `charging` for the sessions of the generator, or the path of a table.
        n: number of clients.
        zones_h: as for `in_time_zones`.
        seed: address of the randomness.

    Raises:
        ProfileError: no such file, a broken one, or time zones for windows that do not repeat.
    """
    if source == "charging":
        figures = hetero_profiles.locate("charging.yaml").read_bytes()
        drawn = in_time_zones(charging(n, seed), zones_h, seed)
        return drawn, hashlib.sha256(figures).hexdigest()
    absent = no_such_file(field, source)
    if absent is not None:
        raise ProfileError(message(field, absent.what, got=source, fix=absent.fix))
    path = Path(source)
    table = read_window_table(path)
    if tuple(zones_h) != (0.0,) and math.isinf(table.period_s):
        what = "windows that do not repeat cannot be moved to other time zones"
        fix = "add the line `# period_s: 604800` to the table, or remove population.time_zones"
        raise ProfileError(message(f"{path}: period_s", what, fix=fix))
    return in_time_zones(windows_of(table, n, seed), zones_h, seed), table.sha256


def in_time_zones(windows: Availability, zones_h: Sequence[float], seed: int) -> Availability:
    """Return the windows as people in several time zones have them: each client is in one, drawn by address.

    Args:
        windows: by local time, which repeat.
        zones_h: hours by which local time is ahead of the clock, each as likely (repeat one that is more so):
            8 brings everything 8 hours earlier.
        seed: address of the randomness.

    Raises:
        ValueError: windows that do not repeat.
    """
    if all(zone == 0 for zone in zones_h):
        return windows
    return windows.shifted(-3600.0 * zones_of(windows.n, zones_h, seed))


def zones_of(n: int, zones_h: Sequence[float], seed: int) -> Floats:
    """Return each client's time zone, (n,) [h]: by how much its local time is ahead of the clock."""
    blocks = range(-(-n // BLOCK))
    drawn = np.concatenate(
        [stream(seed, "time-zone", block).integers(len(zones_h), size=BLOCK) for block in blocks]
    )
    zones: Floats = np.asarray(zones_h, dtype=np.float64)[drawn[:n]]
    return zones
