"""Pensieve's cooked traces: two columns, seconds and Mbps; a row's rate is that of the time since the row above.

That is how its simulator reads them (Mao et al., SIGCOMM 2017: a chunk that ends at row i has used row i's
rate, and the first row's rate is never used).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import text_of
from fedsim.importers.numbers import number
from fedsim.importers.options import Options
from fedsim.importers.traces import Curve, of_curves
from fedsim.network.base import MBPS

ABOUT = "Pensieve cooked trace: two columns, seconds and Mbps, without a header"


def read(path: Path, options: Options) -> Curve:
    """Return the rate: the rate of row i from time i - 1 to time i.

    Raises:
        ProfileError: a line that is not two numbers, times that do not ascend, or fewer than two lines.
    """
    lines = text_of(path).splitlines()
    times: list[float] = []
    rates: list[float] = []
    for row, line in enumerate(lines, 1):
        where = f"{path} row {row}"
        cells = line.split()
        if len(cells) != 2:
            raise ProfileError(
                message(where, "needs 2 cells", got=len(cells), fix="write seconds, then Mbps")
            )
        time_s, mbps = number(where, "seconds", cells[0]), number(where, "mbps", cells[1], high=1e6)
        if times and time_s <= times[-1]:
            what = f"must be after row {row - 1} ({times[-1]:g} s)"
            raise ProfileError(
                message(f"{where}: seconds", what, got=time_s, fix="sort the lines, one a time")
            )
        times.append(time_s)
        rates.append(MBPS * mbps)
    if len(times) < 2:
        fix = "a rate needs the time before it"
        raise ProfileError(message(str(path), "has fewer than two rows", got=len(times), fix=fix))
    at = np.array(times) - times[0]
    return at, np.append(np.array(rates[1:]), rates[-1])


FORMATS = {"pensieve": of_curves(ABOUT, read)}
