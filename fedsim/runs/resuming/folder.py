"""The folder of a run that goes on: held by one process, cut back to a checkpoint in an order that can be cut off anywhere."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import sync_folder, write_atomically
from fedsim.files.opened import UnreadableError
from fedsim.records import folder as run_folder
from fedsim.records import tables
from fedsim.records.info import RunInfo
from fedsim.records.liveness.hold import hold


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Have a run folder for this process alone, as long as it lives; a dead process holds nothing.

    Raises:
        RunFolderError: another process is at work on the run, there are links in its folder, or it takes no file.
    """
    run_folder.refuse_links(folder)
    try:
        lock = hold(folder)
    except OSError as problem:
        raise RunFolderError(message(str(folder), f"cannot be written ({problem.strerror})")) from problem
    try:
        yield
    finally:
        lock.release()


def cut_back(
    folder: Path, experiment: Mapping[str, object], info: RunInfo, lines: Mapping[str, bytes], wall_s: float
) -> None:
    """Leave in a run folder what there was at a checkpoint: rows as lines, and nothing of the end.

    `run.json` comes first: from there on the run is one that goes, or was killed. Lines count before Parquet, so that a
    table is there at any moment, cut back or not yet; both hold what a checkpoint needs.

    Args:
        folder: of the run.
        experiment: its settings.
        info: `run.json`, whose status is `running`.
        lines: of each table.
        wall_s: lines of the wall clock after that go.

    Raises:
        OSError: the disk does not take it.
    """
    run_folder.write_info(folder, info)
    sync_folder(folder)  # nothing below may reach the disk sooner
    text = yaml.safe_dump(dict(experiment), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "experiment.yaml", text.encode())
    for table in run_folder.WRITTEN:
        write_atomically(run_folder.lines_of(folder, table), lines[table])
    sync_folder(folder)
    for table in run_folder.WRITTEN:
        (folder / f"{table}.parquet").unlink(missing_ok=True)
    wall = [line for line in wall_lines(folder) if _at_s(line) <= wall_s]
    write_atomically(folder / "wall.jsonl", "".join(tables.encode(line) + "\n" for line in wall).encode())
    for inner in ("adapter", "samples"):
        shutil.rmtree(folder / inner, ignore_errors=True)
    (folder / "report.html").unlink(missing_ok=True)
    _sweep(folder)
    sync_folder(folder)


def tidy(folder: Path) -> None:
    """Remove what a kill has left of a run whose last word is written: its rows are tables by then.

    Raises:
        OSError: the disk does not let it.
    """
    for table in run_folder.WRITTEN:
        if (folder / f"{table}.parquet").is_file():
            run_folder.lines_of(folder, table).unlink(missing_ok=True)
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what a kill has left half written."""
    for beside in folder.glob(".*.[0-9]*"):
        beside.unlink(missing_ok=True)


def wall_lines(folder: Path) -> list[dict[str, object]]:
    """Return the lines of the wall clock as far as they are whole."""
    path = folder / "wall.jsonl"
    try:
        return [row for rows in tables.read_lines(path, torn=True) for row in rows] if path.is_file() else []
    except UnreadableError as problem:
        raise RunFolderError(problem.message(str(path))) from problem


def _at_s(line: Mapping[str, object]) -> float:
    at_s = line.get("wall_s")
    return float(at_s) if isinstance(at_s, int | float) else 0.0
