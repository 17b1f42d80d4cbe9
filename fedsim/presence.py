"""When the clients of an experiment are there: always, while charging, or by a table; in which time zones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import hetero_profiles
from fedsim.availability import BLOCK, Availability, charging, windows_of
from fedsim.errors import ProfileError, message, nearest
from fedsim.fits import WORDS
from fedsim.profile_tables import read_window_table
from fedsim.rng import stream

if TYPE_CHECKING:
    from fedsim.experiment import PopulationConfig


def presence(config: PopulationConfig, seed: int) -> tuple[Availability, dict[str, str]]:
    """Return when the clients are there, and what was used, for the record of a run.

    Raises:
        ProfileError: no such file, a broken one, or time zones for windows that do not repeat.
    """
    n, used = config.clients, {"availability": config.availability}
    if config.availability == "always":
        return Availability.always(n), used
    if config.time_zones != (0.0,):
        used["time_zones"] = ", ".join(f"{zone:g}" for zone in config.time_zones)
    if config.availability == "charging":
        figures = hetero_profiles.locate("charging.yaml").read_bytes()
        used["availability_sha256"] = hashlib.sha256(figures).hexdigest()
        return in_time_zones(charging(n, seed), config.time_zones, seed), used
    path = Path(config.availability)
    if not path.is_file():
        words = WORDS["population.availability"]
        near = nearest(config.availability, words)
        fix = (
            near
            if near.startswith("did")
            else f"write {', '.join(words)}, or the path of a CSV or Parquet file"
        )
        text = message("population.availability", "no such file", got=config.availability, fix=fix)
        raise ProfileError(text)
    table = read_window_table(path)
    used["availability_sha256"] = table.sha256
    if config.time_zones != (0.0,) and math.isinf(table.period_s):
        what = "windows that do not repeat cannot be moved to other time zones"
        fix = "add the line `# period_s: 604800` to the table, or remove population.time_zones"
        raise ProfileError(message(f"{path}: period_s", what, fix=fix))
    return in_time_zones(windows_of(table, n, seed), config.time_zones, seed), used


def in_time_zones(there: Availability, zones_h: Sequence[float], seed: int) -> Availability:
    """Return the windows as people in several time zones have them: each client is in one, drawn by address.

    Args:
        there: windows by local time, which repeat.
        zones_h: hours by which local time is ahead of the clock, each as likely (repeat one that is more so):
            8 brings everything 8 hours earlier.
        seed: address of the randomness.

    Raises:
        ValueError: windows that do not repeat.
    """
    if all(zone == 0 for zone in zones_h):
        return there
    blocks = range(-(-there.n // BLOCK))
    drawn = np.concatenate(
        [stream(seed, "time-zone", block).integers(len(zones_h), size=BLOCK) for block in blocks]
    )
    return there.shifted(-3600.0 * np.asarray(zones_h, dtype=np.float64)[drawn[: there.n]])
