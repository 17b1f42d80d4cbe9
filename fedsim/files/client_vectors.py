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
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.errors import HostError, message
from fedsim.files.record_file import HEAD, MARK, RecordFile, Slot, opened

_PAGE = 128
"""Clients of one page of the index: `including` copies the pages it changes and the list of pages."""


class ClientVectors:
    """An immutable view: client -> float32 vector; all vectors of a view have one length.

    `ClientVectors(path)` is empty and makes its file at the first vector; without a path that is a temporary
    file (in `TMPDIR`) without a name, which is gone with its last view, however the process ends.
    """

    __slots__ = ("_file", "_len", "_pages", "_path")

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: RecordFile | None = None
        self._pages: dict[int, dict[int, Slot]] = {}
        self._len = 0

    @classmethod
    def read(cls, path: Path) -> ClientVectors:
        """Return the view of the last whole record of every client in a file.

        Raises:
            RunFolderError: no such file, or not one of ours.
        """
        file = opened(path)
        return cls(path)._with(file, file.scan_records())  # noqa: SLF001

    @classmethod
    def at(cls, path: Path | None, file: RecordFile | None, slots: Mapping[int, Slot]) -> ClientVectors:
        """Return the view of some slots of a file; without a file, an empty view that would make it at `path`."""
        return cls(path) if file is None else cls(path)._with(file, slots)  # noqa: SLF001

    @property
    def path(self) -> Path | None:
        """Where its file is or would be; None: a temporary one."""
        return self._path

    @property
    def file(self) -> RecordFile | None:
        """The file; None: nothing was kept yet."""
        return self._file

    def slots(self) -> Iterator[tuple[int, Slot]]:
        """Go through the clients that keep something, ascending, and where it is."""
        for client in self:
            yield client, self._pages[client // _PAGE][client]

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

    def _with(self, file: RecordFile, places: Mapping[int, Slot]) -> ClientVectors:
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


def _created(path: Path | None, size: int) -> RecordFile:
    """Make an empty file for vectors of `size` floats."""
    where = str(path or tempfile.gettempdir())
    try:
        if path is None:
            descriptor, name = tempfile.mkstemp(prefix="fedsim-kept-")
            Path(name).unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path = _unused(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.pwrite(descriptor, HEAD.pack(MARK, size), 0)
    except OSError as problem:
        raise HostError(message(where, f"cannot keep vectors ({problem.strerror})")) from problem
    return RecordFile(descriptor, size, where, path)


def _unused(path: Path) -> Path:
    """Return the path, or with a number if views that share nothing have taken it."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


NO_VECTORS = ClientVectors()
"""Nobody keeps anything."""
