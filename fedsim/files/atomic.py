"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside it, to the disk, then renamed."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside a path, which is on the disk and takes its name at the end; at an error it is gone."""
    beside = beside_of(path)
    try:
        beside.unlink(missing_ok=True)  # what somebody left there, a link to elsewhere perhaps
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def beside_of(path: Path, what: object = "") -> Path:
    """Return where this process writes what is to take the name of a path; `what` tells several apart."""
    return path.with_name(f".{path.name}.{os.getpid()}{what}")


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; where a system cannot open folders, it keeps them by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path, names: Iterable[str]) -> None:
    """Have files on the disk, and the names of all that lie in folders of a folder.

    Args:
        folder: where they are.
        names: of the files, relative to it; some in folders of it.

    Raises:
        OSError: a file is gone, or the disk does not take it.
    """
    inner: set[Path] = set()
    for name in names:
        path = folder / name
        with path.open("rb" if os.name != "nt" else "rb+") as file:
            os.fsync(file.fileno())
        inner.update(folder / parent for parent in Path(name).parents)
    for path in sorted(inner):
        with suppress(OSError):  # some file systems do not let a folder be synchronised
            sync_folder(path)
