"""Rows as lines of JSON, read back in chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsim.errors import RunFolderError, message
from fedsim.files.opened import LINE_BYTES, opened
from fedsim.records import tables

CHUNK = 8192
"""Rows that are parsed at a time: a million visits fold in a few hundred MB."""


def read_lines(path: Path, *, torn: bool = False) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a JSON-lines file in chunks; a half-written last line is dropped.

    Args:
        path: of the file.
        torn: whether to drop all from the first line on that is none, as a power failure may leave it.

    Raises:
        RunFolderError: a line before the last is not JSON.
        UnreadableError: it is no regular file, or a link to elsewhere.
        FileNotFoundError: there is no such file.
    """
    with opened(path, folder=path.parent) as file:
        chunk: list[dict[str, Any]] = []
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES), b""), start=1):
            try:
                chunk.append(_row_of(line))
            except (ValueError, RecursionError) as problem:
                if not torn and file.read(1):
                    where = f"{path}: line {number}"
                    raise RunFolderError(message(where, f"is not a row in JSON ({problem})")) from problem
                break
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


def _row_of(line: bytes) -> dict[str, Any]:
    if len(line) == LINE_BYTES:
        raise ValueError("it is too long")
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("no mapping")  # noqa: TRY004 - told as a line that is no row
    return row


def joined_lines(table: str, path: Path, *, torn: bool = False, in_order: bool = True) -> tables.Columns:
    """Return the rows of a file of lines as columns.

    Args:
        table: whose.
        path: of the file.
        torn: see `read_lines`.
        in_order: sorted as the table is; else as they were written.

    Raises:
        RunFolderError: a line is no row of the table.
    """
    join = tables.joined if in_order else tables.appended
    try:
        return join(table, (tables.pack_lines(table, rows) for rows in read_lines(path, torn=torn)))
    except KeyError as problem:
        raise RunFolderError(message(str(path), f"a row has no {problem}")) from problem
    except tables.UNREADABLE as problem:
        what = f"is damaged ({tables.first_line(problem)})"
        raise RunFolderError(message(str(path), what)) from problem
