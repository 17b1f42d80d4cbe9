"""What clients keep to themselves, on disk: one float32 vector a client, and a small index in RAM.

A `ClientVectors` is an immutable view. `including` writes new vectors into free slots of one file and returns
a view that points to them; it never changes a slot that some view points to, so an older view keeps
its values for as long as anybody holds it. A slot is free again, and reused, once the last view that
points to it is gone. RAM holds about 30 bytes a client, in arrays, whatever the length of a vector, and one
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
from fedsim.arrays import Ints
from fedsim.errors import HostError, message
from fedsim.files.record_file import HEAD, MARK, RecordFile, opened

_PAGE = 128
"""Clients of one page of the index: `including` copies the pages it changes and the list of pages."""


class _Page:
    """Which of some neighbouring clients keep something, and where: arrays that never change, (n,) each."""

    __slots__ = ("clients", "file", "slots", "stamps")

    def __init__(self, file: RecordFile, clients: Ints, slots: Ints, stamps: Ints) -> None:
        """Point to slots of a file; `clients` ascend."""
        self.file, self.clients, self.slots, self.stamps = file, clients, slots, stamps
        file.point_to(slots)

    def __del__(self) -> None:
        """Point to them no more."""
        self.file.leave(self.slots)

    def slot(self, client: int) -> int | None:
        """Return the slot of a client, if it keeps something."""
        at = int(self.clients.searchsorted(client))
        return int(self.slots[at]) if at < self.clients.size and self.clients[at] == client else None

    def including(self, clients: Ints, slots: Ints, stamps: Ints) -> _Page:
        """Return a page with these in place of what it has of the same clients."""
        stays = ~np.isin(self.clients, clients)
        together = np.concatenate([self.clients[stays], clients])
        order = np.argsort(together)
        return _Page(
            self.file,
            together[order],
            np.concatenate([self.slots[stays], slots])[order],
            np.concatenate([self.stamps[stays], stamps])[order],
        )


class ClientVectors:
    """An immutable view: client -> float32 vector; all vectors of a view have one length.

    `ClientVectors(path)` is empty and makes its file at the first vector; without a path that is a temporary
    file (in `TMPDIR`) without a name, which is gone with its last view, however the process ends.
    """

    __slots__ = ("_file", "_len", "_pages", "_path")

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: RecordFile | None = None
        self._pages: dict[int, _Page] = {}
        self._len = 0

    @classmethod
    def read(cls, path: Path) -> ClientVectors:
        """Return the view of the last whole record of every client in a file.

        Raises:
            RunFolderError: no such file, or not one of ours.
        """
        file = opened(path)
        return cls.at(path, file, *file.scan_records())

    @classmethod
    def at(
        cls, path: Path | None, file: RecordFile, clients: Ints, slots: Ints, stamps: Ints
    ) -> ClientVectors:
        """Return the view of some slots of a file, (n,) each; whose and with which stamps."""
        order = np.argsort(clients, kind="stable")
        return cls(path)._with(file, clients[order], slots[order], stamps[order])  # noqa: SLF001

    @property
    def path(self) -> Path | None:
        """Where its file is or would be; None: a temporary one."""
        return self._path

    @property
    def file(self) -> RecordFile | None:
        """The file; None: nothing was kept yet."""
        return self._file

    def places(self) -> tuple[Ints, Ints, Ints]:
        """Return the clients that keep something, ascending, in which slots, and with which stamps, (n,) each."""
        pages = [self._pages[number] for number in sorted(self._pages)]
        none = np.zeros(0, np.int64)
        columns = (
            [page.clients for page in pages],
            [page.slots for page in pages],
            [page.stamps for page in pages],
        )
        clients, slots, stamps = (np.concatenate([none, *parts]) for parts in columns)
        return clients, slots, stamps

    def get(self, client: int) -> Vector | None:
        """Return a client's vector, read-only and read from the file now, or None."""
        page = self._pages.get(client // _PAGE)
        slot = None if page is None else page.slot(client)
        return None if page is None or slot is None else page.file.read(slot)

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
        rows: list[tuple[int, int, int]] = []
        try:
            for client in sorted(vectors):
                rows.append((client, *file.write(client, vectors[client])))
        except BaseException:
            file.free([slot for _, slot, _ in rows])
            raise
        clients, slots, stamps = np.array(rows, dtype=np.int64).T.copy()
        return self._with(file, clients, slots, stamps)

    def _with(self, file: RecordFile, clients: Ints, slots: Ints, stamps: Ints) -> ClientVectors:
        """Return a view with these beside and in place of the ones here; `clients` ascend."""
        view = ClientVectors(self._path)
        view._file, view._pages = file, dict(self._pages)
        numbers, firsts = np.unique(clients // _PAGE, return_index=True)
        none = np.zeros(0, np.int64)
        change = 0
        for number, begin, end in zip(numbers.tolist(), firsts, [*firsts[1:], clients.size], strict=True):
            page = view._pages.get(number) or _Page(file, none, none, none)
            part = slice(begin, end)
            view._pages[number] = page.including(clients[part], slots[part], stamps[part])
            change += view._pages[number].clients.size - page.clients.size
        view._len = self._len + change
        return view

    def __contains__(self, client: object) -> bool:
        """Tell whether a client keeps something."""
        if not isinstance(client, int | np.integer):
            return False
        page = self._pages.get(int(client) // _PAGE)
        return page is not None and page.slot(int(client)) is not None

    def __iter__(self) -> Iterator[int]:
        """Go through the clients that keep something, ascending."""
        for number in sorted(self._pages):
            yield from self._pages[number].clients.tolist()

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
