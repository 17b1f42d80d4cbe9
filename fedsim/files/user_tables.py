"""A table file (CSV, TSV or Parquet) as numbered rows, and the checks that name row and column.

A CSV may begin with comment lines; `# key: value` becomes a fact of the file. Rows are numbered as an
editor numbers lines (CSV), or from 1 (Parquet).
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.arrays import Floats
from fedsim.errors import ABSENT, Message, ProfileError, message, nearest
from fedsim.files.delimited import SEPARATORS, ragged_row, read_grid
from fedsim.files.disk import no_file
from fedsim.files.opened import UnreadableError, read_bytes
from fedsim.files.parquet_file import read_parquet
from fedsim.files.plain_number import in_plain_digits, plain_number
from fedsim.files.text_file import decoded, read_text, shown


@dataclass(frozen=True)
class Column:
    """What one column must hold.

    Attributes:
        name: header.
        kind: `number` (finite float64), `key` (text, once in the file) or `text` (non-empty).
        low, high: bounds of a number, inclusive.
        positive: a number must be greater than 0.
        choices: the only values allowed.
        unit: of a number, as it is written: `10^9 bytes`; empty: it has none.
        meaning: what the column says, in a few words.
        usual: a typical value, or a range; a template has it.
    """

    name: str
    kind: str = "number"
    low: float = -math.inf
    high: float = math.inf
    positive: bool = False
    choices: tuple[str, ...] = ()
    unit: str = ""
    meaning: str = ""
    usual: str = ""

    @property
    def described(self) -> str:
        """Return what the column means and what is usual, for a message; empty if nothing is known.

        >>> Column("ram_gb", unit="10^9 bytes", meaning="memory of the device", usual="8").described
        'ram_gb: memory of the device [10^9 bytes], for example 8'
        """
        if not self.meaning:
            return ""
        unit = f" [{self.unit}]" if self.unit else ""
        usual = f", for example {self.usual}" if self.usual else ""
        return f"{self.name}: {self.meaning}{unit}{usual}"


@dataclass(frozen=True)
class Rows:
    """The cells of one file, by column, with the place of every row.

    Attributes:
        path: the file, as it was named.
        numbers: row number of each row, for messages.
        cells: column -> one cell a row: text (CSV) or a plain value (Parquet); both may be empty.
        facts: what the comment lines (CSV) or the metadata (Parquet) say.
        sha256: of the file's bytes.
        ragged: messages about rows whose number of cells is not the header's; those rows are left out.
    """

    path: Path
    numbers: list[int]
    cells: dict[str, list[Any]]
    facts: dict[str, str]
    sha256: str
    ragged: tuple[Message, ...] = ()

    def say(
        self, row: int | None, column: str, what: str, got: Any = None, fix: str | None = None
    ) -> Message:
        """Return the message of a problem at the k-th row (None: of the whole file), with names of the file on one line."""
        where = str(self.path) if row is None else f"{self.path} row {self.numbers[row]}"
        where = f"{where}: {column}" if column else where
        fix = None if fix is None else shown(fix, most=2000)
        return Message(shown(what, most=2000), where, ABSENT if got is None else got, fix)


def read_rows(path: Path) -> Rows:
    """Return the rows of a CSV (.csv), TSV (.tsv) or Parquet file.

    Raises:
        ProfileError: the file is missing, of another kind, unreadable, or without rows.
    """
    if not path.is_file():
        raise ProfileError(
            message(str(path), no_file(path), fix="check the path; it is taken from the YAML file's folder")
        )
    suffix = path.suffix.lower()
    try:
        if suffix in SEPARATORS:
            rows = _delimited_rows(path, SEPARATORS[suffix])
        elif suffix == ".parquet":
            rows = _parquet_rows(path)
        else:
            fix = "give a .csv or a .parquet file"
            raise ProfileError(message(str(path), "not a table", got=path.suffix or path.name, fix=fix))
    except UnreadableError as problem:
        raise ProfileError(problem.message(str(path))) from problem
    if not rows.numbers and not rows.ragged:
        fix = "put a header line and at least one row into it"
        raise ProfileError(message(str(path), "has no rows", fix=fix))
    return rows


def text_of(path: Path) -> str:
    """Return the text of a file of people's, without a byte order mark.

    Raises:
        ProfileError: it cannot be read, or is no UTF-8 text.
    """
    try:
        return read_text(path)
    except UnreadableError as problem:
        raise ProfileError(problem.message(str(path))) from problem


def data_of(path: Path) -> bytes:
    """Return the bytes of a file of people's.

    Raises:
        ProfileError: it cannot be read, is no regular file, or longer than what is read.
    """
    try:
        return read_bytes(path)
    except UnreadableError as problem:
        raise ProfileError(problem.message(str(path))) from problem


def _delimited_rows(path: Path, separator: str) -> Rows:
    data = read_bytes(path)
    grid = read_grid(decoded(data), separator, comments=True)
    facts = {}
    for line in grid.comments:
        key, colon, value = line.lstrip("#").partition(":")
        if colon:
            facts[key.strip()] = value.strip()
    ragged = tuple(ragged_row(grid, line, count).message(str(path)) for line, count in grid.ragged)
    cells = {name: [cell.strip() for cell in grid.column(name)] for name in grid.header}
    return Rows(path, grid.lines, cells, facts, hashlib.sha256(data).hexdigest(), ragged)


def _parquet_rows(path: Path) -> Rows:
    digest = hashlib.sha256(read_bytes(path)).hexdigest()
    table = read_parquet(path)
    facts = dict(table.metadata)
    facts |= _attributes(facts.pop("PANDAS_ATTRS", "{}"))
    return Rows(path, list(range(1, len(table) + 1)), table.columns, facts, digest)


def _attributes(text: str) -> dict[str, str]:
    """Return what pandas wrote about a table; nothing where it is no JSON object."""
    try:
        attributes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in attributes.items()} if isinstance(attributes, dict) else {}


def problems(rows: Rows, columns: Iterable[Column]) -> Iterator[Message]:
    """Yield a message for every missing column and every cell that is not what its column must hold."""
    yield from rows.ragged
    for column in columns:
        if column.name not in rows.cells:
            near = difflib.get_close_matches(column.name, rows.cells, n=1)
            hint = f"add it, or rename {near[0]!r} if that is it" if near else "add it"
            yield rows.say(None, column.name, "the column is missing", fix=hint)
        elif column.kind == "number":
            yield from _number_problems(rows, column)
        else:
            yield from _text_problems(rows, column)


Checks = Callable[[Rows], Iterator[Message]]
"""Every way in which the rows of a file fail to be a table of some kind."""


def explaining(*columns: Column) -> Callable[[Checks], Checks]:
    """Return a decorator of checks: beside every message about one of these columns stands what it means and what is usual."""
    described = {column.name: column.described for column in columns}

    def of(checks: Checks) -> Checks:
        @functools.wraps(checks)
        def explained(rows: Rows) -> Iterator[Message]:
            for problem in checks(rows):
                name = problem.where.rpartition(": ")[2]
                family = "share" if name.startswith("share_") else name  # a table may have several of shares
                text = described.get(name) or described.get(family)
                fix = f"{problem.fix} ({text})" if problem.fix else text
                yield replace(problem, fix=fix) if text else problem

        return explained

    return of


def numbers(rows: Rows, name: str) -> Floats:
    """Return a column as float64, NaN where a cell is no number."""
    return np.array([plain_number(cell) for cell in rows.cells[name]], dtype=np.float64)


def filled(rows: Rows, name: str) -> Rows:
    """Return the rows whose cell of a column is not empty."""
    kept = [k for k, cell in enumerate(rows.cells[name]) if cell not in ("", None)]
    cells = {column: [column_cells[k] for k in kept] for column, column_cells in rows.cells.items()}
    return Rows(rows.path, [rows.numbers[k] for k in kept], cells, rows.facts, rows.sha256)


def _number_problems(rows: Rows, column: Column) -> Iterator[Message]:
    values = numbers(rows, column.name)
    wrong = ~np.isfinite(values) | (values < column.low) | (values > column.high)
    if column.positive:
        wrong |= values <= 0
    for row in np.flatnonzero(wrong):
        cell, value = rows.cells[column.name][row], values[row]
        got = (cell or None) if math.isnan(value) else float(value)
        yield rows.say(int(row), column.name, _complaint(column, cell, float(value)), got, _fix(column))


def _complaint(column: Column, cell: Any, value: float) -> str:
    if cell is None or cell == "":
        return "is empty"
    if not in_plain_digits(cell):
        return "must be a number in the digits 0 to 9, without _ or marks of other scripts"
    if not math.isfinite(value):
        return "must be a finite number"
    if column.positive and value <= 0:
        return "must be greater than 0"
    return f"must be at least {column.low:g}" if value < column.low else f"must be at most {column.high:g}"


def _fix(column: Column) -> str:
    if column.positive and not math.isfinite(column.high):
        return "write a number greater than 0, without a unit"
    low = f" from {column.low:g}" if math.isfinite(column.low) else " above 0" if column.positive else ""
    high = f" to {column.high:g}" if math.isfinite(column.high) else ""
    return f"write a number{low}{high}, without a unit"


def _text_problems(rows: Rows, column: Column) -> Iterator[Message]:
    seen: dict[str, int] = {}
    for row, cell in enumerate(rows.cells[column.name]):
        text = "" if cell is None else str(cell)
        if not text:
            yield rows.say(row, column.name, "is empty", fix=f"write a {column.name}")
        elif column.choices and text not in column.choices:
            yield rows.say(
                row, column.name, f"no such {column.name}", text, fix=nearest(text, column.choices)
            )
        elif column.kind == "key" and text in seen:
            first = rows.numbers[seen[text]]
            yield rows.say(row, column.name, f"is already in row {first}", text, fix="give each row its own")
        seen.setdefault(text, row)
