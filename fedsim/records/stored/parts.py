"""A table of a run that goes: lines, of which every so many become a Parquet file beside them.

While a run goes, a row is a line in `TABLE.jsonl`, which a kill does not lose. Once there are `PART` of them, the file becomes
`unfolded/TABLE-000000.jsonl`, and then the same rows in columns, `unfolded/TABLE-000000.parquet`; the lines begin anew. A part is there as
lines, as columns, or, if the process ended just then, as both, which are the same rows.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import beside_of, sync_folder
from fedsim.files.lines import append_line
from fedsim.records import tables
from fedsim.records.rows import Row, plain
from fedsim.records.stored.lines import joined_lines

FOLDER = "unfolded"
PART = 65_536
"""Rows of a part."""
PACKED = 8192
"""Rows in memory that are packed into arrays, which are a tenth of their size."""
_NAME = re.compile(r"([a-z]+)-([0-9]+)\.(jsonl|parquet)")


class PackedRows:
    """Rows of a table in the order in which they come, most of them packed into arrays."""

    def __init__(self, table: str) -> None:
        """Begin with none."""
        self._table = table
        self._rows: list[Row] = []
        self._parts: list[tables.Columns] = []

    def add(self, row: Row) -> None:
        """Take a row."""
        self._rows.append(row)
        if len(self._rows) == PACKED:
            self._pack()

    def parts(self) -> Sequence[tables.Columns]:
        """Return all that were taken."""
        self._pack()
        return self._parts

    def take(self) -> tables.Columns:
        """Return all that were taken, and forget them."""
        columns = tables.appended(self._table, self.parts())
        self._parts.clear()
        return columns

    def _pack(self) -> None:
        if self._rows:
            self._parts.append(tables.pack(self._table, self._rows))
            self._rows.clear()


class RowFile:
    """The rows of one table in the folder of a run that goes."""

    def __init__(self, folder: Path, table: str, append: Callable[[int, bytes], None] = append_line) -> None:
        """Take a folder; a run that goes on has rows there already.

        Args:
            folder: of the run.
            table: its name.
            append: appends a line to a file of this descriptor.

        Raises:
            RunFolderError: the rows that are there cannot be read.
        """
        self._folder, self._table, self._append = folder, table, append
        self._lines = folder / f"{table}.jsonl"
        self._file: BinaryIO | None = None
        self._packed = PackedRows(table)
        self._earlier = [joined_lines(table, self._lines, in_order=False)] if self._lines.is_file() else []
        self._rows = sum(map(tables.count, self._earlier))  # lines that are in no part yet
        self._next = 1 + max((number for number, _ in _numbered(folder, table)), default=-1)
        self._is_whole = True  # whether what is packed here are the lines that are there

    def append(self, row: Row) -> None:
        """Append a row.

        Raises:
            RunError: it is of the wrong types.
            OSError: the disk does not take it.
        """
        if self._file is None:
            tables.pack(self._table, [row])  # a wrong type shows at the first row, not at the fold
            # Unbuffered: a line is one write to the system, so a kill never loses an earlier one.
            self._file = self._lines.open("ab", buffering=0)
        self._append(self._file.fileno(), (tables.encode(plain(row)) + "\n").encode())
        self._packed.add(row)
        self._rows += 1
        if self._rows >= PART:
            self._make_part()

    def _make_part(self) -> None:
        """Let the lines become columns."""
        self.sync()
        self.close()
        rows = self._packed.take()
        columns = tables.appended(self._table, [*self._earlier, rows])
        if not self._is_whole:  # something has ended this the last time
            columns = joined_lines(self._table, self._lines, in_order=False)
        self._is_whole = False
        number, self._next = self._next, self._next + 1  # no number is used twice
        write_part(self._folder, self._table, number, columns, self._lines)
        self._earlier, self._rows, self._is_whole = [], 0, True

    def sync(self) -> None:
        """Have on the disk what was written.

        Raises:
            OSError: the disk does not take it.
        """
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; rows may be appended all the same."""
        if self._file is not None:
            self._file.close()
            self._file = None


def write_part(
    folder: Path, table: str, number: int, columns: tables.Columns, lines: Path | None = None
) -> Path:
    """Write a part of a table, which takes the place of a file of lines; returns its file.

    Raises:
        OSError: the disk does not take it.
    """
    inner = folder / FOLDER
    inner.mkdir(exist_ok=True)
    part = inner / f"{table}-{number:06}.parquet"
    if lines is not None:
        lines.replace(part.with_suffix(".jsonl"))
    tables.write_parquet(table, columns, part)
    sync_folder(inner)
    part.with_suffix(".jsonl").unlink(missing_ok=True)
    return part


def has_parts(folder: Path) -> bool:
    """Tell whether a run folder holds parts of tables."""
    return os.path.lexists(folder / FOLDER)


def parts_of(folder: Path, table: str) -> list[Path]:
    """Return the files of the parts of a table, in the order in which they were written.

    Raises:
        RunFolderError: their folder is none, or a link.
    """
    columns = {number: path for number, path in _numbered(folder, table) if path.suffix == ".parquet"}
    lines = {number: path for number, path in _numbered(folder, table) if path.suffix == ".jsonl"}
    return [path for _, path in sorted((lines | columns).items())]


def _numbered(folder: Path, table: str) -> list[tuple[int, Path]]:
    inner = folder / FOLDER
    if not os.path.lexists(inner):
        return []
    if inner.is_symlink() or not inner.is_dir():
        raise RunFolderError(message(str(inner), "is no folder"))
    matches = [(_NAME.fullmatch(path.name), path) for path in inner.iterdir()]
    return [(int(match[2]), path) for match, path in matches if match is not None and match[1] == table]


def rows_of_part(table: str, path: Path, *, torn: bool = False) -> tables.Columns:
    """Return the rows of a part, or of lines, in the order in which they were written.

    Raises:
        RunFolderError: it cannot be read.
    """
    if path.suffix == ".parquet":
        return tables.read_parquet(table, path)
    return joined_lines(table, path, torn=torn, in_order=False)


def drop(folder: Path, names: Sequence[str]) -> None:
    """Remove the lines and parts of tables, which have become Parquet: at any moment a table is there once, or both ways.

    Raises:
        OSError: something cannot be removed.
    """
    inner = folder / FOLDER
    for table in names:
        lines = folder / f"{table}.jsonl"
        numbers = [number for number, _ in _numbered(folder, table)]
        if numbers and lines.exists():  # lines without the parts before them would be another table
            lines.replace(inner / f"{table}-{max(numbers) + 1:06}.jsonl")
    if has_parts(folder):
        dropped = beside_of(inner)
        shutil.rmtree(dropped, ignore_errors=True)
        inner.replace(dropped)  # all of them at once
        shutil.rmtree(dropped, ignore_errors=True)
    for table in names:
        (folder / f"{table}.jsonl").unlink(missing_ok=True)


def clear_dropped(folder: Path) -> None:
    """Remove parts that were dropped by a process which ended just then."""
    for dropped in folder.glob(f".{FOLDER}.[0-9]*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(dropped)
