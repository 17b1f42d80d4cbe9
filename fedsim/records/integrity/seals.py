"""SHA-256 of what a run has left, in its `run.json`: of its files, and of the columns that training computes.

They tell what was changed afterwards. Who changes a file and `run.json` alike is not noticed by them: what does not
depend on training is then still found by the replay (`fedsim.runs.audit`), what does only by training again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsim.files.opened import UnreadableError, is_hollow, opened
from fedsim.records.tables import TABLES, Arrays

if TYPE_CHECKING:
    from fedsim.records.info import RunInfo

VALUES = {
    "visits": ("loss", "loss_square"),
    "commits": ("update_norm", "mean_cosine"),
    "scores": ("metric", "value"),
    "personal": ("kind", "metric", "metric_global", "metric_personal", "metric_local", "gain", "tokens"),
}
"""Columns that training computes: no replay of the schedule gives them."""
FILES = ("experiment.yaml", "wall.jsonl", *(f"{table}.parquet" for table in TABLES))
FOLDERS = ("adapter", "best", "samples", "kept")
FACTS = (
    "best",
    "executor",
    "faulty_personal",
    "last_score",
    "reason",
    "resolved",
    "saved_adapter",
    "status",
    "visits_after",
    "workers",
)
"""Facts of `run.json` that neither the tables nor, all of them, the replay give."""
HEAD = "run.json"
"""The name of their SHA-256 among `numbers`."""
FEDSIM, SINCE = "fedsim-edge", (0, 3)
"""What `run.json` calls fedsim among the versions, and the first one that seals its runs."""
CHUNK_BYTES = 2**20


def sealed(info: RunInfo, folder: Path | None, columns: Mapping[str, Arrays]) -> RunInfo:
    """Return `run.json` with the SHA-256 of the run's files (none of a run in memory) and of its values."""
    files = {} if folder is None else {name: file_sha256(folder / name) for name in written(folder)}
    return replace(info, files=files, numbers=values_sha256(columns) | facts_sha256(info))


def must_be_sealed(info: RunInfo) -> bool:
    """Tell whether the version that made a run seals runs at their end; one that still goes has no seals."""
    version = [int(part) for part in info.versions.get(FEDSIM, "0").split(".")[:2] if part.isdecimal()]
    return info.status != "running" and tuple(version) >= SINCE


def facts_sha256(info: RunInfo) -> dict[str, str]:
    """Return the SHA-256 of the facts that nothing else tells, by the name that it has among `numbers`."""
    facts = {name: value for name, value in info.plain().items() if name in FACTS}
    return {HEAD: hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}


def written(folder: Path) -> Iterator[str]:
    """Yield the files of a run folder that are sealed, by name: tables, settings, clock, adapters, pictures, what clients keep."""
    for name in FILES:
        if _is_own(folder / name):
            yield name
    for inner in FOLDERS:
        paths = () if (folder / inner).is_symlink() else sorted((folder / inner).rglob("*"))
        yield from (path.relative_to(folder).as_posix() for path in paths if _is_own(path))


def _is_own(path: Path) -> bool:
    """Tell whether a path is a file, and no link to one."""
    return path.is_file() and not path.is_symlink()


def settings_sha256(experiment: Mapping[str, object]) -> str:
    """Return the SHA-256 of plain settings but for those that change no result; of absolute paths `Experiment.digest`."""
    settings = {key: value for key, value in experiment.items() if key not in ("name", "runtime")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
        UnreadableError: it is no regular file, or one of holes.
    """
    sha = hashlib.sha256()
    with opened(path) as file:
        if is_hollow(file.fileno()):
            raise UnreadableError("is long, and consists of holes", fix="remove it")
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def values_sha256(columns: Mapping[str, Arrays]) -> dict[str, str]:
    """Return the SHA-256 of each column of values that has rows; every NaN counts as the same."""
    return {
        f"{table}.{name}": _column_sha256(columns[table], table, name)
        for table, names in VALUES.items()
        for name in names
        if len(columns[table][name])
    }


def _column_sha256(columns: Arrays, table: str, name: str) -> str:
    values = columns[name]
    if TABLES[table][name] == "str":
        return hashlib.sha256("\0".join(map(str, values)).encode()).hexdigest()
    numbers = values.astype("<f8")
    return hashlib.sha256(np.where(np.isnan(numbers), np.nan, numbers).astype("<f8").tobytes()).hexdigest()
