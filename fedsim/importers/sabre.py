"""SABRE's network traces: a JSON list of {duration_ms, bandwidth_kbps, latency_ms} (Spiteri et al., MMSys 2018)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedsim.errors import ProfileError, message
from fedsim.importers.numbers import number
from fedsim.importers.options import Options
from fedsim.importers.plain_json import read_json
from fedsim.importers.traces import Curve, of_curves
from fedsim.network.base import KBPS

ABOUT = (
    "SABRE network trace: JSON list of duration_ms, bandwidth_kbps, latency_ms (latency is checked, not kept)"
)
FIELDS = ("duration_ms", "bandwidth_kbps", "latency_ms")


def read(path: Path, options: Options) -> Curve:
    """Return the rate of the entries, one after another.

    Raises:
        ProfileError: not a list of such entries, a duration that is not positive, or a negative rate.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ProfileError(
            message(str(path), "is not a list of entries", fix=f"each needs {', '.join(FIELDS)}")
        )
    lengths, rates = np.empty(len(entries)), np.empty(len(entries))
    for row, entry in enumerate(entries):
        where = f"{path} row {row + 1}"
        if not isinstance(entry, dict):
            raise ProfileError(message(where, "is not a mapping", fix=f"give it {', '.join(FIELDS)}"))
        missing = next((field for field in FIELDS if field not in entry), None)
        if missing is not None:
            raise ProfileError(message(f"{where}: {missing}", "is missing", fix="add it"))
        lengths[row] = number(where, "duration_ms", entry["duration_ms"], positive=True) / 1000
        rates[row] = KBPS * number(where, "bandwidth_kbps", entry["bandwidth_kbps"], high=1e9)
        number(where, "latency_ms", entry["latency_ms"])
    return np.append(0.0, np.cumsum(lengths)), np.append(rates, rates[-1])


FORMATS = {"sabre": of_curves(ABOUT, read)}
