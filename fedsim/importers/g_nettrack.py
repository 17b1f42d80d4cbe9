"""G-NetTrack Pro's CSV, as in the 4G and 5G sets of University College Cork: a row a second with both bitrates in kbps.

Columns as published with the sets (Raca et al., MMSys 2018 and 2020; `uccmisl/5Gdataset`): `Timestamp` as
2019.12.16_13.40.04, `DL_bitrate` and `UL_bitrate`; the others are not read. What a phone sent and received is what its
app asked for: in a log of downloads, the downlink alone says what the link could do.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedsim.arrays import Floats
from fedsim.errors import ProfileError
from fedsim.files.user_tables import Column, Rows, numbers, problems, read_rows
from fedsim.importers.numbers import shown
from fedsim.importers.options import Options
from fedsim.importers.traces import Curve, of_traces
from fedsim.network.base import KBPS

ABOUT = "G-NetTrack Pro CSV (UCC 4G and 5G sets): Timestamp, DL_bitrate, UL_bitrate in kbps"
TIME = "%Y.%m.%d_%H.%M.%S"
LAST_S = 1.0
"""What the last row lasts: the logger writes once a second."""
COLUMNS = {"down": ("DL_bitrate",), "up": ("UL_bitrate",), "both": ("DL_bitrate", "UL_bitrate")}


def read(path: Path, options: Options) -> dict[str, list[Curve]]:
    """Return the rates that are asked for: each holds until the next row, rows of one second are averaged.

    Raises:
        ProfileError: a column that is missing, a cell that is no time or no rate, or rows that go back in time.
    """
    rows, wanted = read_rows(path), COLUMNS[options.direction or "both"]
    columns = (Column("Timestamp", "text"), *(Column(name, low=0.0, high=1e9) for name in wanted))
    first = next(problems(rows, columns), None)
    if first is not None:
        raise ProfileError(first)
    seconds, row_of = np.unique(_times(rows), return_inverse=True)
    count = np.bincount(row_of)
    at = np.append(seconds, seconds[-1] + LAST_S) - seconds[0]
    means = [KBPS * np.bincount(row_of, weights=numbers(rows, name)) / count for name in wanted]
    return {"": [(at, np.append(rates, rates[-1])) for rates in means]}


def _times(rows: Rows) -> Floats:
    """Return the rows' times, in seconds."""
    times = np.empty(len(rows.numbers))
    for row, cell in enumerate(rows.cells["Timestamp"]):
        try:
            times[row] = datetime.strptime(str(cell), TIME).replace(tzinfo=UTC).timestamp()
        except ValueError as problem:
            what, fix = "must be a time as 2019.12.16_13.40.04", "write year.month.day_hour.minute.second"
            raise ProfileError(rows.say(row, "Timestamp", what, shown(str(cell)), fix)) from problem
        if row and times[row] < times[row - 1]:
            what = f"must not be before row {rows.numbers[row - 1]}"
            raise ProfileError(rows.say(row, "Timestamp", what, shown(str(cell)), "sort the rows"))
    return times


FORMATS = {"g-nettrack": of_traces(ABOUT, read)}
