"""What a device, network or availability table must hold, and every way in which one fails to.

Columns that are not named in `fedsim.devices.schemas` (notes, sources) are the reader's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedsim.arrays import Floats, Ints
from fedsim.config.fields import least_shown
from fedsim.devices.groups.columns import between_problems
from fedsim.devices.people.region_rows import region_problems
from fedsim.devices.schemas.devices import (
    DEVICE_COLUMNS,
    MOST_SHARE,
    OPTIONAL_DEVICE_COLUMNS,
    SHARE_COLUMN,
    SPEED_COLUMNS,
    SPEEDS,
)
from fedsim.devices.schemas.networks import (
    CELL_COLUMNS,
    HOP_COLUMNS,
    NETWORK_COLUMNS,
    OPTIONAL_NETWORK_COLUMNS,
    VARIATION_COLUMNS,
)
from fedsim.devices.schemas.people import LATEST_S, REGION_COLUMNS, WINDOW_COLUMNS, WINDOW_OWNERS
from fedsim.devices.stacks.hardware import (
    HARDWARE_COLUMNS,
    OPTIONAL_HARDWARE_COLUMNS,
    hardware_problems,
    is_hardware,
)
from fedsim.devices.stacks.measurements import MEASUREMENT_COLUMNS, measurement_problems
from fedsim.devices.stacks.memory_limits import LIMIT_COLUMNS
from fedsim.devices.stacks.memory_models import MEMORY_COLUMNS, memory_problems
from fedsim.devices.stacks.table import MEMORY_COLUMN, STACK_COLUMNS, stack_problems
from fedsim.errors import Message, ProfileError
from fedsim.files.near_columns import nearly_named
from fedsim.files.plain_number import plain_number
from fedsim.files.user_tables import Checks, Column, Rows, explaining, numbers, problems, read_rows
from fedsim.network.rate_tables import RATE_COLUMNS, RATES_OF, rate_problems

OPEN_NETWORK_COLUMNS = (*VARIATION_COLUMNS, *OPTIONAL_NETWORK_COLUMNS, *HOP_COLUMNS, *CELL_COLUMNS)
"""Columns of networks that a table of one's own may leave out."""


@explaining(*DEVICE_COLUMNS, *OPTIONAL_DEVICE_COLUMNS, SHARE_COLUMN)
def device_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a device table."""
    yield from problems(
        rows, (*DEVICE_COLUMNS, *_present(rows, OPTIONAL_DEVICE_COLUMNS), *_share_checks(rows))
    )
    yield from nearly_named(rows, DEVICE_COLUMNS, OPTIONAL_DEVICE_COLUMNS)
    yield from _ordered(rows, *SPEEDS[:2])
    yield from _ordered(rows, *SPEEDS[1:])
    yield from _ordered(rows, "idle_w", "train_w")
    yield from _share_sums(rows)


@explaining(*HARDWARE_COLUMNS, *OPTIONAL_HARDWARE_COLUMNS, *OPTIONAL_DEVICE_COLUMNS, SHARE_COLUMN)
def hardware_table_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table that says what devices are."""
    yield from hardware_problems(rows)
    optional = (*OPTIONAL_HARDWARE_COLUMNS, *OPTIONAL_DEVICE_COLUMNS)
    yield from nearly_named(rows, HARDWARE_COLUMNS, optional)
    yield from problems(rows, (*_present(rows, OPTIONAL_DEVICE_COLUMNS), *_share_checks(rows)))
    yield from _ordered(rows, "idle_w", "train_w")
    yield from _share_sums(rows)


@explaining(*LIMIT_COLUMNS)
def limit_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of memory limits."""
    yield from problems(rows, LIMIT_COLUMNS)


@explaining(
    *(*NETWORK_COLUMNS, *OPEN_NETWORK_COLUMNS),
    SHARE_COLUMN,
)
def network_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a network table."""
    optional = _present(rows, (*VARIATION_COLUMNS, *OPTIONAL_NETWORK_COLUMNS))
    yield from problems(rows, (*NETWORK_COLUMNS, *optional, *_share_checks(rows)))
    yield from between_problems(rows)
    yield from nearly_named(rows, NETWORK_COLUMNS, OPEN_NETWORK_COLUMNS)
    for name, other in itertools.permutations((column.name for column in OPTIONAL_NETWORK_COLUMNS), 2):
        if name not in rows.cells and other in rows.cells:
            what = f"the column is missing, and {other} is there"
            yield rows.say(None, name, what, fix=f"add it, or remove {other}: a tail has both")
    yield from _share_sums(rows)
    if {"outage_share", "outage_mean_s"} <= set(rows.cells):
        share, mean_s = numbers(rows, "outage_share"), numbers(rows, "outage_mean_s")
        for row in np.flatnonzero(mean_s * (1 - share) < 1 - 1e-12):
            what = f"must be at least 1 / (1 - outage_share) = {least_shown(1 / (1 - share[row]))}"
            fix = "outages, and the times between them, last at least a second"
            yield rows.say(int(row), "outage_mean_s", what, float(mean_s[row]), fix)


@explaining(*SPEED_COLUMNS)
def speed_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of measured speeds."""
    yield from problems(rows, SPEED_COLUMNS)
    seen: dict[tuple[str, ...], int] = {}
    cells = (map(str, rows.cells.get(name, [])) for name in ("device", "model", "stack"))
    for row, key in enumerate(zip(*cells, strict=False)):
        if key in seen:
            what = f"is in row {rows.numbers[seen[key]]} already, for the same device and model"
            yield rows.say(row, "stack", what, key[2], "keep one of them, or name another stack")
        seen.setdefault(key, row)


@explaining(*WINDOW_COLUMNS, *WINDOW_OWNERS)
def window_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of windows."""
    owner = "trace" if "trace" in rows.cells and "client" not in rows.cells else "client"
    column = next(column for column in WINDOW_OWNERS if column.name == owner)
    period_s = period_of(rows)
    if period_s is not None and not (0 < period_s <= LATEST_S):
        what = "must be a number greater than 0"
        if LATEST_S < period_s < math.inf:
            what = f"must be at most {LATEST_S:g}"
        yield rows.say(None, "period_s", what, rows.facts["period_s"], "write `# period_s: 604800`")
        return
    bad_cells = list(problems(rows, (column, *WINDOW_COLUMNS)))
    yield from bad_cells
    if bad_cells:
        return
    start, stop = numbers(rows, "start_s"), numbers(rows, "stop_s")
    for row in np.flatnonzero(stop <= start):
        what = f"must be after start_s = {start[row]:g}"
        yield rows.say(int(row), "stop_s", what, float(stop[row]), "give windows a positive length")
    if period_s is not None:
        for row in np.flatnonzero(stop > period_s):
            fix = "split the window at the end of the period"
            what = f"lies beyond the period of {period_s:g} s"
            yield rows.say(int(row), "stop_s", what, float(stop[row]), fix)
    if owner == "client":
        client = numbers(rows, "client")
        for row in np.flatnonzero(client != np.floor(client)):
            yield rows.say(int(row), "client", "must be a whole number", float(client[row]), "count from 0")
    yield from _overlaps(rows, owners(rows), start, stop)


def _overlaps(rows: Rows, owner: Ints, start: Floats, stop: Floats) -> Iterator[Message]:
    order = np.lexsort((stop, start, owner))
    earlier, later = order[:-1], order[1:]
    for k in np.flatnonzero((owner[earlier] == owner[later]) & (start[later] < stop[earlier])):
        other = rows.numbers[earlier[k]]
        what = f"overlaps the window of row {other}, which ends at {stop[earlier[k]]:g}"
        yield rows.say(int(later[k]), "start_s", what, float(start[later[k]]), "join the two windows")


def owners(rows: Rows) -> Ints:
    """Return whose each window is: the client's number, or the trace's place in order of appearance."""
    if "client" in rows.cells:
        return numbers(rows, "client").astype(np.int64)
    places: dict[str, int] = {}
    return np.array([places.setdefault(str(t), len(places)) for t in rows.cells["trace"]], dtype=np.int64)


def period_of(rows: Rows) -> float | None:
    """Return the period that the file states [s], NaN if it is no number, None if there is none."""
    text = rows.facts.get("period_s")
    return None if text is None else plain_number(text)


def share_columns(rows: Rows) -> list[str]:
    """Return the names of the columns that say how often each row occurs."""
    return [name for name in rows.cells if name == "share" or name.startswith("share_")]


def _present(rows: Rows, columns: tuple[Column, ...]) -> list[Column]:
    return [column for column in columns if column.name in rows.cells]


def _share_checks(rows: Rows) -> list[Column]:
    return [replace(SHARE_COLUMN, name=name) for name in share_columns(rows)]


def _share_sums(rows: Rows) -> Iterator[Message]:
    if not share_columns(rows):
        yield rows.say(
            None, "share", "the column is missing", fix="add it: how often each row occurs, any unit"
        )
    for name in share_columns(rows):
        values = numbers(rows, name)
        if np.all(values == 0):
            yield rows.say(None, name, "all shares are 0", fix="give at least one row a positive share")
        largest = values.max(initial=0.0, where=values <= MOST_SHARE)
        for row in np.flatnonzero((values > 0) & (values * MOST_SHARE < largest)).tolist():
            what = f"is less than {1 / MOST_SHARE:g} of the largest share"
            yield rows.say(row, name, what, float(values[row]), "write 0 for a row that nobody has")


def _ordered(rows: Rows, low: str, high: str) -> Iterator[Message]:
    if low in rows.cells and high in rows.cells:
        small, large = numbers(rows, low), numbers(rows, high)
        for row in np.flatnonzero(small > large):
            what = f"must be at least {low} = {small[row]:g}"
            yield rows.say(int(row), high, what, float(large[row]), f"swap them, or correct {high}")


@dataclass(frozen=True)
class TableKind:
    """One kind of table: its columns, and the checks that they must pass.

    Attributes:
        name: as `fedsim profiles new` has it.
        columns: those that it must have.
        optional: those that it may have.
        checks: all that can be wrong with one.
    """

    name: str
    columns: tuple[Column, ...]
    checks: Checks
    optional: tuple[Column, ...] = ()


KINDS = (
    TableKind("devices", DEVICE_COLUMNS, device_problems, optional=(*OPTIONAL_DEVICE_COLUMNS, SHARE_COLUMN)),
    TableKind(
        "networks",
        NETWORK_COLUMNS,
        network_problems,
        optional=(*OPEN_NETWORK_COLUMNS, SHARE_COLUMN),
    ),
    TableKind("windows", WINDOW_COLUMNS, window_problems, optional=WINDOW_OWNERS),
    TableKind("rates", RATE_COLUMNS, rate_problems, optional=RATES_OF),
    TableKind("speeds", SPEED_COLUMNS, speed_problems),
    TableKind(
        "hardware",
        HARDWARE_COLUMNS,
        hardware_table_problems,
        optional=(*OPTIONAL_HARDWARE_COLUMNS, *OPTIONAL_DEVICE_COLUMNS, SHARE_COLUMN),
    ),
    TableKind("stacks", STACK_COLUMNS, stack_problems, optional=(MEMORY_COLUMN,)),
    TableKind("measurements", MEASUREMENT_COLUMNS, measurement_problems),
    TableKind("memory limits", LIMIT_COLUMNS, limit_problems),
    TableKind("memory models", MEMORY_COLUMNS, memory_problems),
    TableKind("regions", REGION_COLUMNS, region_problems),
)
"""What a table may be, in the order in which it is tried."""


def check(path: Path | str) -> list[str]:
    """Return every problem of a table, one message each; an empty list means that it can be used.

    What the file is meant to be is told by its columns.
    """
    try:
        rows = read_rows(Path(path))
    except ProfileError as problem:
        return [str(problem)]
    kind = kind_of(rows)
    if kind is None:
        fix = "; ".join(f"{kind.name}: {', '.join(column.name for column in kind.columns)}" for kind in KINDS)
        what = "is neither a device, nor a network, nor an availability table, nor one of rates, speeds, hardware, stacks, measurements or regions"
        fix = f"give it the columns of one ({fix}), or begin with `fedsim profiles new`"
        return [str(rows.say(None, "", what, got=sorted(rows.cells), fix=fix))]
    return [*map(str, kind.checks(rows))]


def kind_of(rows: Rows) -> TableKind | None:
    """Return what a table is meant to be: the kind of which it has the largest part of the columns; None: of no kind."""
    if is_hardware(rows):
        return next(kind for kind in KINDS if kind.name == "hardware")
    parts = [sum(c.name in rows.cells for c in kind.columns) / len(kind.columns) for kind in KINDS]
    return KINDS[int(np.argmax(parts))] if max(parts) > 0 else None
