"""The files of a model, by their SHA-256; those of the data are in `run.json` already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fedsim.records.integrity.seals import file_sha256

DATA = "data"
"""Keys that begin so name the data, whose SHA-256 the task computes."""
MOST = 10_000
"""Files of a folder that are looked at."""


def model_files(experiment: Mapping[str, object]) -> dict[str, str]:
    """Return the SHA-256 of every file that the block `task` names or that lies in a folder it names, by its path.

    Args:
        experiment: plain settings. What is on the hub, or embedded, has no path.

    Raises:
        OSError: one cannot be read.
    """
    task = experiment.get("task")
    paths = sorted({path for path in _paths(task if isinstance(task, Mapping) else {}) if path.exists()})
    files = [file for path in paths for file in (_inside(path) if path.is_dir() else [path])]
    return {str(file): file_sha256(file) for file in files}


def _paths(block: Mapping[str, object]) -> Iterator[Path]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _paths(value)
        elif isinstance(value, str) and Path(value).is_absolute() and not key.startswith(DATA):
            yield Path(value)


def _inside(folder: Path) -> list[Path]:
    return [path for path, _ in zip(sorted(folder.rglob("*")), range(MOST), strict=False) if path.is_file()]
