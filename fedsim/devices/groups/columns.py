"""Columns of a network table that say what lies between a client and its line: the Wi-Fi of its home, or its cell.

Their cells may be empty: a row that is not Wi-Fi has no hop, one that is not cellular no cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Bools, Floats
from fedsim.devices.schemas.networks import CELL_COLUMNS, HOP_COLUMNS
from fedsim.devices.stacks.hardware import KINDS
from fedsim.errors import Message
from fedsim.files.user_tables import Column, Rows, numbers, problems
from fedsim.network.base import MBPS

PAIRS = (("hop_mbps", "hop_sigma_ln"), ("cell_down_mbps", "cell_up_mbps"))
"""Columns of which a row fills both or none."""
OWNERS = {"hop_mbps": "wifi", "cell_down_mbps": "cellular"}
"""The `access` of rows that may fill a column."""
SOURCED = {
    "rate": "down_mbps",
    "spread": "down_sigma_ln",
    "rtt": "rtt_ms",
    "hop": "hop_mbps",
    "cell": "cell_down_mbps",
    "variation": "within_cv",
    "radio": "down_radio_w",
}
"""Group of cells -> a column of it; where a table has `<group>_kind`, rows that fill the column say kind and source."""


@dataclass(frozen=True)
class Between:
    """What lies between clients and lines, (rows,) each.

    Attributes:
        hop_bytes_per_s: median rate of the Wi-Fi; infinite: none.
        hop_sigma_ln: its spread over clients.
        cell_down_bytes_per_s, cell_up_bytes_per_s: what a cell carries; NaN: not known.
    """

    hop_bytes_per_s: Floats
    hop_sigma_ln: Floats
    cell_down_bytes_per_s: Floats
    cell_up_bytes_per_s: Floats

    @property
    def has_hops(self) -> bool:
        """Whether any row has."""
        return bool(np.any(np.isfinite(self.hop_bytes_per_s)))


def between_of(rows: Rows) -> Between:
    """Return these columns of a sound table."""
    hop, sigma_ln = (_numbers(rows, column.name) for column in HOP_COLUMNS)
    down, up = (MBPS * _numbers(rows, column.name) for column in CELL_COLUMNS)
    none = np.isnan(hop)
    return Between(np.where(none, np.inf, MBPS * hop), np.where(none, 0.0, sigma_ln), down, up)


def between_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of these columns, and of the kinds and sources of a table's cells."""
    for column in (*HOP_COLUMNS, *CELL_COLUMNS):
        if column.name in rows.cells:
            yield from problems(_filled(rows, column.name), (column,))
    for first, second in PAIRS:
        yield from _halves(rows, first, second)
    for name, access in OWNERS.items():
        if name in rows.cells and "access" in rows.cells:
            for row in np.flatnonzero(_is_filled(rows, name)):
                if (other := str(rows.cells["access"][row])) in (
                    "wifi",
                    "wired",
                    "cellular",
                ) and other != access:
                    what = f"is for rows with access {access}, and this one has {other}"
                    yield rows.say(int(row), name, what, rows.cells[name][row], "leave the cell empty")
    for group, figure in SOURCED.items():
        kind, source = f"{group}_kind", f"{group}_source"
        if kind in rows.cells and figure in rows.cells:
            columns = (Column(kind, "text", choices=KINDS), Column(source, "text"))
            yield from problems(_filled(rows, figure), columns)


def _halves(rows: Rows, first: str, second: str) -> Iterator[Message]:
    """Yield the rows that fill one of two columns that belong together."""
    filled = _is_filled(rows, first), _is_filled(rows, second)
    for row in np.flatnonzero(filled[0] != filled[1]):
        name, other = (second, first) if filled[0][row] else (first, second)
        yield rows.say(int(row), name, f"is empty, and {other} is not", fix=f"fill {name}, or empty {other}")


def _is_filled(rows: Rows, name: str) -> Bools:
    cells = rows.cells.get(name, [""] * len(rows.numbers))
    return np.array([cell not in ("", None) for cell in cells], dtype=np.bool_)


def _filled(rows: Rows, name: str) -> Rows:
    """Return the rows whose cell of this column is filled."""
    at = np.flatnonzero(_is_filled(rows, name)).tolist()
    cells = {column: [values[k] for k in at] for column, values in rows.cells.items()}
    return Rows(rows.path, [rows.numbers[k] for k in at], cells, rows.facts, rows.sha256)


def _numbers(rows: Rows, name: str) -> Floats:
    return numbers(rows, name) if name in rows.cells else np.full(len(rows.numbers), np.nan)
