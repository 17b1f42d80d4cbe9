"""A file of equally long records, one vector of a client each; which slots are in use, and what is in them.

See `fedsim.files.client_vectors` for the format.
"""

from __future__ import annotations

import os
import stat
import struct
import weakref
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.arrays import Ints
from fedsim.errors import HostError, RunFolderError, message
from fedsim.files.opened import NO_LINKS, is_hollow

HEAD = struct.Struct("<8sq")
RECORD = struct.Struct("<qqI")
MARK = b"fedkept1"
MOST_FLOATS = 2**40
"""Of a record: more than any model has."""


_Minus: TypeAlias = Callable[[NDArray[np.int32], Ints, int], None]


class RecordFile:
    """A file of equally long records; knows which slots are free.

    Attributes:
        size: floats of a record.
        where: what errors call it.
        path: of the file; None: it has no name.
    """

    def __init__(self, descriptor: int, size: int, where: str, path: Path | None = None) -> None:
        """Take an open file, whose end is what is closed with this object."""
        self.size, self.where, self.path = size, where, path
        self._descriptor = descriptor
        self._bytes = RECORD.size + 4 * size
        self._slots = 0
        self._stamp = 0
        self._free: list[int] = []
        self._users = np.zeros(16, np.int32)  # of each slot, how many pages of views point to it
        weakref.finalize(self, os.close, descriptor)

    def write(self, client: int, vector: Vector) -> tuple[int, int]:
        """Write a record into a free slot and return the slot and its stamp; nobody points to it yet.

        Raises:
            HostError: the disk does not take it.
        """
        values = np.ascontiguousarray(vector, dtype="<f4").tobytes()
        self._stamp += 1
        slot, stamp = self._free.pop() if self._free else self._slots, self._stamp
        self._slots = max(self._slots, slot + 1)
        try:
            self._write_bytes(self._at(slot), _sealed(client, stamp, values))
        except BaseException:
            self._free.append(slot)
            raise
        return slot, stamp

    def point_to(self, slots: Ints) -> None:
        """Let one more page point to some slots."""
        if slots.size and slots.max() >= self._users.size:
            self._users.resize(2 * int(slots.max()) + 1, refcheck=False)
        np.add.at(self._users, slots, 1)

    def leave(self, slots: Ints, minus: _Minus = np.subtract.at) -> None:
        """Let one page less point to some slots; those to which none does are free."""
        minus(self._users, slots, 1)  # in one step: whatever is collected just now may do the same
        self._free.extend(slots[self._users[slots] == 0].tolist())

    def free(self, slots: Sequence[int]) -> None:
        """Let slots be free that were written, and to which nobody points."""
        self._free.extend(slots)

    def read(self, slot: int) -> Vector:
        """Return a copy of the values in a slot, read-only."""
        values = np.frombuffer(self._read_bytes(self._at(slot), self._bytes), dtype="<f4", offset=RECORD.size)
        return values.astype(np.float32, copy=False)

    def scan_records(self) -> tuple[Ints, Ints, Ints]:
        """Find the last whole record of every client; all other slots are free.

        Returns:
            Clients, ascending, their slots, and the stamps in these, (n,) each.

        Raises:
            RunFolderError: the file is long and consists of holes.
        """
        if is_hollow(self._descriptor):
            raise RunFolderError(message(self.where, "consists of holes", fix="restore it from a copy"))
        last: dict[int, tuple[int, int]] = {}
        self._slots = max(0, os.fstat(self._descriptor).st_size - HEAD.size) // self._bytes
        for slot in range(self._slots):
            record = self._read_bytes(self._at(slot), self._bytes)
            client, stamp, _ = RECORD.unpack_from(record)
            if record == _sealed(client, stamp, record[RECORD.size :]):
                last[client] = max(last.get(client, (-1, -1)), (stamp, slot))
        self._stamp = max((stamp for stamp, _ in last.values()), default=0)
        held = {slot for _, slot in last.values()}
        self._free = [slot for slot in reversed(range(self._slots)) if slot not in held]
        rows = sorted((client, slot, stamp) for client, (stamp, slot) in last.items())
        clients, slots, stamps = np.array(rows, dtype=np.int64).reshape(len(rows), 3).T
        return clients, slots, stamps

    def check(self, client: int, slot: int, stamp: int) -> None:
        """Look for a record where somebody has noted it, with the stamp that it had.

        Raises:
            RunFolderError: it is not there any more as it was.
        """
        inside = slot >= 0 and self._at(slot + 1) <= os.fstat(self._descriptor).st_size
        record = os.pread(self._descriptor, self._bytes, self._at(slot)) if inside else b""
        if len(record) < self._bytes or record != _sealed(client, stamp, record[RECORD.size :]):
            what = f"does not hold any more what client {client} had kept"
            raise RunFolderError(message(self.where, what))

    def go_on(self) -> None:
        """Use every slot again to which no page points, with stamps that no record has.

        What comes after the last one in use is cut off, however long it is.

        Raises:
            HostError: the file cannot be cut.
        """
        in_use = np.flatnonzero(self._users)
        self._slots = int(in_use[-1]) + 1 if in_use.size else 0
        try:
            os.ftruncate(self._descriptor, self._at(self._slots))
        except OSError as problem:
            raise HostError(message(self.where, f"cannot be cut ({problem.strerror})")) from problem
        for slot in range(self._slots):
            _, stamp, _ = RECORD.unpack(os.pread(self._descriptor, RECORD.size, self._at(slot)))
            self._stamp = max(self._stamp, stamp)
        self._free = np.flatnonzero(self._users[: self._slots] == 0)[::-1].tolist()

    def sync(self) -> None:
        """Have on the disk what was written.

        Raises:
            OSError: the disk does not take it.
        """
        os.fsync(self._descriptor)

    def _at(self, slot: int) -> int:
        return HEAD.size + slot * self._bytes

    def _write_bytes(self, at: int, data: bytes) -> None:
        try:
            while data:
                written = os.pwrite(self._descriptor, data, at)
                data, at = data[written:], at + written
        except OSError as problem:
            raise HostError(
                message(self.where, f"cannot keep a client's vector ({problem.strerror})")
            ) from problem

    def _read_bytes(self, at: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, at)
        while 0 < len(data) < count:
            more = os.pread(self._descriptor, count - len(data), at + len(data))
            if not more:
                break
            data += more
        if len(data) < count:
            raise HostError(message(self.where, f"ends at byte {at + len(data)}, inside a record"))
        return data


def _sealed(client: int, stamp: int, values: bytes) -> bytes:
    """Return a record with its checksum."""
    check = zlib.crc32(values, zlib.crc32(RECORD.pack(client, stamp, 0)))
    return RECORD.pack(client, stamp, check) + values


def opened(path: Path) -> RecordFile:
    """Return a file of records that is there, all its slots in use.

    Raises:
        RunFolderError: no such file, or not one of ours.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | NO_LINKS)
    except OSError as problem:
        raise RunFolderError(message(str(path), f"cannot be read ({problem.strerror})")) from problem
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # it is written in place
        os.close(descriptor)
        what = "is no file, or one that has another name, too"
        raise RunFolderError(message(str(path), what, fix="put a copy of it there"))
    head = os.pread(descriptor, HEAD.size, 0)
    mark, size = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0)
    if mark != MARK or not 0 <= size <= MOST_FLOATS:
        os.close(descriptor)
        raise RunFolderError(message(str(path), "holds no vectors kept by clients"))
    return RecordFile(descriptor, size, str(path), path)
