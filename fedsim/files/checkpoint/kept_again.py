"""What clients kept when a checkpoint was taken, found again in the files of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import RunFolderError, message
from fedsim.files.client_vectors import ClientVectors
from fedsim.files.record_file import RecordFile, opened

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where the vectors of a view are.

    Attributes:
        path: where its file was to be; None: a temporary one.
        file: where it is; None: nothing was kept yet.
        clients, slots, stamps: who keeps something, in which slot, written as the how-many-th, (n,) each.
    """

    path: Path | None
    file: Path | None
    clients: Numbers
    slots: Numbers
    stamps: Numbers

    @classmethod
    def of(cls, vectors: ClientVectors) -> Place:
        """Return the place of a view."""
        return cls(vectors.path, None if vectors.file is None else vectors.file.path, *vectors.places())


class KeptAgain:
    """Opens the files in a folder, each once, and gives views of them."""

    def __init__(self, folder: Path) -> None:
        """Take the folder."""
        self._folder = folder
        self._files: dict[str, tuple[RecordFile, dict[int, int]]] = {}

    def view(
        self, path: str | None, file: str | None, clients: Numbers, slots: Numbers, stamps: Numbers
    ) -> ClientVectors:
        """Return the view whose place was noted, files by their names in the folder.

        Raises:
            RunFolderError: a record is not there any more as it was.
        """
        where = None if path is None else self._folder / path
        if file is None:
            return ClientVectors(where)
        if file not in self._files:
            self._files[file] = (opened(self._folder / file), {})
        records, checked = self._files[file]
        for client, slot, stamp in zip(clients.tolist(), slots.tolist(), stamps.tolist(), strict=True):
            if checked.get(slot) != stamp:
                records.check(client, slot, stamp)
                checked[slot] = stamp
        return ClientVectors.at(where, records, clients, slots, stamps)

    def go_on(self) -> None:
        """Let the slots that no view points to be used again, and remove the files that none does.

        Raises:
            RunFolderError: a file cannot be removed.
        """
        for records, _ in self._files.values():
            records.go_on()
        names = set(self._files)
        self._files.clear()
        try:
            for path in self._folder.glob("*.f32"):
                if path.name not in names:
                    path.unlink()
        except OSError as problem:
            raise RunFolderError(
                message(str(self._folder), f"cannot be tidied ({problem.strerror})")
            ) from problem
