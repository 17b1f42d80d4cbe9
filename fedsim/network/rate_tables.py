"""Tables of rate traces: `trace, time_s` and a rate for one or both directions, unit in the column's name.

A row's rate holds from its time on; a trace's last row says when it ends (its own rate is used by `hold` only).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.arrays import Floats, Ints
from fedsim.errors import Message, ProfileError
from fedsim.files.near_columns import nearly_named
from fedsim.files.text_file import shown
from fedsim.files.user_tables import Column, Rows, explaining, numbers, problems, read_rows
from fedsim.network.base import DIRECTIONS, KBPS, MBPS, Direction
from fedsim.network.traces import AtEnd, RateTrace

BYTES_PER_S_OF = {"bytes_per_s": 1.0, "kbps": KBPS, "mbps": MBPS}
"""Bytes per second of one of each unit: 1 kbps = 1,000 bit/s."""
RATE_COLUMNS = (
    Column("trace", "text", meaning="any label; client c has the c-th of the file", usual="a"),
    Column(
        "time_s",
        low=0.0,
        high=1e10,
        unit="s",
        meaning="from 0, ascending; the last row is the end of the trace",
        usual="0",
    ),
)
HIGHEST = 1e12
RATES_OF = tuple(
    Column(
        f"{direction}_{unit}",
        low=0.0,
        high=HIGHEST,
        unit=unit,
        meaning=f"rate of {direction}loads until the next row, headers included",
        usual=f"{2e6 / factor:g}",
    )
    for direction in DIRECTIONS
    for unit, factor in BYTES_PER_S_OF.items()
)
"""A table has one of these for each direction, or for one of them."""
SHORTEST_STEP_S = 5e-4
"""Steps that are shorter than a packet on average say nothing, and a loop of them would take for ever to follow."""
LOWEST_MEAN = 0.125
"""Bytes per second (one bit) below which no transfer ever ends."""


@dataclass(frozen=True)
class RateTable:
    """Traces of a file, in order of appearance.

    Attributes:
        path, sha256: the file.
        names: label of each trace.
        traces: direction -> one `RateTrace` a label; a direction that the file does not have is absent.
    """

    path: Path
    sha256: str
    names: tuple[str, ...]
    traces: dict[Direction, tuple[RateTrace, ...]]


def read_rate_table(path: Path, at_end: AtEnd) -> RateTable:
    """Return the traces of a table.

    Raises:
        ProfileError: the first problem, with its row and column.
    """
    rows = read_rows(path)
    first = next(rate_problems(rows), None)
    if first is not None:
        raise ProfileError(first)
    times_s, places = numbers(rows, "time_s"), _places(rows)
    if at_end == "hold":
        _refuse_a_dead_end(rows, places)
    traces: dict[Direction, tuple[RateTrace, ...]] = {}
    for direction in DIRECTIONS:
        for name, unit in _rate_columns(rows, direction):
            rates = BYTES_PER_S_OF[unit] * numbers(rows, name)
            traces[direction] = tuple(
                RateTrace(times_s[at], rates[at], at_end, f"{path}: trace {shown(label)}")
                for label, at in places.items()
            )
    return RateTable(path, rows.sha256, tuple(places), traces)


def _refuse_a_dead_end(rows: Rows, places: dict[str, Ints]) -> None:
    """Refuse to hold a rate of 0 for ever.

    Raises:
        ProfileError: a trace ends with it.
    """
    for direction in DIRECTIONS:
        for name, _ in _rate_columns(rows, direction):
            rates = numbers(rows, name)
            for label, at in places.items():
                if rates[at[-1]] == 0:
                    what = (
                        f"trace {shown(label)} ends with 0, and rates_at_end: hold would keep that for ever"
                    )
                    fix = "set population.rates_at_end: loop, or end the trace with a rate"
                    raise ProfileError(rows.say(int(at[-1]), name, what, 0.0, fix))


def _open(rows: Rows) -> list[Column]:
    """Return the columns of rates of a table, and those of a direction that it does not have."""
    without = [way for way in DIRECTIONS if not any(_rate_columns(rows, way))]
    return [c for c in RATES_OF if c.name in rows.cells or c.name.startswith(tuple(without))]


@explaining(*RATE_COLUMNS, *RATES_OF)
def rate_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of rates."""
    rates = [name for direction in DIRECTIONS for name, _ in _rate_columns(rows, direction)]
    if not rates:
        yield rows.say(
            None,
            "down_kbps",
            "there is no column of rates",
            sorted(rows.cells),
            f"add one of: {_known()}; or make a table of others' data by `fedsim profiles import`",
        )
    for direction in DIRECTIONS:
        twice = [name for name, _ in _rate_columns(rows, direction)]
        if len(twice) > 1:
            yield rows.say(None, direction, "has a rate in two units", twice, "keep one of the columns")
    bad_cells = list(problems(rows, (*RATE_COLUMNS, *(c for c in RATES_OF if c.name in rates))))
    yield from bad_cells
    if bad_cells:
        return
    yield from nearly_named(rows, RATE_COLUMNS, _open(rows))
    times_s, values = numbers(rows, "time_s"), {name: numbers(rows, name) for name in rates}
    for label, at in _places(rows).items():
        if times_s[at[0]] != 0:
            fix = "subtract it from all times of the trace"
            what = f"the first time of trace {label} must be 0"
            yield rows.say(int(at[0]), "time_s", what, float(times_s[at[0]]), fix)
        for k in np.flatnonzero(np.diff(times_s[at]) <= 0):
            what = f"must be after row {rows.numbers[at[k]]} of trace {label} ({times_s[at[k]]:g} s)"
            row = int(at[k + 1])
            yield rows.say(row, "time_s", what, float(times_s[row]), "sort the rows, one a time")
        if len(at) == 1:
            fix = "add a row at the time at which the trace ends"
            yield rows.say(int(at[0]), "time_s", f"trace {label} has no end", float(times_s[at[0]]), fix)
        if len(at) > 1 and not np.any(np.diff(times_s[at]) <= 0):
            for name in rates:
                unfit = unfit_rates(times_s[at], BYTES_PER_S_OF[name.partition("_")[2]] * values[name][at])
                if unfit is not None:
                    fix = "leave it out, or correct the rates"
                    yield rows.say(
                        int(at[0]), name, f"trace {label} {unfit}", float(values[name][at].max()), fix
                    )


def unfit_rates(times_s: Floats, bytes_per_s: Floats) -> str | None:
    """Return what is wrong with a trace of ascending times as a whole; None: nothing.

    Args:
        times_s: (k,) from its beginning to its end.
        bytes_per_s: (k,) the rate from each time on; the last is not looked at.
    """
    length_s = float(times_s[-1] - times_s[0])
    carried = float(np.sum(bytes_per_s[:-1] * np.diff(times_s)))
    if carried == 0:
        return "never carries anything"
    if carried / length_s < LOWEST_MEAN:
        return "carries less than a bit a second: no transfer would ever end"
    if length_s / (len(times_s) - 1) < SHORTEST_STEP_S:
        return f"has steps of less than {SHORTEST_STEP_S:g} s on average"
    return None


def _rate_columns(rows: Rows, direction: Direction) -> list[tuple[str, str]]:
    """Return the columns of a direction, with their units."""
    return [(f"{direction}_{unit}", unit) for unit in BYTES_PER_S_OF if f"{direction}_{unit}" in rows.cells]


def _known() -> str:
    return ", ".join(f"{direction}_{unit}" for direction in DIRECTIONS for unit in BYTES_PER_S_OF)


def _places(rows: Rows) -> dict[str, Ints]:
    """Return the rows of each trace, in order of appearance."""
    places: dict[str, list[int]] = {}
    for row, label in enumerate(rows.cells["trace"]):
        places.setdefault(str(label), []).append(row)
    return {label: np.array(at, dtype=np.int64) for label, at in places.items()}
