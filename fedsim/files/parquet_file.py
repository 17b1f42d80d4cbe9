"""Parquet files as columns, whatever is wrong with them said in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedsim.files.delimited import check_names
from fedsim.files.text_file import UnreadableError, reason


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
        columns = {name: table.column(name).to_pylist() for name in names}
    except (pa.ArrowException, OSError, ValueError) as problem:
        fix = "write it again, for example with pandas.DataFrame.to_parquet"
        raise UnreadableError(f"is not a Parquet file ({reason(problem)})", fix=fix) from problem
    texts = (
        (key.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for key, value in metadata.items()
    )
    return ParquetTable(columns, dict(texts))
