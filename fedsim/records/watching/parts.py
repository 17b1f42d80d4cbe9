"""The newest rows of a table of which a run has put some aside already, and how its visits have ended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fedsim.errors import RunFolderError
from fedsim.records.watching.lines import TAIL_BYTES, Facts, last_rows, outcomes

LAST = 5000
"""Rows of a part that are looked at."""


def newest_rows(folder: Path, table: str, most_bytes: int = TAIL_BYTES) -> list[Facts]:
    """Return the newest rows of a table, in the order in which they were written; none that cannot be read."""
    rows = last_rows(folder / f"{table}.jsonl", most_bytes)
    paths = [] if rows else _parts(folder, table)
    if not paths:
        return rows
    if paths[-1].suffix == ".jsonl":
        return last_rows(paths[-1], most_bytes)
    from fedsim.records.tables import read_parquet, rows_of

    try:
        columns = read_parquet(table, paths[-1])
    except RunFolderError:
        return []
    return [*rows_of({name: column[-LAST:] for name, column in columns.items()})]


def is_folded(folder: Path) -> bool:
    """Tell whether the visits of a run are neither lines nor parts any more."""
    return not (folder / "visits.jsonl").exists() and not _parts(folder, "visits")


def endings(folder: Path) -> dict[str, int]:
    """Return how many visits of a run that goes have ended in each way."""
    counts = Counter(outcomes(folder / "visits.jsonl"))
    for path in _parts(folder, "visits"):
        counts.update(outcomes(path) if path.suffix == ".jsonl" else _of_part(path))
    return dict(sorted(counts.items()))


def _of_part(path: Path) -> Counter[str]:
    from fedsim.records.tables import read_parquet

    try:
        return Counter(read_parquet("visits", path, ["outcome"])["outcome"])
    except RunFolderError:
        return Counter()


def _parts(folder: Path, table: str) -> list[Path]:
    if not (folder / "unfolded").is_dir():
        return []
    from fedsim.records.stored.parts import parts_of  # and with it NumPy, for long runs only

    try:
        return parts_of(folder, table)
    except (RunFolderError, OSError):
        return []
