"""The folder of a run that goes on: held by one process, cut back to a checkpoint in an order that can be cut off anywhere."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from fedsim.arrays import Ints
from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import beside_of, sync_folder, write_atomically
from fedsim.files.disk import telling
from fedsim.files.opened import UnreadableError
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.info import RunInfo
from fedsim.records.liveness.hold import hold
from fedsim.records.stored import parts
from fedsim.records.stored.lines import read_lines
from fedsim.records.stored.parts import FOLDER, PACKED, clear_dropped, drop, has_parts, write_part


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Have a run folder for this process alone, as long as it lives; a dead process holds nothing.

    Raises:
        RunFolderError: another process is at work on the run, there are links in its folder, or it takes no file.
        HostError: the disk is full, read-only or broken.
    """
    run_folder.refuse_links(folder)
    run_folder.refuse_misplaced(folder)
    try:
        with telling(folder, "free some space"):
            lock = hold(folder)
    except OSError as problem:
        raise RunFolderError(message(str(folder), f"cannot be written ({problem.strerror})")) from problem
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class WrittenRows:
    """Rows of a table in the order in which they were written.

    Attributes:
        columns: the whole table, as its end has left it.
        places: of the rows in it, (rows,).
    """

    columns: tables.Columns = field(repr=False)
    places: Ints = field(repr=False)

    def parts(self, size: int) -> Iterator[tables.Columns]:
        """Yield the rows, so many at a time."""
        for at in range(0, len(self.places), size):
            yield {name: column[self.places[at : at + size]] for name, column in self.columns.items()}


def no_rows() -> dict[str, WrittenRows]:
    """Return no row of any table."""
    return {table: WrittenRows({}, np.zeros(0, np.int64)) for table in run_folder.WRITTEN}


def cut_back(
    folder: Path,
    experiment: Mapping[str, object],
    info: RunInfo,
    rows: Mapping[str, WrittenRows],
    wall_s: float,
) -> None:
    """Leave in a run folder what there was at a checkpoint: rows as lines, many as parts, and nothing of the end.

    `run.json` comes first: from there on the run is one that goes, or was killed. Lines and parts count before Parquet, so that a
    table is there at any moment, cut back or not yet; both hold what a checkpoint needs.

    Args:
        folder: of the run.
        experiment: its settings.
        info: `run.json`, whose status is `running`.
        rows: of each table.
        wall_s: lines of the wall clock after that go.

    Raises:
        OSError: the disk does not take it.
    """
    run_folder.write_info(folder, info)
    sync_folder(folder)  # nothing below may reach the disk sooner
    text = yaml.safe_dump(dict(experiment), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "experiment.yaml", text.encode())
    _drop_parts(folder, rows)
    _write_rows(folder, rows)
    sync_folder(folder)
    for table in run_folder.WRITTEN:
        (folder / f"{table}.parquet").unlink(missing_ok=True)
    wall = [line for line in wall_lines(folder) if _at_s(line) <= wall_s]
    write_atomically(folder / "wall.jsonl", "".join(tables.encode(line) + "\n" for line in wall).encode())
    for inner in ("adapter", "best", "samples"):
        shutil.rmtree(folder / inner, ignore_errors=True)
    (folder / "report.html").unlink(missing_ok=True)
    _sweep(folder)
    sync_folder(folder)


def _drop_parts(folder: Path, rows: Mapping[str, WrittenRows]) -> None:
    """Let parts and lines become Parquet where new parts come: these must not stand beside older rows."""
    if not has_parts(folder) and all(len(written.places) <= parts.PART for written in rows.values()):
        return
    for table, written in rows.items():
        if written.columns:
            tables.write_parquet(table, written.columns, folder / f"{table}.parquet")
    sync_folder(folder)
    drop(folder, run_folder.WRITTEN)


def _write_rows(folder: Path, rows: Mapping[str, WrittenRows]) -> None:
    """Write rows as lines; those of tables that have many as parts, which are all there at once."""
    many = {table: written for table, written in rows.items() if len(written.places) > parts.PART}
    beside = beside_of(folder / "rows")
    shutil.rmtree(beside, ignore_errors=True)
    for table, written in many.items():
        beside.mkdir(exist_ok=True)
        for number, part in enumerate(written.parts(parts.PART)):
            write_part(beside, table, number, part)
    if many:
        sync_folder(folder)
        (beside / FOLDER).replace(folder / FOLDER)
        shutil.rmtree(beside, ignore_errors=True)
    for table, written in rows.items():
        if table in many:
            run_folder.lines_of(folder, table).unlink(missing_ok=True)
            continue
        lines = (row for part in written.parts(PACKED) for row in tables.rows_of(part))
        text = "".join(tables.encode(row) + "\n" for row in lines)
        write_atomically(run_folder.lines_of(folder, table), text.encode())


def tidy(folder: Path) -> None:
    """Remove what a kill has left of a run whose last word is written: its rows are tables by then.

    Raises:
        OSError: the disk does not let it.
    """
    if all((folder / f"{table}.parquet").is_file() for table in run_folder.WRITTEN):
        drop(folder, run_folder.WRITTEN)
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what a kill has left half written."""
    clear_dropped(folder)
    for beside in folder.glob(".*.[0-9]*"):
        beside.unlink(missing_ok=True)


def wall_lines(folder: Path) -> list[dict[str, object]]:
    """Return the lines of the wall clock as far as they are whole."""
    path = folder / "wall.jsonl"
    try:
        return [row for rows in read_lines(path, torn=True) for row in rows] if path.is_file() else []
    except UnreadableError as problem:
        raise RunFolderError(problem.message(str(path))) from problem


def _at_s(line: Mapping[str, object]) -> float:
    at_s = line.get("wall_s")
    return float(at_s) if isinstance(at_s, int | float) else 0.0
