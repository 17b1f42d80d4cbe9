"""Files of others, opened with care: regular ones, inside their folder, no longer than what may be read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedsim.errors import ABSENT, Message

MIB, GIB = 2**20, 2**30
SETTINGS_BYTES = MIB
"""Longest YAML file."""
FACTS_BYTES = 16 * MIB
"""Longest JSON file of facts: `run.json`, a list of pictures, the configuration of a model, a list of its files."""
LINE_BYTES = MIB
"""Longest line of a file of rows."""
PICTURE_BYTES = 256 * MIB
"""Longest file of one picture."""
DATA_GIB = 4.0
"""Longest file of data, tables and traces, unless `FEDSIM_MAX_FILE_GIB` says otherwise [GiB]."""
VARIABLE = "FEDSIM_MAX_FILE_GIB"
_ELSEWHERE = "put the file itself there, as `cp -rL` does"

_READ = (
    os.O_RDONLY if os.name == "nt" else os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
)  # a pipe nobody writes to is opened at once, and refused
NO_LINKS = 0 if os.name == "nt" else os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""For `os.open` of what is written in place: the name itself must be the file's."""


class UnreadableError(Exception):
    """A file is not what it must be; whoever wanted it says so in an error of its own.

    Attributes:
        what: is wrong with it, in one sentence.
        line: the line it is about, from 1; None: the whole file.
        got: the offending value.
        fix: one way out.
    """

    def __init__(self, what: str, *, fix: str, line: int | None = None, got: object = ABSENT) -> None:
        super().__init__(what)
        self.what, self.fix, self.line, self.got = what, fix, line, got

    def message(self, where: str, line: str = "row") -> Message:
        """Return it as a message about the file `where`; `line` is what a line of it is called."""
        place = where if self.line is None else f"{where} {line} {self.line}"
        return Message(self.what, place, self.got, self.fix)


def data_bytes() -> int:
    """Return how long a file of data may be.

    Raises:
        UnreadableError: `FEDSIM_MAX_FILE_GIB` is no positive number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        gib = float(text) if text else DATA_GIB
    except ValueError:
        gib = -1.0
    if not 0 < gib < 2**30:
        raise UnreadableError(
            f"{VARIABLE} must be a positive number of GiB", got=text, fix=f"export {VARIABLE}=16"
        )
    return int(gib * GIB)


@contextmanager
def opened(path: Path, most: int | None = None, *, folder: Path | None = None) -> Iterator[BinaryIO]:
    """Open a regular file to read its bytes.

    Args:
        path: of the file; a pipe, a device or a socket is refused before a byte is read.
        most: bytes that it may have; None: any number.
        folder: in which it must lie itself: neither it nor a folder on the way may be a link to elsewhere.

    Raises:
        UnreadableError: no regular file, too long, or a link to elsewhere.
        OSError: it is not there, or cannot be opened.
    """
    if folder is not None:
        refuse_elsewhere(folder, path)
    try:
        descriptor = os.open(path, _READ)
    except ValueError as problem:
        raise UnreadableError("is no name of a file", fix="check the path") from problem
    try:
        _check(os.fstat(descriptor), most)
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        yield file


def is_hollow(descriptor: int) -> bool:
    """Tell whether an open file is long and consists of holes: nobody wrote it, and reading it has no end."""
    status = os.fstat(descriptor)
    return os.name != "nt" and status.st_size > GIB and 512 * status.st_blocks < status.st_size // 100


def _check(status: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("is no file but a pipe, a device or a folder", fix="give a file")
    if most is not None and status.st_size > most:
        raise too_long(status.st_size, most)


def refuse_elsewhere(folder: Path, path: Path) -> None:
    """Raise an UnreadableError if a path in a folder leads out of it through a link.

    Raises:
        OSError: links that lead in a circle.
    """
    try:
        there, here = path.resolve(), folder.resolve()
    except RuntimeError as problem:  # what Python 3.11 says of links in a circle
        raise UnreadableError("is a link to itself", fix=_ELSEWHERE) from problem
    if not there.is_relative_to(here):
        raise UnreadableError("is a link to outside of its folder", fix=_ELSEWHERE)


def too_long(size: int, most: int) -> UnreadableError:
    """Return what is wrong with a file of more bytes than may be read."""
    raised = f"split it, or allow more with {VARIABLE}" if most >= GIB else "is it the right file?"
    what = f"has {_size(size)}, and no more than {_size(most)} are read"
    return UnreadableError(what, fix=raised)


def _size(count: int) -> str:
    """Return a number of bytes in words.

    >>> _size(10 * GIB), _size(1500)
    ('10.0 GiB', '1,500 bytes')
    """
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count:,} bytes"


def bytes_of(path: Path, most: int | None = None, *, folder: Path | None = None) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes (None: as of data); see `opened`.

    Raises:
        UnreadableError: as `opened`; also where it grows meanwhile.
        OSError: it is not there, or cannot be opened.
    """
    limit = data_bytes() if most is None else most
    with opened(path, limit, folder=folder) as file:
        data = file.read(os.fstat(file.fileno()).st_size + 1)
        while len(data) <= limit and (more := file.read(MIB)):  # it grows, or says no size, as in /proc
            data += more
    if len(data) > limit:
        raise too_long(len(data), limit)
    return data


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file of data.

    Raises:
        UnreadableError: it is no file, too long, or cannot be read.
    """
    try:
        if path.is_dir():
            raise UnreadableError("is no file", fix="give a file; it is a folder")
        return bytes_of(path)
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise UnreadableError("is no file", fix="check the path") from problem
        raise UnreadableError(
            f"cannot be read ({problem.strerror})", fix="check its permissions"
        ) from problem
