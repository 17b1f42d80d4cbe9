# ruff: noqa: PTH100, PTH110, PTH115
"""Every change that a process makes to a folder: counted, named by the code that makes it, and cut off where a test says.

What is caught: `open` and everything written through it, the calls of `os` that change files, and the writer of
safetensors, which is no Python. Two processes that make the same changes have the same numbers for them, so the n-th
change of an undisturbed run is a place at which the next one can be killed.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import signal
import sys
from dataclasses import dataclass, field

GROWING = ("create", "write", "mkdir", "library")
"""Changes that need room on the disk."""
DEPTH = 4
"""Functions of fedsim that name a seam, the innermost first."""


@dataclass(frozen=True)
class Order:
    """What is to happen at a change.

    Attributes:
        what: `trace` (nothing), `kill`, `power` (the kill, with a journal of what the disk was told), `full` (no room
            from there on) or `short` (no room there, and again room afterwards).
        at: number of the change, from 0; -1: at none.
        when: `before` the change, in the `half` of it, or `after` it.
        out: where the trace or the journal goes.
    """

    what: str = "trace"
    at: int = -1
    when: str = "before"
    out: str = ""


@dataclass(frozen=True)
class Change:
    """A change: what it does, to which file (numbers of processes left out), how many bytes, and who makes it."""

    what: str
    name: str
    size: int
    seam: str

    @property
    def place(self):
        """What makes two changes alike."""
        return f"{self.what} {self.name} by {self.seam}"


@dataclass
class Watch:
    """The changes so far, and the order that waits for its moment."""

    folder: str
    order: Order
    changes: list = field(default_factory=list)
    journal: list = field(default_factory=list)

    def relative(self, path):
        """The path inside the folder, or None if it lies elsewhere."""
        path = os.path.abspath(os.fsdecode(path))
        if path == self.folder:
            return "."
        return path[len(self.folder) + 1 :] if path.startswith(self.folder + os.sep) else None

    def change(self, what, name, act, *, size=0, half=None, entries=()):
        """Make a change, or what the order says instead."""
        order, number = self.order, len(self.changes)
        seam = seam_of() if order.what == "trace" else ""
        self.changes.append(Change(what, re.sub(r"\d{2,}", "#", name), size, seam))
        here = number == order.at
        if order.what in ("full", "short") and what in GROWING and order.at >= 0:
            if here and order.when == "half" and what == "write":
                return half()  # a short write, which is no error yet
            if here or (order.what == "full" and number > order.at):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        elif here and order.when == "before":
            self.die()
        elif here and order.when == "half" and half is not None:
            half()
            self.die()
        answer = act()
        if order.what == "power":
            self.journal += [entry() if callable(entry) else entry for entry in entries]
        if here and order.what in ("kill", "power"):
            self.die()
        return answer

    def die(self):
        """End this process as `kill -9` does."""
        if self.order.what == "power":
            self.save(self.journal)
        os.kill(os.getpid(), signal.SIGKILL)

    def save(self, thing):
        """Leave the trace or the journal outside the folder."""
        with OPEN(self.order.out, "wb") as file:
            pickle.dump(thing, file)


def seam_of():
    """The functions of fedsim on the way to a change, the innermost first."""
    frame, names = sys._getframe(2), []
    while frame is not None and len(names) < DEPTH:
        path = frame.f_code.co_filename
        if f"{os.sep}fedsim{os.sep}" in path:
            module = path.rsplit(f"{os.sep}fedsim{os.sep}", 1)[1].removesuffix(".py").replace(os.sep, ".")
            name = f"{module}:{frame.f_code.co_qualname}"
            if not names or names[-1] != name:
                names.append(name)
        frame = frame.f_back
    return " < ".join(names)


OPEN = io.open
NAMES = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "fdatasync",
    "replace",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "ftruncate",
    "truncate",
)
CALLS = {name: getattr(os, name) for name in NAMES}
"""The functions as they are."""


def path_of(descriptor):
    """Where an open file lies now."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def opened(watch, path, *, truncates, creates, act):
    """Open a file for writing; that it comes into being or is emptied is a change."""
    name = watch.relative(path)
    exists = os.path.exists(path)
    if name is None or not ((creates and not exists) or (truncates and exists)):
        return act()
    what = "empty" if exists else "create"
    return watch.change(what, name, act, entries=[("empty" if exists else "create", name)])


class File(io.FileIO):
    """A file of the watched folder; every write is a change."""

    watch: Watch

    def write(self, data):
        """Write, if the order lets it."""
        data = bytes(data)
        at = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        return written(self.watch, path_of(self.fileno()), at, data, super().write)

    def truncate(self, size=None):
        """Cut the file off."""
        name, size = self.watch.relative(path_of(self.fileno())), self.tell() if size is None else size
        act = lambda: io.FileIO.truncate(self, size)
        return self.watch.change("cut", name, act, entries=[("cut", name, size)])


def written(watch, path, at, data, write):
    """Write some bytes at a place of a file."""
    name = watch.relative(path)
    if name is None or not data:
        return write(data)

    def half():
        return write(data[: len(data) // 2])

    entries = [("write", name, at, data)]
    return watch.change("write", name, lambda: write(data), size=len(data), half=half, entries=entries)
