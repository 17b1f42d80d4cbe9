"""The Lumos5G set: a CSV of many runs, a row a second, the downlink's `Throughput` in Mbps.

Columns as published with version 1.0 (Narayanan et al., IMC 2020): `run_num` is the run, `seq_num` counts its seconds,
`Throughput` is what iPerf received over mmWave 5G; the others are not read. A trace a run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedsim.errors import ProfileError
from fedsim.files.user_tables import Column, numbers, problems, read_rows
from fedsim.importers.options import Options
from fedsim.importers.traces import Curve, of_traces
from fedsim.network.base import MBPS

ABOUT = "Lumos5G CSV: run_num, seq_num (seconds), Throughput in Mbps; a trace a run"
LAST_S = 1.0
COLUMNS = (
    Column("run_num", "text"),
    Column("seq_num", low=0.0, high=1e9),
    Column("Throughput", low=0.0, high=1e6),
)


def read(path: Path, options: Options) -> dict[str, list[Curve]]:
    """Return the rate of every run that carries anything: each row's holds until the next, the last one's a second.

    Raises:
        ProfileError: a column that is missing, a cell that is no number, or seconds of a run that do not ascend.
    """
    rows = read_rows(path)
    first = next(problems(rows, COLUMNS), None)
    if first is not None:
        raise ProfileError(first)
    seconds, rates = numbers(rows, "seq_num"), MBPS * numbers(rows, "Throughput")
    places: dict[str, list[int]] = {}
    for row, run in enumerate(rows.cells["run_num"]):
        at = places.setdefault(str(run), [])
        if at and seconds[row] <= seconds[at[-1]]:
            what = f"must be after row {rows.numbers[at[-1]]} of run {run} ({seconds[at[-1]]:g})"
            fix = "sort the rows, one a second"
            raise ProfileError(rows.say(row, "seq_num", what, float(seconds[row]), fix))
        at.append(row)
    curves = {}
    for run, at in places.items():
        if np.any(rates[at] > 0) or len(places) == 1:
            times = np.append(seconds[at], seconds[at[-1]] + LAST_S) - seconds[at[0]]
            curves[f"-{run}"] = [(times, np.append(rates[at], rates[at[-1]]))]
    return curves


FORMATS = {"lumos5g": of_traces(ABOUT, read)}
