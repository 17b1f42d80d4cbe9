"""Rows of a table that no run folder takes: in memory as long as they are few, else in temporary files."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np

from fedsim.arrays import Values
from fedsim.records import tables
from fedsim.records.rows import Row
from fedsim.records.stored.parts import PackedRows, write_part
from fedsim.records.stored.sorting import Part, PartOnDisk, RowsInMemory, sorted_table

IN_MEMORY = 2**18
"""Rows that are kept in memory, as arrays."""


class Spool:
    """Takes the rows of a table as they come.

    Attributes:
        rows: that were taken.
    """

    def __init__(self, table: str) -> None:
        """Begin with none."""
        self.rows = 0
        self._table = table
        self._packed = PackedRows(table)
        self._folder: Path | None = None
        self._parts: list[Part] = []

    def add(self, row: Row) -> None:
        """Take a row.

        Raises:
            OSError: the disk of temporary files does not take it.
        """
        self._packed.add(row)
        self.rows += 1
        if self.rows % IN_MEMORY == 0:
            self._put_aside()

    def _put_aside(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fedsim-rows-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = write_part(self._folder, self._table, len(self._parts), self._packed.take())
        self._parts.append(PartOnDisk(self._table, path))

    def written(self, name: str) -> Values:
        """Return a column, in the order in which the rows came, (rows,)."""
        parts = [*self._parts, self._rest()]
        return np.concatenate([part.read([name])[name] for part in parts])

    def columns(self) -> tables.Arrays:
        """Return the table in its order; a long one is on disk."""
        if not self._parts:
            return tables.joined(self._table, self._packed.parts())
        return sorted_table(self._table, [*self._parts, self._rest()], None)

    def _rest(self) -> Part:
        return RowsInMemory(tables.appended(self._table, self._packed.parts()))


def spooled(table: str, columns: tables.Columns) -> tables.Arrays:
    """Return a table in its order: as it is, or in a temporary file where it has more than `IN_MEMORY` rows.

    Raises:
        RunFolderError: the file cannot be written.
    """
    if tables.count(columns) <= IN_MEMORY:
        return columns
    return sorted_table(table, [RowsInMemory(columns)], None)
