"""Parquet files as columns, whatever is wrong with them said in one sentence; no more of them is unpacked than may be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fedsim.files.delimited import check_names
from fedsim.files.opened import UnreadableError, data_bytes, opened, too_long
from fedsim.files.text_file import reason

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 1_000_000_000
MOST_COLUMNS = 10_000
AT_ONCE = 65_536
"""Rows of a batch."""
NESTED_AT_ONCE = 256
"""The same where a column holds lists or records, whose size is known only when they are there."""


@dataclass(frozen=True)
class ParquetTable:
    """The columns of a Parquet file as plain values, and what its metadata say, by key."""

    columns: dict[str, list[object]]
    metadata: dict[str, str]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.columns.values()), []))


def read_parquet(path: Path) -> ParquetTable:
    """Return a Parquet file's columns; of this file alone, whatever its folders are called.

    Raises:
        UnreadableError: it cannot be read, holds too much, or two columns have one name.
    """
    import pyarrow as pa

    try:
        most = data_bytes()
        with opened(path, most) as source:
            schema = schema_of(source)
            names, metadata = schema.names, schema.metadata or {}
            check_names(names)
            columns: dict[str, list[object]] = {name: [] for name in names}
            for batch in batches(source, schema, most):
                for name, column in zip(names, batch.columns, strict=True):
                    columns[name] += _values(name, column)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as problem:
        fix = "write it again, for example with pandas.DataFrame.to_parquet"
        raise UnreadableError(f"is not a Parquet file ({reason(problem)})", fix=fix) from problem
    texts = (
        (key.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for key, value in metadata.items()
    )
    return ParquetTable(columns, dict(texts))


def _values(name: str, column: pa.Array) -> list[object]:
    """Return a column as plain values; what Python has none for, dates of the year 300,000 for one, as its text.

    Raises:
        UnreadableError: not even that can be had.
    """
    import pyarrow as pa

    unreadable = (pa.ArrowException, OSError, ValueError, OverflowError, LookupError)
    try:
        return list(column.to_pylist())
    except unreadable:
        pass
    try:
        return list(column.cast(pa.string()).to_pylist())
    except unreadable as problem:
        fix = "leave the column out, or write it as text"
        raise UnreadableError(f"column {name!r} cannot be read ({reason(problem)})", fix=fix) from problem


def schema_of(source: BinaryIO) -> pa.Schema:
    """Return the columns of an opened Parquet file.

    Raises:
        UnreadableError: it has too many, or too many rows.
        pyarrow.ArrowException: it is none.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(source, pre_buffer=False) as file:
        rows, columns = file.metadata.num_rows, len(file.schema_arrow)
        if rows > MOST_ROWS or columns > MOST_COLUMNS:
            what = (
                f"has {rows:,} rows and {columns:,} columns, and {MOST_ROWS:,} and {MOST_COLUMNS:,} are read"
            )
            raise UnreadableError(what, fix="split it")
        return file.schema_arrow


def rows_of_groups(source: BinaryIO) -> tuple[int, ...]:
    """Return how many rows each row group of an opened Parquet file has.

    Raises:
        pyarrow.ArrowException: it is none.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(source, pre_buffer=False) as file:
        metadata = file.metadata
        return tuple(int(metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups))


def batches(
    source: BinaryIO,
    schema: pa.Schema,
    most: int,
    names: Sequence[str] | None = None,
    *,
    groups: Sequence[int] | None = None,
    coded: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an opened Parquet file in batches, as long as their values take `most` bytes or less.

    A text that is stored once and used a million times is counted a million times, before it is copied as often.

    Args:
        source: the file.
        schema: its columns, as `schema_of` gives them.
        most: bytes.
        names: of the columns that are read; None: of all.
        groups: numbers of the row groups that are read; None: of all.
        coded: leave text as numbers of entries in a dictionary.

    Raises:
        UnreadableError: the values take more.
        pyarrow.ArrowException: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    nested = any(pa.types.is_nested(column.type) for column in schema)
    texts = [column.name for column in schema if _is_bytes(column.type)]
    room = most
    source.seek(0)
    with pq.ParquetFile(source, read_dictionary=texts, pre_buffer=False) as file:
        rows = NESTED_AT_ONCE if nested else AT_ONCE
        for batch in file.iter_batches(rows, row_groups=groups, columns=names, use_threads=False):
            room -= sum(map(_decoded_bytes, batch.columns))
            if room < 0:
                raise too_long(most - room, most)
            if coded:
                yield batch
                continue
            arrays = [a.dictionary_decode() if pa.types.is_dictionary(a.type) else a for a in batch.columns]
            yield pa.RecordBatch.from_arrays(arrays, names=names or schema.names)


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    of_bytes = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return any(test(kind) for test in of_bytes)


def _decoded_bytes(column: pa.Array) -> int:
    """Return how many bytes the values of a column take, each counted as often as it is used."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type) or not _is_bytes(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(column.indices.nbytes) + int(pc.sum(lengths.take(column.indices)).as_py() or 0)
