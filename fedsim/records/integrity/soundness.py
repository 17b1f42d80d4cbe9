"""What a value of a table must be by itself, whatever stands elsewhere: else nothing can be made of the table.

No view, page or audit has to look at this again: `load` refuses a folder whose tables hold such a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fedsim.arrays import Bools
from fedsim.records.rows import CAUSES, OUTCOMES
from fedsim.records.tables import TABLES, Arrays

MOST = 2**53
"""Whole numbers beyond it are none that a run counts: floats cannot tell them apart."""
NAMED: Mapping[str, tuple[str, ...]] = {
    "visits.outcome": OUTCOMES,
    "visits.away": ("", *CAUSES),
}
"""Columns whose names are known."""
FINITE = ("visits.dispatched_s", "visits.ended_s", "commits.time_s", "scores.time_s")
"""Columns in which every row has a number."""
NOT_NEGATIVE = (
    *("visits.order", "visits.client", "visits.visit", "visits.version", "visits.examples", "visits.tokens"),
    *("visits.dispatched_s", "visits.ended_s", "visits.down_bytes", "visits.up_bytes"),
    *("visits.serialized_down_bytes", "visits.serialized_up_bytes", "visits.rank"),
    *("commits.version", "commits.time_s", "commits.updates", "scores.version", "scores.time_s"),
    *("clients.rank", "clients.examples", "clients.tokens", "personal.client", "personal.seen"),
)
"""Columns without a number below 0."""


class Unsound(NamedTuple):
    """A value that stands for nothing: which table, row (from 0) and column, and what is wrong with it."""

    table: str
    row: int
    column: str
    what: str

    def __str__(self) -> str:
        return f"{self.table}, row {self.row}, column {self.column}: {self.what}"


def unsound(columns: Mapping[str, Arrays]) -> Iterator[Unsound]:
    """Yield the first unsound value of each column of the tables of a run."""
    for table, dtypes in TABLES.items():
        for column, dtype in dtypes.items():
            values, name = columns[table][column], f"{table}.{column}"
            if dtype == "int64":
                yield from _first(table, column, columns, np.abs(values) >= MOST, "is no count")
            if name in FINITE:
                yield from _first(table, column, columns, ~np.isfinite(values), "is not finite")
            if name in NOT_NEGATIVE:
                yield from _first(table, column, columns, values < 0, "is below 0")
            if name in NAMED:
                known = set(NAMED[name])
                wrong = np.fromiter((str(value) not in known for value in values), np.bool_, len(values))
                yield from _first(table, column, columns, wrong, "is no name of a known kind")
    yield from _clients(columns)


def _clients(columns: Mapping[str, Arrays]) -> Iterator[Unsound]:
    clients = columns["clients"]["client"]
    wrong = clients != np.arange(len(clients))
    yield from _first("clients", "client", columns, wrong, "is not the next client")
    if not len(clients) or wrong.any():
        return  # a run that has not begun, or one whose clients are not known
    for table in ("visits", "personal"):
        stranger = columns[table]["client"] >= len(clients)
        yield from _first(table, "client", columns, stranger, "is no client of the population")


def _first(
    table: str, column: str, columns: Mapping[str, Arrays], wrong: Bools, what: str
) -> Iterator[Unsound]:
    at = np.flatnonzero(wrong)
    if at.size:
        row = int(at[0])
        value = columns[table][column][row : row + 1].tolist()[0]
        yield Unsound(table, row, column, f"{what} (got {value!r})")
