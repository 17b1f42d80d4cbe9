"""The tables of a run: their columns, and how rows become JSON lines, frames and Parquet.

A row travels as one JSON line while the run goes (a kill loses nothing) and ends in Parquet. Floats
are written with `repr`, so they come back to the bit; `NaN` and `Infinity` are written as Python's
`json` writes them. Equal tables give equal Parquet bytes: nothing in a file depends on the clock,
the host or the pandas that wrote it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, get_type_hints

import numpy as np

from fedsim.arrays import Values
from fedsim.errors import FedsimError, RunError, RunFolderError, message
from fedsim.files.atomic import replacing
from fedsim.files.opened import UnreadableError, data_bytes, opened
from fedsim.files.parquet_file import batches, schema_of
from fedsim.files.text_file import shown
from fedsim.records.rows import ROWS, Row
from fedsim.records.stored.column_values import column_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Columns: TypeAlias = dict[str, Values]
Arrays: TypeAlias = Mapping[str, Values]
"""The columns of a table, of a long one each read when it is asked for."""

_DTYPES = {int: "int64", float: "float64", bool: "bool"}

TABLES: dict[str, dict[str, str]] = {
    table: {column: _DTYPES.get(hint, "str") for column, hint in get_type_hints(row).items()}
    for table, row in ROWS.items()
}
"""Column -> dtype of each table, in the order they are written."""

ORDER: dict[str, tuple[str, ...]] = {
    "clients": ("client",),
    "visits": ("dispatched_s", "order"),
    "commits": ("version",),
    "scores": ("version",),
    "personal": ("client",),
}
"""How each table is sorted; rows that tie keep the order in which they were written."""
RENAMED = {"trained": "computed"}
"""Columns of older runs -> what they are called now."""

SINCE_VERIFY = {
    "clients": (
        *("visit_flops", "train_w", "down_radio_w", "up_radio_w", "down_radio_j_per_byte"),
        *("up_radio_j_per_byte", "tail_w", "tail_s", "framing", "battery_wh", "cpu_quota", "cpu_period_s"),
        *("windows", "window_period_s"),
    ),
    "visits": ("loss_square",),
}
"""Columns that runs before version 0.3.0 lack: they are read as NaN, or as an empty name."""

GROUP = 2**17
"""Rows of a row group: what is read, written and audited at once of a long table."""


def plain(value: Any) -> Any:
    """Return NumPy scalars and arrays, and paths, as the plain values that JSON has."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a table")


encode = json.JSONEncoder(default=plain, separators=(",", ":")).encode


def pack(table: str, rows: Sequence[Row]) -> Columns:
    """Turn rows into one array a column, exactly of the table's dtypes.

    Raises:
        RunError: a value is of the wrong type (a float among integers, a number among names).
    """
    return _packed(table, lambda column: list(map(attrgetter(column), rows)))


def pack_lines(table: str, lines: Sequence[Mapping[str, Any]]) -> Columns:
    """Turn the lines of a file, all of the same columns, into one array a column.

    Raises:
        KeyError: a line lacks a column.
        RunError: a value is of the wrong type.
    """
    names = {RENAMED.get(name, name): name for name in lines[0]} if lines else {}
    added = {name: _missing(table, name, len(lines)) for name in _lacking(table, names)}
    return _packed(
        table, lambda column: added.get(column) or [line[names.get(column, column)] for line in lines]
    )


def _lacking(table: str, names: Iterable[str]) -> list[str]:
    """Return the columns that a table of an older run lacks; none if it has some of those that came together."""
    later = SINCE_VERIFY.get(table, ())
    return [] if set(later) & set(names) else list(later)


def _missing(table: str, column: str, rows: int) -> list[object]:
    return ["" if TABLES[table][column] == "str" else math.nan] * rows


def _packed(table: str, values: Callable[[str], list[Any]]) -> Columns:
    return {
        column: column_of(f"{table}.{column}", values(column), dtype)
        for column, dtype in TABLES[table].items()
    }


def fit(table: str, columns: Mapping[str, Any]) -> Columns:
    """Pick a table's columns out of whole arrays; arrays that the table does not have are left out.

    Raises:
        RunError: a column is missing, of the wrong type, or of another length than the rest.
    """
    missing = [name for name in TABLES[table] if name not in columns]
    if missing:
        raise RunError(message(table, "columns are missing", got=missing))
    arrays = {
        name: column_of(f"{table}.{name}", columns[name], dtype) for name, dtype in TABLES[table].items()
    }
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = {name: len(array) for name, array in arrays.items()}
        raise RunError(message(table, "columns differ in length", got=lengths))
    return arrays


def joined(table: str, parts: Iterable[Arrays]) -> Columns:
    """Concatenate parts and sort them stably by the table's order; a single part in order is returned as it is."""
    columns = appended(table, parts)
    index = np.lexsort([columns[name] for name in reversed(ORDER[table])])
    if np.array_equal(index, np.arange(len(index))):
        return columns
    return {name: column[index] for name, column in columns.items()}


def appended(table: str, parts: Iterable[Arrays]) -> Columns:
    """Concatenate parts in their order; a single part keeps its arrays."""
    every = list(parts)
    if len(every) == 1:
        return {name: every[0][name] for name in TABLES[table]}
    return {n: np.concatenate([_empty(table, n), *(part[n] for part in every)]) for n in TABLES[table]}


def count(columns: Arrays) -> int:
    """Return the number of rows."""
    return len(columns[next(iter(columns))])


def rows_of(columns: Arrays) -> list[dict[str, object]]:
    """Return the rows of columns, as plain values."""
    values = {name: column.tolist() for name, column in columns.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def frame(table: str, columns: Arrays, names: Sequence[str] = ()) -> pd.DataFrame:
    """Return a data frame with exactly the table's columns (or those of `names`) and dtypes, also without rows."""
    import pandas as pd

    dtypes = TABLES[table]
    return pd.DataFrame({name: pd.Series(columns[name], dtype=dtypes[name]) for name in names or dtypes})


def write_parquet(table: str, columns: Arrays, path: Path) -> None:
    """Write a table atomically; equal columns give equal bytes."""
    rows = len(columns[next(iter(TABLES[table]))])
    starts = range(0, max(rows, 1), GROUP)
    at_once = dict(columns) if rows <= GROUP else columns
    write_groups(
        table, ({name: at_once[name][at : at + GROUP] for name in TABLES[table]} for at in starts), path
    )


def write_groups(table: str, groups: Iterable[Arrays], path: Path) -> None:
    """Write a table atomically, one row group at a time; all but the last have `GROUP` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema([(name, types[dtype]) for name, dtype in TABLES[table].items()])
    with replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for columns in groups:
            arrays = [pa.array(columns[field.name], type=field.type, from_pandas=False) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=GROUP)


@contextmanager
def opened_parquet(table: str, path: Path) -> Iterator[tuple[BinaryIO, pa.Schema, Mapping[str, str]]]:
    """Yield the opened file of a table, its schema, and today's name of a column -> its name there.

    Raises:
        RunFolderError: the file is missing, unreadable, or has other columns.
    """
    import pyarrow as pa

    try:
        with opened(path, data_bytes(), folder=path.parent) as file:
            schema = schema_of(file)
            names = {RENAMED.get(name, name): name for name in schema.names}
            lacking = _lacking(table, names)
            if len(names) < len(schema.names) or [n for n in TABLES[table] if n not in lacking] != [*names]:
                what = "has other columns than this version of fedsim writes"
                raise RunFolderError(message(str(path), what))
            yield file, schema, names
    except (*UNREADABLE, pa.ArrowException) as problem:
        raise RunFolderError(message(str(path), f"cannot be read ({first_line(problem)})")) from problem


def read_parquet(
    table: str, path: Path, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
) -> Columns:
    """Read a table back.

    Args:
        table: its name.
        path: of the file.
        columns: that are read; None: all.
        groups: numbers of the row groups that are read; None: all.

    Raises:
        RunFolderError: the file is missing, unreadable, or has other columns.
    """
    wanted = [*TABLES[table]] if columns is None else [*columns]
    with opened_parquet(table, path) as (file, schema, names):
        there = [name for name in wanted if name in names]
        stored = [names[name] for name in there] or schema.names[
            :1
        ]  # its number of rows is wanted all the same
        parts: dict[str, list[Values]] = {name: [] for name in there}
        rows = 0
        for batch in batches(file, schema, data_bytes(), stored, groups=groups, coded=True):
            rows += batch.num_rows
            for name in there:
                parts[name].append(_decoded(table, name, batch[names[name]]))
        return {
            name: np.concatenate([_empty(table, name), *parts[name]])
            if name in names
            else column_of(f"{table}.{name}", _missing(table, name, rows), TABLES[table][name])
            for name in wanted
        }


def _decoded(table: str, name: str, column: pa.Array) -> Values:
    """Return a column of a batch; each of its texts is there once."""
    import pyarrow as pa

    where, dtype = f"{table}.{name}", TABLES[table][name]
    if dtype != "str" or not pa.types.is_dictionary(column.type) or column.null_count:
        return column_of(where, column.to_numpy(zero_copy_only=False), dtype)
    words = column_of(where, column.dictionary.to_pylist(), dtype)
    return np.asarray(words[column.indices.to_numpy()])


def _empty(table: str, name: str) -> Values:
    return np.empty(0, {"str": "object"}.get(TABLES[table][name], TABLES[table][name]))


UNREADABLE = (
    *(UnreadableError, OSError, ValueError, TypeError, KeyError),
    *(OverflowError, MemoryError, RecursionError, RunError),
)
"""What reading a damaged file may raise."""


def first_line(problem: BaseException) -> str:
    """Return what an error says, in one line that is not too long."""
    text = problem.message.headline if isinstance(problem, FedsimError) else str(problem)
    return shown((text.splitlines() or [type(problem).__name__])[0][:200])
