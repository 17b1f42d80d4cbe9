"""Parts of a table, in the order in which they were written, become one table in its own order: in bounded memory."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from fedsim.arrays import Ints, Values
from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import beside_of
from fedsim.records import tables
from fedsim.records.stored.columns import StoredColumns
from fedsim.records.stored.parts import parts_of, rows_of_part
from fedsim.records.tables import ORDER, TABLES, Columns

TRIES = 5
"""How often parts are listed anew that change while they are read."""
_COUNT = itertools.count()


class Part(Protocol):
    """Rows of a table that can be read more than once."""

    @property
    def rows(self) -> int:
        """How many."""

    def read(self, names: Sequence[str]) -> Columns:
        """Read some columns, in the order in which they were written."""


class RowsInMemory:
    """Rows that are in memory."""

    def __init__(self, columns: Columns) -> None:
        """Take them."""
        self.rows, self._columns = tables.count(columns), columns

    def read(self, names: Sequence[str]) -> Columns:
        """Return some columns."""
        return {name: self._columns[name] for name in names}


class PartOnDisk:
    """Rows that are in a file, and in memory only while they are read."""

    def __init__(self, table: str, path: Path) -> None:
        """Take a file of a table, in whatever order."""
        self._table, self._path = table, path
        self.rows = tables.count(tables.read_parquet(table, path, ORDER[table]))

    def read(self, names: Sequence[str]) -> Columns:
        """Read some columns."""
        return tables.read_parquet(self._table, self._path, names)


def read_parts(
    folder: Path, table: str, *, torn: bool = False, scratch: Path | None = None
) -> StoredColumns | None:
    """Return a table that is in parts, in its order; None: it is not in parts.

    It is written to a file of this process, which is gone with what is returned unless that is moved.

    Args:
        folder: of the run.
        table: its name.
        torn: whether lines may be torn anywhere.
        scratch: folder for that file; None: that of the system's temporary files.

    Raises:
        RunFolderError: the parts cannot be read, or the file cannot be written.
    """
    for _ in range(TRIES):
        paths = parts_of(folder, table)
        if not paths:
            return None
        try:
            parts = _parts(table, [*paths, folder / f"{table}.jsonl"], torn=torn)
        except RunFolderError:
            if parts_of(folder, table) == paths:
                raise
            continue
        if parts_of(folder, table) == paths:  # else the run has just made another one
            return sorted_table(table, parts, scratch)
    raise RunFolderError(message(str(folder), "its tables grow faster than they are read", fix="try again"))


def _parts(table: str, paths: Sequence[Path], *, torn: bool) -> list[Part]:
    parts: list[Part] = []
    for path in paths:
        if path.suffix == ".parquet":
            parts.append(PartOnDisk(table, path))
        elif path.is_file() or path != paths[-1]:
            parts.append(RowsInMemory(rows_of_part(table, path, torn=torn)))
    return parts


def sorted_table(table: str, parts: Sequence[Part], scratch: Path | None) -> StoredColumns:
    """Return parts as one table in its order, in a file that is gone with what is returned unless that is moved.

    Raises:
        RunFolderError: the file cannot be written.
    """
    inner = Path(tempfile.gettempdir()) if scratch is None or not os.access(scratch, os.W_OK) else scratch
    path = beside_of(inner / f"{table}.parquet", f"-{next(_COUNT)}")
    try:
        write_sorted(table, parts, path)
    except OSError as problem:
        what = f"a table cannot be put in order ({problem.strerror})"
        fix = f"free some space in {inner}"
        raise RunFolderError(message(str(path), what, fix=fix)) from problem
    columns = StoredColumns(table, path)
    columns.remove_at_end()
    return columns


def write_sorted(table: str, parts: Sequence[Part], path: Path) -> None:
    """Write a table of parts, sorted stably: the bytes of `tables.write_parquet` of the joined parts.

    Only what is sorted by is in memory of all rows, and everything of one row group.

    Raises:
        OSError: the disk does not take it.
    """
    index = order_of(table, parts)
    starts = np.cumsum([0, *(part.rows for part in parts)])
    groups = (index[at : at + tables.GROUP] for at in range(0, max(len(index), 1), tables.GROUP))
    tables.write_groups(table, (_gathered(table, parts, starts, wanted) for wanted in groups), path)


def order_of(table: str, parts: Sequence[Part]) -> Ints:
    """Return the numbers of all rows in the table's order, (rows,)."""
    keys = [np.concatenate([part.read([name])[name] for part in parts]) for name in reversed(ORDER[table])]
    return np.argsort(keys[0], kind="stable") if len(keys) == 1 else np.lexsort(keys)


def _gathered(table: str, parts: Sequence[Part], starts: Ints, wanted: Ints) -> Mapping[str, Values]:
    """Return rows by their numbers, each part read once."""
    names = [*TABLES[table]]
    which = np.searchsorted(starts, wanted, side="right") - 1
    rows: dict[str, Values] = {}
    for number in np.unique(which).tolist():
        at = np.flatnonzero(which == number)
        columns = parts[number].read(names)
        for name in names:
            taken = columns[name][wanted[at] - starts[number]]
            if name not in rows:
                rows[name] = np.empty(len(wanted), dtype=taken.dtype)
            rows[name][at] = taken
    return rows or {name: column[:0] for name, column in tables.pack(table, []).items()}
