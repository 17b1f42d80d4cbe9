"""Logs of 4G in Ghent and of HSDPA in Norway: a line a second or so, with the bytes since the line above.

Six columns, as published with the sets (van der Hooft et al., IEEE Communications Letters 2016; Riiser et al., MMSys
2013): time since the epoch, milliseconds since the start, latitude, longitude, bytes since the last line, milliseconds
since the last line. Their quotient is the rate since the line above. Time that no line accounts for carries nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import text_of
from fedsim.importers.numbers import number
from fedsim.importers.options import Options
from fedsim.importers.traces import Curve, of_curves

ABOUT = "Ghent 4G or Norwegian HSDPA log: epoch, elapsed ms, latitude, longitude, bytes, ms"
CELLS = 6
SLACK_S = 1.0
"""A line accounts for the time since the line above if no more than this is missing."""


def read(path: Path, options: Options) -> Curve:
    """Return the rate: bytes / ms of each line, from the line above to it; the first from its ms before it.

    Raises:
        ProfileError: a line that is not six cells, a cell that is no number, or times that do not ascend.
    """
    lines = text_of(path).splitlines()
    times: list[float] = []
    rates: list[float] = []
    for row, line in enumerate(lines, 1):
        at_s, lasted_s, n_bytes = _line(f"{path} row {row}", line)
        if not times:
            times.append(at_s - lasted_s)
        elif at_s <= times[-1]:
            what = f"must be after row {row - 1} ({1e3 * times[-1]:.0f} ms)"
            fix = "sort the lines, one a time"
            where = f"{path} row {row}: elapsed ms"
            raise ProfileError(message(where, what, got=round(1e3 * at_s), fix=fix))
        elif at_s - lasted_s - times[-1] > SLACK_S:
            times.append(at_s - lasted_s)
            rates.append(0.0)
        times.append(at_s)
        rates.append(n_bytes / lasted_s)
    if not rates:
        raise ProfileError(message(str(path), "is empty", fix="give a file of six columns"))
    return np.array(times) - times[0], np.append(rates, rates[-1])


def _line(where: str, line: str) -> tuple[float, float, float]:
    """Return when a line was written, what time it accounts for [s], and the bytes of that time."""
    cells = line.split()
    if len(cells) != CELLS:
        fix = "write epoch, elapsed ms, latitude, longitude, bytes, ms"
        raise ProfileError(message(where, "needs 6 cells", got=len(cells), fix=fix))
    at_s = number(where, "elapsed ms", cells[1]) / 1e3
    n_bytes = number(where, "bytes", cells[4], high=1e12)
    return at_s, number(where, "ms", cells[5], positive=True) / 1e3, n_bytes


FORMATS = {"ghent": of_curves(ABOUT, read)}
