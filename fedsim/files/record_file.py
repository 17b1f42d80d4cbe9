"""A file of equally long records, one vector of a client each; which slots are in use, and what is in them.

See `fedsim.files.client_vectors` for the format.
"""

from __future__ import annotations

import os
import stat
import struct
import weakref
import zlib
from pathlib import Path

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.errors import HostError, RunFolderError, message
from fedsim.files.opened import NO_LINKS

HEAD = struct.Struct("<8sq")
RECORD = struct.Struct("<qqI")
MARK = b"fedkept1"
MOST_FLOATS = 2**40
"""Of a record: more than any model has."""


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
        weakref.finalize(self, os.close, descriptor)

    def write(self, client: int, vector: Vector) -> Slot:
        """Write a record into a free slot and return its place, which holds the slot while it lives."""
        values = np.ascontiguousarray(vector, dtype="<f4").tobytes()
        self._stamp += 1
        slot = self._free.pop() if self._free else self._slots
        self._slots = max(self._slots, slot + 1)
        place = Slot(self, slot, self._stamp)
        self._write_bytes(self._at(slot), _sealed(client, self._stamp, values))
        return place

    def read(self, slot: int) -> Vector:
        """Return a copy of the values in a slot, read-only."""
        values = np.frombuffer(self._read_bytes(self._at(slot), self._bytes), dtype="<f4", offset=RECORD.size)
        return values.astype(np.float32, copy=False)

    def free_slot(self, slot: int) -> None:
        """No view points to a slot any more."""
        self._free.append(slot)

    def scan_records(self) -> dict[int, Slot]:
        """Find the last whole record of every client; all other slots are free."""
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
        return {client: Slot(self, slot, stamp) for client, (stamp, slot) in last.items()}

    def slot_again(self, client: int, slot: int, stamp: int) -> Slot:
        """Find a record where somebody has noted it, with the stamp that it had.

        Raises:
            RunFolderError: it is not there any more as it was.
        """
        inside = slot >= 0 and self._at(slot + 1) <= os.fstat(self._descriptor).st_size
        record = os.pread(self._descriptor, self._bytes, self._at(slot)) if inside else b""
        if len(record) < self._bytes or record != _sealed(client, stamp, record[RECORD.size :]):
            what = f"does not hold any more what client {client} had kept"
            raise RunFolderError(message(self.where, what))
        return Slot(self, slot, stamp)

    def go_on(self, held: set[int]) -> None:
        """Use every slot but these again, with stamps that no record has."""
        self._slots = max(0, os.fstat(self._descriptor).st_size - HEAD.size) // self._bytes
        for slot in range(self._slots):
            _, stamp, _ = RECORD.unpack(os.pread(self._descriptor, RECORD.size, self._at(slot)))
            self._stamp = max(self._stamp, stamp)
        self._free = [slot for slot in reversed(range(self._slots)) if slot not in held]

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


class Slot:
    """A slot of a file, in use as long as this object lives."""

    __slots__ = ("file", "slot", "stamp")

    def __init__(self, file: RecordFile, slot: int, stamp: int) -> None:
        """Take a slot of a file, and the stamp of the record in it."""
        self.file, self.slot, self.stamp = file, slot, stamp

    def __del__(self) -> None:
        """Hand the slot back."""
        self.file.free_slot(self.slot)


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
