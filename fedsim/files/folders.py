"""The files of a folder that somebody means: what hides, what systems leave behind and read-me files apart."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsim.files.opened import UnreadableError
from fedsim.files.text_file import shown

_LEFTOVERS = frozenset({
    "__macosx", "__pycache__", "$recycle.bin", "desktop.ini", "lost+found", "system volume information", "thumbs.db",
})  # fmt: skip
"""What systems leave in folders, in small letters; names that begin with a dot or `~$` besides."""
_ABOUT = ("readme", "license", "licence")
_PROSE = ("", ".md", ".txt", ".text", ".rst", ".html")


@dataclass(frozen=True)
class Contents:
    """What is in a folder and below it.

    Attributes:
        files: of the suffixes that were asked for, in the order of their paths.
        left_out: files of other kinds, read-me files, links to folders and dangling links, in the same order; what
            hides is not in it.
    """

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]


def is_leftover(name: str) -> bool:
    """Tell whether a file or folder hides, or was left by a system: it is passed over without a word.

    >>> [is_leftover(name) for name in ("._a.txt", "__MACOSX", "Thumbs.db", "~$a.csv", "a.txt")]
    [True, True, True, True, False]
    """
    return name.startswith((".", "~$")) or name.lower() in _LEFTOVERS


def is_about(name: str) -> bool:
    """Tell whether a file is about the data and not of them: README, LICENSE.

    >>> [is_about(name) for name in ("README.md", "License-MIT.txt", "LICENSE", "readme.csv")]
    [True, True, True, False]
    """
    return name.lower().startswith(_ABOUT) and Path(name).suffix.lower() in _PROSE


def contents(folder: Path, suffixes: Collection[str]) -> Contents:
    """Return the files below a folder that have one of these suffixes (`.csv`), in whatever case.

    Links to files are followed, links to folders are not: nothing outside is read by accident, and there are
    no circles.

    Raises:
        UnreadableError: a folder cannot be listed.
    """
    files: list[Path] = []
    left_out: list[Path] = []
    for path in sorted(_walk(folder)):
        wanted = path.suffix.lower() in suffixes and not is_about(path.name)
        (files if wanted and _is_file(path) else left_out).append(path)
    return Contents(tuple(files), tuple(left_out))


def listed(folder: Path, paths: Sequence[Path], most: int = 5) -> str:
    """Return names of files for a message: the first ones, relative to the folder, and how many more there are.

    >>> listed(Path("d"), [Path("d/a.pdf"), Path("d/b/c.bin")], most=1)
    'a.pdf and 1 more'
    """
    names = ", ".join(shown(path.relative_to(folder)) for path in paths[:most])
    return names + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files below a folder, and links whatever they lead to."""
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as entries:
                there = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as problem:
            what = f"the folder {shown(here)} cannot be listed ({problem.strerror})"
            raise UnreadableError(what, fix="check its permissions") from problem
        for name, is_folder in there:
            if is_folder and not is_leftover(name):
                folders.append(here / name)
            elif not is_leftover(name):
                yield here / name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
