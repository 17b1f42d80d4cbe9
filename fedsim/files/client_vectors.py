"""What clients keep to themselves, on disk: one float32 vector a client, and a small index in RAM.

A `ClientVectors` is an immutable view. `including` writes new vectors into free slots of one file and returns
a view that points to them; it never changes a slot that some view points to, so an older view keeps
its values for as long as anybody holds it. A slot is free again, and reused, once the last view that
points to it is gone. RAM holds about 200 bytes a client, whatever the length of a vector, and one
vector at a time.

File: a head of 16 bytes (`fedkept1`, the number n of floats as a 64-bit integer), then slots of
20 + 4 n bytes: client and stamp (64-bit integers), CRC-32 of both and of the values, the values; all
little-endian. Every record says whose it is and when it was written, and the one that it replaces is
overwritten only later, so a killed process leaves a file that `ClientVectors.read` makes a view of:
what the clients of a run kept can be looked at after it, and carried on with. (Nothing is
synchronised with the disk: a power failure may lose what was written last, never mix two records.)
"""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.errors import HostError, RunFolderError, message

_HEAD = struct.Struct("<8sq")
_RECORD = struct.Struct("<qqI")
_MARK = b"fedkept1"
_PAGE = 128
"""Clients of one page of the index: `including` copies the pages it changes and the list of pages."""


class _File:
    """A file of equally long records; knows which slots are free."""

    def __init__(self, descriptor: int, size: int, where: str) -> None:
        self.size, self.where = size, where
        self._descriptor = descriptor
        self._bytes = _RECORD.size + 4 * size
        self._slots = 0
        self._stamp = 0
        self._free: list[int] = []
        weakref.finalize(self, os.close, descriptor)

    def write(self, client: int, vector: Vector) -> _Place:
        """Write a record into a free slot and return its place, which holds the slot while it lives."""
        values = np.ascontiguousarray(vector, dtype="<f4").tobytes()
        self._stamp += 1
        slot = self._free.pop() if self._free else self._slots
        self._slots = max(self._slots, slot + 1)
        place = _Place(self, slot)
        self._write_bytes(self._at(slot), _sealed(client, self._stamp, values))
        return place

    def read(self, slot: int) -> Vector:
        """Return a copy of the values in a slot, read-only."""
        values = np.frombuffer(
            self._read_bytes(self._at(slot), self._bytes), dtype="<f4", offset=_RECORD.size
        )
        return values.astype(np.float32, copy=False)

    def free_slot(self, slot: int) -> None:
        """No view points to a slot any more."""
        self._free.append(slot)

    def scan_records(self) -> dict[int, _Place]:
        """Find the last whole record of every client; all other slots are free."""
        last: dict[int, tuple[int, int]] = {}
        self._slots = max(0, os.fstat(self._descriptor).st_size - _HEAD.size) // self._bytes
        for slot in range(self._slots):
            record = self._read_bytes(self._at(slot), self._bytes)
            client, stamp, _ = _RECORD.unpack_from(record)
            if record == _sealed(client, stamp, record[_RECORD.size :]):
                last[client] = max(last.get(client, (-1, -1)), (stamp, slot))
        self._stamp = max((stamp for stamp, _ in last.values()), default=0)
        held = {slot for _, slot in last.values()}
        self._free = [slot for slot in reversed(range(self._slots)) if slot not in held]
        return {client: _Place(self, slot) for client, (_, slot) in last.items()}

    def _at(self, slot: int) -> int:
        return _HEAD.size + slot * self._bytes

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
    check = zlib.crc32(values, zlib.crc32(_RECORD.pack(client, stamp, 0)))
    return _RECORD.pack(client, stamp, check) + values


class _Place:
    """A slot of a file, in use as long as this object lives."""

    __slots__ = ("file", "slot")

    def __init__(self, file: _File, slot: int) -> None:
        self.file, self.slot = file, slot

    def __del__(self) -> None:
        """Hand the slot back."""
        self.file.free_slot(self.slot)


class ClientVectors:
    """An immutable view: client -> float32 vector; all vectors of a view have one length.

    `ClientVectors(path)` is empty and makes its file at the first vector; without a path that is a temporary
    file (in `TMPDIR`) without a name, which is gone with its last view, however the process ends.
    """

    __slots__ = ("_file", "_len", "_pages", "_path")

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: _File | None = None
        self._pages: dict[int, dict[int, _Place]] = {}
        self._len = 0

    @classmethod
    def read(cls, path: Path) -> ClientVectors:
        """Return the view of the last whole record of every client in a file.

        Raises:
            RunFolderError: no such file, or not one of ours.
        """
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError as problem:
            raise RunFolderError(message(str(path), f"cannot be read ({problem.strerror})")) from problem
        head = os.pread(descriptor, _HEAD.size, 0)
        mark, size = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0)
        if mark != _MARK:
            os.close(descriptor)
            raise RunFolderError(message(str(path), "holds no vectors kept by clients"))
        file = _File(descriptor, size, str(path))
        return cls(path)._with(file, file.scan_records())  # noqa: SLF001

    def get(self, client: int) -> Vector | None:
        """Return a client's vector, read-only and read from the file now, or None."""
        place = self._pages.get(client // _PAGE, {}).get(client)
        return None if place is None else place.file.read(place.slot)

    def including(self, vectors: Mapping[int, Vector]) -> ClientVectors:
        """Return a view with these vectors beside and in place of the ones here; this view stays.

        Raises:
            ValueError: a vector is not flat, or of another length than the others.
            HostError: the disk does not take it.
        """
        if not vectors:
            return self
        first = next(iter(vectors.values()))
        file = self._file or _created(self._path, first.size)
        for client, vector in vectors.items():
            if vector.shape != (file.size,):
                what = f"client {client} keeps a vector of shape {vector.shape}, not ({file.size},)"
                raise ValueError(what)
        return self._with(file, {client: file.write(client, v) for client, v in vectors.items()})

    def _with(self, file: _File, places: Mapping[int, _Place]) -> ClientVectors:
        view = ClientVectors(self._path)
        view._file, view._pages, view._len = file, dict(self._pages), self._len
        copied: set[int] = set()
        for client, place in places.items():
            number = client // _PAGE
            if number not in copied:
                view._pages[number] = dict(view._pages.get(number, {}))
                copied.add(number)
            page = view._pages[number]
            view._len += client not in page
            page[client] = place
        return view

    def __contains__(self, client: object) -> bool:
        """Tell whether a client keeps something."""
        return isinstance(client, int | np.integer) and client in self._pages.get(int(client) // _PAGE, {})

    def __iter__(self) -> Iterator[int]:
        """Go through the clients that keep something, ascending."""
        for number in sorted(self._pages):
            yield from sorted(self._pages[number])

    def __len__(self) -> int:
        """Return how many clients keep something."""
        return self._len

    def __repr__(self) -> str:
        where = "a temporary file" if self._path is None else self._path
        return f"<ClientVectors: vectors of {len(self)} clients in {where}>"


def _created(path: Path | None, size: int) -> _File:
    """Make an empty file for vectors of `size` floats."""
    where = str(path or tempfile.gettempdir())
    try:
        if path is None:
            descriptor, name = tempfile.mkstemp(prefix="fedsim-kept-")
            Path(name).unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(_unused(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.pwrite(descriptor, _HEAD.pack(_MARK, size), 0)
    except OSError as problem:
        raise HostError(message(where, f"cannot keep vectors ({problem.strerror})")) from problem
    return _File(descriptor, size, where)


def _unused(path: Path) -> Path:
    """Return the path, or with a number if views that share nothing have taken it."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


NO_VECTORS = ClientVectors()
"""Nobody keeps anything."""
