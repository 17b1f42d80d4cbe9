"""Delimited text (CSV, TSV) as a header and numbered rows; what would be guessed elsewhere is refused here."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

from fedsim.files.opened import UnreadableError
from fedsim.files.text_file import reason

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""Suffix -> what separates cells."""
_NAMES = {",": "commas", "\t": "tabs"}


@dataclass(frozen=True)
class Grid:
    """The cells of one text.

    Attributes:
        header: names of the columns.
        rows: as many cells each as there are names.
        lines: in which line each row begins, from 1.
        ragged: (line, cells) of rows of another length, which are not in `rows`.
        comments: lines before the header that begin with #, where these are comments.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    ragged: list[tuple[int, int]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]


def read_grid(text: str, separator: str, *, comments: bool = False) -> Grid:
    """Return the rows of a delimited text: RFC 4180's quotes, one header line, blank lines left out.

    A first column of whole numbers without a name, as pandas writes an index, is left out, and so is any column without a
    name and without a cell.

    Args:
        text: the whole of it; cells may hold line ends in quotes.
        separator: of cells.
        comments: whether lines that begin with # say something about the table.

    Raises:
        UnreadableError: quotes that do not close, another separator, a name twice or none at all.
    """
    csv.field_size_limit(2**31 - 1)
    lines = list(io.StringIO(text, newline=""))
    first = _first(lines, comments=comments)
    reader = csv.reader(lines[first:], delimiter=separator, strict=True)
    header: list[str] = []
    rows, starts, before = [], [], 0
    try:
        header = [name.strip() for name in next(reader, [])]
        before = reader.line_num
        for row in reader:
            start, before = before + 1, reader.line_num
            if row and not (comments and row[0].startswith("#")):
                rows.append(row)
                starts.append(first + start)
    except csv.Error as problem:
        what = f"is not {'CSV' if separator == ',' else 'TSV'} ({reason(problem)})"
        fix = 'quote cells that hold separators or quotes, and double the quotes in them: "say ""yes"""'
        raise UnreadableError(what, line=first + before + 1, fix=fix) from problem
    _check_separator(header, separator, first + 1)
    wrong = [(start, len(row)) for row, start in zip(rows, starts, strict=True) if len(row) != len(header)]
    if wrong:
        pairs = [pair for pair in zip(rows, starts, strict=True) if len(pair[0]) == len(header)]
        rows, starts = [row for row, _ in pairs], [start for _, start in pairs]
    kept = _named(header, rows, first + 1)
    if len(kept) < len(header):
        header, rows = [header[k] for k in kept], [[row[k] for k in kept] for row in rows]
    return Grid(header, rows, starts, wrong, [line.strip() for line in lines[:first]])


def ragged_row(grid: Grid, line: int, cells: int) -> UnreadableError:
    """Return what is wrong with a row of another length than the header."""
    count = len(grid.header)
    what = f"needs {count} cell{'s' if count != 1 else ''}"
    return UnreadableError(what, line=line, got=cells, fix="put cells with commas or tabs in double quotes")


def _first(lines: list[str], *, comments: bool) -> int:
    """Return the index of the header's line."""
    for at, line in enumerate(lines):
        if line.strip() and not (comments and line.startswith("#")):
            return at
    return len(lines)


def _check_separator(header: list[str], separator: str, line: int) -> None:
    if len(header) > 1 and header[0].lower() == "sep=" and not any(header[1:]):
        what = "the first line says what separates cells, and names no columns"
        raise UnreadableError(what, line=line, fix="remove that line")
    if len(header) == 1 and (marks := [mark for mark in ",;\t|" if mark in header[0] and mark != separator]):
        what = f"cells are not separated by {_NAMES[separator]}"
        fix = f"separate cells by {_NAMES[separator]}, and decimals by points"
        if marks[0] != ",":
            fix += f"; pandas.read_csv(FILE, sep={marks[0]!r}).to_csv('new.csv', index=False) does it"
        raise UnreadableError(what, got=header[0], fix=fix)


def _named(header: list[str], rows: list[list[str]], line: int) -> list[int]:
    """Return the columns that have a name."""
    for at, name in enumerate(header):
        cells = [] if name else [row[at].strip() for row in rows]
        index = at == 0 and all(cell.isascii() and cell.isdecimal() for cell in cells)
        if any(cells) and not index:
            what, fix = f"column {at + 1} has no name", "name it, or remove the column"
            raise UnreadableError(what, line=line, fix=fix)
    check_names(header)
    return [at for at, name in enumerate(header) if name]


def check_names(header: list[str]) -> None:
    """Raise an UnreadableError if two columns have one name."""
    twice = [name for at, name in enumerate(header) if name and name in header[:at]]
    if twice:
        raise UnreadableError("two columns have one name", got=twice[0], fix="keep one of the columns")
