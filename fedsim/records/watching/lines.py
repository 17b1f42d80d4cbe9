"""The rows that a run is just writing, read from the end of their files: nothing is folded, nothing is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from fedsim.files.opened import LINE_BYTES, UnreadableError, is_hollow, opened

Facts: TypeAlias = Mapping[str, object]
"""A row, or a block of `run.json`, whose values nobody has looked at yet."""
TAIL_BYTES = 2**20
"""How much of the end of a file is read: some thousand rows."""
_PIECE_BYTES = 2**22
_OUTCOME = re.compile(rb'"outcome":"([a-z_]{1,20})"')


def last_rows(path: Path, most_bytes: int = TAIL_BYTES) -> list[Facts]:
    """Return the rows at the end of a file of JSON lines, in their order; none if there is no such file.

    The line that is being written, and one that was cut off where the reading begins, are left out, and so is what is no row.
    """
    try:
        with opened(path, folder=path.parent) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most_bytes))
            data = file.read(most_bytes)
    except (OSError, UnreadableError):
        return []
    lines = data.split(b"\n")
    first = 0 if size <= most_bytes else 1
    return [row for line in lines[first:] if (row := _row(line)) is not None]


def _row(line: bytes) -> Facts | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def outcomes(path: Path) -> dict[str, int]:
    """Return how many visits of a file have ended in each way: a gigabyte in about a second."""
    counts: dict[str, int] = {}
    for name in _named_outcomes(path):
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _named_outcomes(path: Path) -> Iterator[str]:
    """Yield the outcome of every whole line; other text of a row cannot look like one: quotes in it are escaped."""
    try:
        with opened(path, folder=path.parent) as file:
            rest = b""
            while not is_hollow(file.fileno()) and (data := file.read(_PIECE_BYTES)):
                whole, newline, rest = (rest[-LINE_BYTES:] + data).rpartition(b"\n")
                if newline:
                    yield from (match[1].decode() for match in _OUTCOME.finditer(whole))
    except (OSError, UnreadableError):
        return


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes on its disk [bytes], whatever is in it; links are not followed."""
    total, folders = 0, [folder]
    while folders:
        try:
            inside = list(folders.pop().iterdir())
        except OSError:  # gone, or not ours to read
            continue
        for path in inside:
            try:
                facts = path.lstat()
            except OSError:
                continue
            total += allocated(facts.st_size, facts.st_blocks)
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
    return total


def allocated(size_bytes: int, blocks: int) -> int:
    """Return the bytes of a file on its disk: `blocks` of 512; its size where a file system does not say."""
    return 512 * blocks if blocks else size_bytes
