"""A table (CSV or Parquet) of `time_s, kbps`: each rate holds from its time until the next row's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import Column, numbers, problems, read_rows
from fedsim.importers.options import Options
from fedsim.importers.traces import Curve, of_curves
from fedsim.network.base import KBPS

ABOUT = "table of time_s,kbps: each rate holds until the next row; --last-s says how long the last one does"
COLUMNS = (Column("time_s", low=0.0, high=1e10), Column("kbps", low=0.0, high=1e9))


def read(path: Path, options: Options) -> Curve:
    """Return the rate, its time counted from the first row; the last row lasts as the others, or `last_s`.

    Raises:
        ProfileError: a cell that is no number, a time that does not come after the one above it, or rows
            of different lengths and no `last_s`.
    """
    rows = read_rows(path)
    first = next(problems(rows, COLUMNS), None)
    if first is not None:
        raise ProfileError(first)
    times, rates = numbers(rows, "time_s"), KBPS * numbers(rows, "kbps")
    lengths = np.diff(times)
    for row in np.flatnonzero(lengths <= 0):
        what = f"must be after row {rows.numbers[row]} ({times[row]:g} s)"
        raise ProfileError(
            rows.say(int(row) + 1, "time_s", what, float(times[row + 1]), "sort the rows, one a time")
        )
    last_s = options.last_s
    if last_s is None:
        if len(lengths) == 0 or not np.allclose(lengths, lengths[0], rtol=1e-6):
            what = "does not say how long its last row lasts: its rows are not equally far apart"
            raise ProfileError(message(str(path), what, fix="give --last-s SECONDS"))
        last_s = float(lengths[-1])
    return np.append(times, times[-1] + last_s) - times[0], np.append(rates, rates[-1])


FORMATS = {"kbps": of_curves(ABOUT, read, "last_s")}
