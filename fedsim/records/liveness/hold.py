"""The lock on a run folder: held while a process works on the run, released by the kernel however that ends.

`RUN/run.lock` is there while a run goes, and after a run that was killed. It says who holds it and when that was last
seen alive, and it keeps some room on the disk: a run that finds the disk full gives it back, and can still
write down how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import threading
import time
import weakref
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from fedsim.errors import RunFolderError, message
from fedsim.records.liveness.process import Process, this_process

if sys.platform != "win32":  # there, who is alive is known by the beat alone
    import fcntl

NAME = "run.lock"
BEAT_S = 15.0
"""Real seconds between two beats."""
HEAD_BYTES = 1024
"""The text at the head of the file, padded with spaces."""
ROOM_BYTES = 256 * 2**10
"""What the file keeps free for the last rows and `run.json` of a run that finds the disk full."""
_FLAGS = 0 if sys.platform == "win32" else os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""A link, or a pipe that somebody has put in the file's place, is not followed or waited for."""
_PATIENCE_S = 1.0
"""Others look at a lock for a moment; only who has it for longer holds it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a lock file says.

    Attributes:
        host, pid, process: who holds it.
        inode: the number of the file where it was made; a copy of it has another one.
        locked: whether the file system knows locks.
        beat: when the holder was alive last, by its clock [s since 1970].
    """

    host: str
    pid: Annotated[int, Field(gt=0)]
    process: Process
    inode: int
    locked: bool
    beat: float


@cache
def _reader() -> TypeAdapter[Mark]:
    return TypeAdapter(Mark)


class Hold:
    """A lock that this process has; `release` or the end of the process lets it go."""

    def __init__(self, folder: Path, descriptor: int, *, locked: bool) -> None:
        self._path, self._descriptor = folder / NAME, descriptor
        self._mark = Mark(
            host=socket.gethostname(),
            pid=os.getpid(),
            process=this_process(),
            inode=os.fstat(descriptor).st_ino,
            locked=locked,
            beat=0.0,
        )
        self._close = weakref.finalize(self, os.close, descriptor)
        self._one = threading.Lock()  # a descriptor that was closed may be another file's by now
        self.beat()
        with contextlib.suppress(OSError):  # a full disk keeps no room; the run is told at its first row
            os.pwrite(descriptor, bytes(ROOM_BYTES), HEAD_BYTES)

    def beat(self) -> None:
        """Write down that the holder is alive; a disk that takes nothing is not the beat's concern."""
        text = json.dumps({**asdict(self._mark), "beat": time.time()})
        with self._one, contextlib.suppress(OSError):
            if self._close.alive:
                os.pwrite(self._descriptor, text.ljust(HEAD_BYTES).encode(), 0)

    def give_room(self) -> None:
        """Give the room back that the file has kept on the disk."""
        with self._one, contextlib.suppress(OSError):
            if self._close.alive:
                os.ftruncate(self._descriptor, HEAD_BYTES)

    def is_on(self, folder: Path) -> bool:
        """Tell whether it is the lock on a folder."""
        with self._one:
            return self._close.alive and _is_at(folder / NAME, self._descriptor)

    def release(self) -> None:
        """Let go of the folder and remove the file; safe to call twice."""
        with self._one:
            if self._close.alive:
                with contextlib.suppress(OSError):
                    if _is_at(self._path, self._descriptor):
                        self._path.unlink()
                self._close()


def hold(folder: Path) -> Hold:
    """Take the lock on a folder that exists.

    Raises:
        RunFolderError: another process, or another run of this one, is at work there.
        OSError: the folder takes no file.
    """
    if hold_of(folder) is not None:
        raise _taken(folder)
    give_up_s = time.monotonic() + _PATIENCE_S
    _clear(folder / NAME)
    while True:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
        try:
            locked = _lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > give_up_s:
                raise _taken(folder) from None
            time.sleep(0.05)
            continue
        if _is_at(folder / NAME, descriptor):  # who had it before may have removed the file meanwhile
            held = Hold(folder, descriptor, locked=locked)
            _beat_for(held)
            return held
        os.close(descriptor)


def hold_of(folder: Path) -> Hold | None:
    """Return the lock that this process has on a folder; None: it has none."""
    with _CHANGING:
        holds = list(_BEATING)
    return next((held for held in holds if held.is_on(folder)), None)


def is_held(folder: Path) -> bool:
    """Tell whether a process holds the lock on a folder right now, as far as the file system knows."""
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | _FLAGS)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def mark_of(folder: Path) -> Mark | None:
    """Return what the lock file of a folder says; None if there is none, or nothing to be read."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | _FLAGS)
    except OSError:
        return None
    try:
        text = os.read(descriptor, HEAD_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        return _reader().validate_python(json.loads(text))
    except (OSError, ValueError, RecursionError):  # pydantic's errors are ValueErrors
        return None
    finally:
        os.close(descriptor)


def is_copied(folder: Path, mark: Mark) -> bool:
    """Tell whether a lock file is not where it was made: copies have another inode."""
    try:
        return (folder / NAME).stat().st_ino != mark.inode
    except OSError:
        return False


def _lock(descriptor: int) -> bool:
    """Lock a file; returns whether its file system can do that. Raises BlockingIOError if somebody has it."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _clear(path: Path) -> None:
    """Remove what is no lock file of ours: a link, a pipe, a file that has other names elsewhere."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            path.unlink()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there, here = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _taken(folder: Path) -> RunFolderError:
    mark = mark_of(folder)
    who = "another process" if mark is None else f"process {mark.pid} on {mark.host}"
    return RunFolderError(
        message(str(folder), f"{who} is at work on this run", fix="wait for it, or end it first")
    )


# the beat ---------------------------------------------------------------------------------------

_BEATING: weakref.WeakSet[Hold] = weakref.WeakSet()
_CHANGING = threading.Lock()
_THREADS: dict[int, threading.Thread] = {}
"""The thread that beats, by process: a forked one has no threads of its parent's."""


def _beat_for(held: Hold) -> None:
    with _CHANGING:
        _BEATING.add(held)
        if os.getpid() not in _THREADS:
            thread = threading.Thread(target=_beat_on, name="fedsim-beat", daemon=True)
            _THREADS[os.getpid()] = thread
            thread.start()


def _beat_on() -> None:
    while True:
        time.sleep(BEAT_S)
        with _CHANGING:
            holds = list(_BEATING)
        for held in holds:
            held.beat()
        holds.clear()  # what nobody has any more is let go before the next beat
