"""Lines that are appended to a file: each is there whole, or not at all."""

from __future__ import annotations

import contextlib
import os


def append_line(descriptor: int, line: bytes) -> None:
    """Append a line; one that does not fit on the disk leaves nothing behind.

    A disk that is nearly full takes the first part of a line and says nothing: the rest has to be tried.

    Args:
        descriptor: of a file that was opened to append.
        line: with its end.

    Raises:
        OSError: the disk does not take it.
    """
    rest = line
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        if len(rest) < len(line):
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - (len(line) - len(rest)))
        raise
