"""A file that one process holds at a time; the system lets go of it when that process ends, however it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedsim.errors import RunFolderError, message


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while a block runs; the file stays, empty of meaning.

    Args:
        path: of the file; its folder is made.
        what: whose the folder is then, for the one that comes too late: `is being swept`.

    Raises:
        RunFolderError: another process holds it, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as problem:
        folder = str(path.parent)
        raise RunFolderError(message(folder, f"cannot be written to ({problem.strerror})")) from problem
    try:
        if not _taken(descriptor):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            fix = "wait until it has ended, or give another --out"
            raise RunFolderError(message(str(path.parent), f"{what} by {holder}", fix=fix))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take the lock; False if somebody has it. A system or a disk without locks lets everybody in."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        with suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
