"""The columns of a table: of a long one on disk, each is read when it is asked for, and not kept."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsim.arrays import Values
from fedsim.errors import RunFolderError, message
from fedsim.files.parquet_file import rows_of_groups
from fedsim.records.tables import GROUP, TABLES, Columns, opened_parquet, read_parquet

if TYPE_CHECKING:
    import pandas as pd

KEPT_ROWS = GROUP
"""Rows up to which a table is read at once and kept."""


class StoredColumns(Mapping[str, Values]):
    """The columns of a table in a Parquet file.

    Attributes:
        table: its name.
        path: of the file.
        rows: that it has.
    """

    def __init__(self, table: str, path: Path) -> None:
        """Look at a file.

        Raises:
            RunFolderError: it is missing, unreadable, or has other columns.
        """
        self.table, self.path = table, path
        self._remove: weakref.finalize[[Path], StoredColumns] | None = None
        with opened_parquet(table, path) as (file, _, _):
            self._groups = rows_of_groups(file)
            self._state = _state(os.fstat(file.fileno()))
        self.rows = sum(self._groups)
        self._kept: Columns | None = read_parquet(table, path) if self.rows <= KEPT_ROWS else None

    @property
    def is_kept(self) -> bool:
        """Whether the table is in memory already."""
        return self._kept is not None

    def remove_at_end(self) -> None:
        """Remove the file when nobody has this object any more: it is of a reader, and not of the run."""
        self._remove = weakref.finalize(self, _removed, self.path)

    def move(self, path: Path) -> None:
        """Give the file another name, under which it stays.

        Raises:
            OSError: the disk does not take it.
        """
        self.path.replace(path)
        self.path = path
        if self._remove is not None:
            self._remove.detach()

    def __getitem__(self, name: str) -> Values:
        """Read a column, (rows,)."""
        return self.read([name])[name]

    def read(self, names: Sequence[str]) -> Columns:
        """Read some columns.

        Raises:
            KeyError: there is no such column.
            RunFolderError: the file has changed, is gone, or cannot be read.
        """
        if unknown := next((name for name in names if name not in TABLES[self.table]), None):
            raise KeyError(unknown)
        if self._kept is not None:
            return {name: self._kept[name] for name in names}
        self._check()
        return read_parquet(self.table, self.path, names)

    def blocks(self, names: Sequence[str] | None = None) -> Iterator[Columns]:
        """Read the rows in their order, some at a time: `GROUP` of them where fedsim wrote the file."""
        if self._kept is not None:
            yield self._kept if names is None else self.read(names)
            return
        for group in range(len(self._groups)):
            self._check()
            yield read_parquet(self.table, self.path, names, [group])

    def row(self, at: int) -> dict[str, object]:
        """Read one row, as plain values."""
        group = int(np.searchsorted(np.cumsum(self._groups), at, side="right"))
        first = sum(self._groups[:group])
        rows = self._kept if self._kept is not None else read_parquet(self.table, self.path, None, [group])
        place = at if self._kept is not None else at - first
        return {name: column[place : place + 1].tolist()[0] for name, column in rows.items()}

    def _check(self) -> None:
        try:
            same = _state(self.path.stat()) == self._state
        except OSError:
            same = False
        if not same:
            what = "is not the file any more that was loaded"
            raise RunFolderError(message(str(self.path), what, fix="load the run again"))

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a column."""
        return name in TABLES[self.table]

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the columns."""
        return iter(TABLES[self.table])

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(TABLES[self.table])


class FrameColumns(Mapping[str, Values]):
    """The columns of a data frame as arrays, each made when it is asked for."""

    def __init__(self, frame: pd.DataFrame) -> None:
        """Take the frame."""
        self._frame = frame

    def __getitem__(self, name: str) -> Values:
        """Return a column, (rows,)."""
        return np.asarray(self._frame[name].to_numpy())

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a column."""
        return name in self._frame.columns

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the columns."""
        return iter(map(str, self._frame.columns))

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._frame.columns)


def _state(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns


def _removed(path: Path) -> None:
    path.unlink(missing_ok=True)
