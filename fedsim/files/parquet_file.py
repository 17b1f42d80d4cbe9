"""Parquet files as columns, whatever is wrong with them said in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.files.delimited import check_names
from fedsim.files.text_file import UnreadableError, reason

if TYPE_CHECKING:
    import pyarrow as pa


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
        UnreadableError: it cannot be read, or two columns have one name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names, metadata = file.schema_arrow.names, file.schema_arrow.metadata or {}
            check_names(names)
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as problem:
        fix = "write it again, for example with pandas.DataFrame.to_parquet"
        raise UnreadableError(f"is not a Parquet file ({reason(problem)})", fix=fix) from problem
    columns = {name: _values(name, table.column(name)) for name in names}
    texts = (
        (key.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for key, value in metadata.items()
    )
    return ParquetTable(columns, dict(texts))


def _values(name: str, column: pa.ChunkedArray) -> list[object]:
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
