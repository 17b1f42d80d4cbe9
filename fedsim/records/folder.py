"""The files of a run folder: claimed once, folded atomically, readable after a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fedsim.errors import ExperimentError, RunFolderError, TakenError, message
from fedsim.files import yaml_file
from fedsim.files.atomic import sync_files, sync_folder, write_atomically
from fedsim.files.disk import telling
from fedsim.files.opened import SETTINGS_BYTES, UnreadableError, bytes_of
from fedsim.records import tables
from fedsim.records.info import RunInfo, read_info
from fedsim.records.integrity.seals import FILES, FOLDERS, sealed
from fedsim.records.liveness.standing import standing
from fedsim.records.stored.columns import StoredColumns
from fedsim.records.stored.lines import joined_lines, read_lines
from fedsim.records.stored.parts import FOLDER, drop, has_parts, parts_of
from fedsim.records.stored.sorting import read_parts
from fedsim.records.watching.missing import no_run

WRITTEN = ("visits", "commits", "scores", "personal")
"""Tables that are written row by row; `clients` comes whole."""


REPORT, CHECKPOINTS = "report.html", "checkpoints"
"""Names of what lies in a run folder beside its files and folders that are sealed."""
SINGLE = ("name", "seed")
"""Settings of an experiment that are no blocks."""


def holds_run(folder: str | Path) -> bool:
    """Tell whether a folder is taken by a run, of whatever status."""
    folder = Path(folder)
    heads = any(os.path.lexists(folder / name) for name in ("run.json", "experiment.yaml"))
    written = (lines_of(folder, table) for table in WRITTEN)
    stored = (folder / f"{table}.parquet" for table in tables.TABLES)
    return heads or has_parts(folder) or any(map(os.path.lexists, (*written, *stored)))


def has_begun(folder: Path) -> bool:
    """Tell whether a folder that is taken holds a run, and not only the name of one that was killed at its first step."""
    head = folder / "run.json"
    return head.is_file() and head.stat().st_size > 0 and (folder / "experiment.yaml").is_file()


def clear_stillborn(folder: Path) -> None:
    """Remove what a run has left that was killed before it had begun.

    Raises:
        RunFolderError: there are rows, so it had.
    """
    if has_lines(folder) or any((folder / f"{table}.parquet").exists() for table in tables.TABLES):
        what, fix = "has rows of a run, and no whole run.json", "give another --out, or remove that folder"
        raise RunFolderError(message(str(folder), what, fix=fix))
    for name in ("run.json", "experiment.yaml"):
        for path in (folder / name, *folder.glob(f".{name}.*")):
            path.unlink(missing_ok=True)


def has_lines(folder: Path) -> bool:
    """Tell whether a folder holds lines, or parts of tables, that are not folded yet."""
    return has_parts(folder) or any(lines_of(folder, table).exists() for table in WRITTEN)


def check_free(folder: Path | None) -> None:
    """Refuse a folder that holds a run, or something that a run in it would overwrite.

    Raises:
        TakenError: as said; RunFolderError: a link, through which a run could write elsewhere.
    """
    if folder is not None and folder.is_dir():
        _refuse_run(folder)
        refuse_links(folder)
        _refuse_overwriting(folder)


def refuse_taken(folder: Path) -> None:
    """Raise a TakenError if a folder holds a run, or something that a run in it would overwrite."""
    if folder.is_dir():
        _refuse_run(folder)
        _refuse_overwriting(folder)


def _refuse_run(folder: Path) -> None:
    if holds_run(folder):
        raise TakenError(message(str(folder), "holds a run already", fix="give another --out"))


def _refuse_overwriting(folder: Path) -> None:
    taken = [name for name in (REPORT, *FILES, *FOLDERS, CHECKPOINTS) if os.path.lexists(folder / name)]
    if taken:
        what = f"has {taken[0]} already, which a run would overwrite"
        raise TakenError(message(str(folder), what, fix="give another --out, or move it away"))


def refuse_links(folder: Path) -> None:
    """Raise a RunFolderError if there is a link in a folder, or in one inside it: a run would write elsewhere."""
    for path in sorted(folder.iterdir()):
        inside = [] if path.is_symlink() or not path.is_dir() else sorted(path.iterdir())
        for part in (path, *inside):
            if part.is_symlink():
                what = f"{part.relative_to(folder)} is a link, through which a run could write elsewhere"
                raise RunFolderError(
                    message(str(folder), what, fix="put the file or the folder itself there")
                )


def refuse_misplaced(folder: Path) -> None:
    """Raise a RunFolderError where a file of a run is a folder, or one of its folders is a file: nothing could be written."""
    lines = (lines_of(folder, table).name for table in tables.TABLES)
    for name in ("run.json", REPORT, *FILES, *lines):
        if (folder / name).is_dir():
            raise RunFolderError(
                message(str(folder / name), "is a folder, where a file belongs", fix="remove it")
            )
    for name in (*FOLDERS, CHECKPOINTS, FOLDER):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise RunFolderError(
                message(str(folder / name), "is a file, where a folder belongs", fix="remove it")
            )


@contextlib.contextmanager
def claimed(folder: Path, experiment: Mapping[str, Any], info: RunInfo) -> Iterator[None]:
    """Create a run folder with its two head files; if anything goes wrong inside, undo it.

    Raises:
        RunFolderError: the folder holds a run already or cannot be created.
        HostError: the disk is full, read-only or broken.
    """
    text = yaml.safe_dump(dict(experiment), sort_keys=False, allow_unicode=True)
    made = next((p for p in reversed([folder, *folder.parents]) if not p.exists()), None)
    try:
        with telling(folder):
            folder.mkdir(parents=True, exist_ok=True)
            check_free(folder)
            claim = (folder / "run.json").open("x")  # of two runs that start at once, one gets the folder
            claim.close()
    except FileExistsError as problem:
        what = "holds a run already" if folder.is_dir() else "is a file, not a folder"
        raise TakenError(message(str(folder), what, fix="give another --out")) from problem
    except OSError as problem:
        raise RunFolderError(message(str(folder), f"cannot be created ({problem.strerror})")) from problem
    before = set(folder.iterdir())
    try:
        write_atomically(folder / "experiment.yaml", text.encode())
        write_info(folder, info)
        yield
    except BaseException:
        for path in {folder / "run.json", *(set(folder.iterdir()) - before)}:
            path.unlink(missing_ok=True)
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise


def read_head(folder: Path) -> tuple[RunInfo, dict[str, Any]]:
    """Return `run.json` and the plain configuration.

    Raises:
        RunFolderError: the folder does not exist, holds no run, or one that cannot be read.
    """
    for name in ("run.json", "experiment.yaml"):
        if not (folder / name).is_file():
            raise RunFolderError(no_run(folder, name))
    return read_info(folder / "run.json"), _read_experiment(folder / "experiment.yaml")


def _read_experiment(path: Path) -> dict[str, Any]:
    try:
        data = bytes_of(path, SETTINGS_BYTES, folder=path.parent)
        experiment = yaml_file.plain(data.decode("utf-8"))
    except (*tables.UNREADABLE, ExperimentError, yaml.YAMLError) as problem:
        what = f"cannot be read ({tables.first_line(problem)})"
        raise RunFolderError(message(str(path), what)) from problem
    if not isinstance(experiment, dict) or not _is_plain(experiment):
        raise RunFolderError(message(str(path), "is damaged: it holds no configuration"))
    for key, block in experiment.items():
        if not isinstance(key, str) or (
            key not in SINGLE and block is not None and not isinstance(block, dict)
        ):
            raise RunFolderError(
                message(f"{path}: {key}", "is damaged: it is no block of settings", got=block)
            )
    return experiment


def _is_plain(value: object) -> bool:
    """Tell whether a configuration's keys are text, all the way down; `yaml_file.plain` has seen to its size and depth."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return not isinstance(value, list | tuple | set) or all(map(_is_plain, value))


def read_tables(
    folder: Path, *, complete: bool = False, torn: bool = False, scratch: Path | None = None
) -> dict[str, tables.Arrays]:
    """Read every table: lines and parts if there are any (they are the truth until folded), else Parquet.

    Args:
        folder: of the run.
        complete: whether every table must be there.
        torn: whether lines may be torn anywhere, see `fedsim.records.stored.lines.read_lines`.
        scratch: where a table in parts is put in order; None: among the system's temporary files.
    """
    columns: dict[str, tables.Arrays] = {}
    for table in tables.TABLES:
        stored, lines = folder / f"{table}.parquet", lines_of(folder, table)
        if os.path.lexists(lines) and not lines.is_file():
            raise RunFolderError(message(str(lines), "is no file"))
        in_parts = read_parts(folder, table, torn=torn, scratch=scratch) if table in WRITTEN else None
        if in_parts is not None:
            columns[table] = in_parts
        elif lines.is_file():
            columns[table] = joined_lines(table, lines, torn=torn)
        else:
            wanted = complete or stored.exists()
            columns[table] = StoredColumns(table, stored) if wanted else tables.joined(table, [])
    return columns


def fold(folder: Path, columns: Mapping[str, tables.Arrays], info: RunInfo) -> RunInfo:
    """Write Parquet, then run.json, then drop the lines: whatever is cut off here can be done again.

    Returns:
        `run.json` as it was written, with the SHA-256 of the run's files and values.
    """
    for table in tables.TABLES:
        path = folder / f"{table}.parquet"
        if lines_of(folder, table).exists() or parts_of(folder, table) or not path.exists():
            _write_table(table, columns[table], path)
    try:
        info = sealed(info, folder, columns)
    except UnreadableError as problem:
        raise RunFolderError(problem.message(str(folder))) from problem
    sync_files(folder, info.files)  # `run.json` vouches for them, whatever the power does next
    write_info(folder, info)
    with contextlib.suppress(OSError):  # some file systems do not let a folder be synchronised
        sync_folder(folder)  # before a line goes, what it has become is on the disk under its name
    drop(folder, WRITTEN)
    return info


def _write_table(table: str, columns: tables.Arrays, path: Path) -> None:
    """Write a table; one that was put in order beside it takes its name."""
    if not isinstance(columns, StoredColumns):
        tables.write_parquet(table, columns, path)
    elif columns.path.parent == path.parent:
        columns.move(path)
    else:
        tables.write_groups(table, columns.blocks(), path)


def read_wall(folder: Path) -> list[dict[str, Any]]:
    """Return the wall-clock lines of a run, if it has any."""
    path = folder / "wall.jsonl"
    try:
        return [row for rows in read_lines(path) for row in rows] if path.is_file() else []
    except UnreadableError as problem:
        raise RunFolderError(problem.message(str(path))) from problem


def write_info(folder: Path, info: RunInfo) -> None:
    """Write `run.json` atomically."""
    write_atomically(folder / "run.json", info.text().encode())


def may_be_alive(info: RunInfo, folder: Path | None = None) -> bool:
    """Tell whether somebody may still be at work on a run: see `fedsim.records.liveness.standing`.

    Args:
        info: its `run.json`.
        folder: where it is: the lock there knows more than a process's number.
    """
    return standing(folder, info).alive


def lines_of(folder: Path, table: str) -> Path:
    """Return where a table's lines are while a run goes."""
    return folder / f"{table}.jsonl"
