"""An actor on the driver's machine that reads pieces of its files for the other machines, and what they ask it by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

from fedsim.arrays import Bytes
from fedsim.errors import HostError, message
from fedsim.executors.cluster.agreement import disagreement
from fedsim.executors.cluster.parcel import Entry, Parcel
from fedsim.executors.cluster.store import stored
from fedsim.executors.cluster.survey import Machine, survey
from fedsim.jobs import FileTask, Task

WAIT_S = 300.0
"""Longest wait for one piece."""


class Depot:
    """Reads files of the driver's machine."""

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self._parcels = {parcel.digest: parcel for parcel in parcels}

    def read(self, digest: str, place: str, offset: int, size: int) -> Bytes:
        """Return `size` bytes of a file of a parcel, from `offset` on; only files of parcels are read."""
        import numpy as np

        parcel = self._parcels[digest]
        entry = next(entry for entry in parcel.entries if entry.place == place)
        path = parcel.source if parcel.is_file else parcel.source / entry.place
        return np.fromfile(path, np.uint8, size, offset=offset)


class RemoteRead(Protocol):
    """`Depot.read` of an actor."""

    def remote(self, digest: str, place: str, offset: int, size: int) -> object:
        """Ask for a piece; the answer stands for an array to come."""
        ...


class DepotActor(Protocol):
    """A `Depot` in a process of its own."""

    @property
    def read(self) -> RemoteRead:
        """Read a piece there."""
        ...


@dataclass(frozen=True)
class Shipment:
    """What a worker on another machine is told before it is given the task.

    Attributes:
        driver: the machine whose software the worker's must equal.
        run: a word that is this run's own.
        parcels: what is sent, by the task's names.
        depot: the actor that reads it; None if nothing is sent.
    """

    driver: Machine
    run: str
    parcels: Mapping[str, Parcel]
    depot: DepotActor | None = None

    def check(self, here: Machine) -> None:
        """Compare this machine with the driver's.

        Raises:
            HostError: another version of something.
        """
        problem = disagreement(self.driver, here)
        if problem is not None:
            raise HostError(problem)

    def unpacked(self, task: Task, ray: ModuleType) -> Task:
        """Return the task with the places that its files have on this machine, fetched if need be.

        Raises:
            HostError: they cannot be fetched or kept.
        """
        if not isinstance(task, FileTask):
            return task
        here = Path(survey().folder)
        fetched = {name: str(self._fetched(parcel, ray)) for name, parcel in self.parcels.items()}
        return task.moved(lambda name: fetched.get(name) or own_copy(name, self.driver.folder, here))

    def _fetched(self, parcel: Parcel, ray: ModuleType) -> Path:
        def pieces(parcel: Parcel, entry: Entry) -> Iterator[memoryview]:
            assert self.depot is not None
            waiting: list[object] = []  # one is written while the next one travels
            for offset, size in entry.pieces():
                waiting.append(self.depot.read.remote(parcel.digest, entry.place, offset, size))
                if len(waiting) == 2:
                    yield memoryview(ray.get(waiting.pop(0), timeout=WAIT_S))
            for ref in waiting:
                yield memoryview(ray.get(ref, timeout=WAIT_S))

        try:
            return stored(parcel, pieces, self.run)
        except ray.exceptions.RayError as problem:
            lines = str(problem).strip().splitlines()
            what = f"cannot be fetched from {self.driver.host} ({lines[-1] if lines else type(problem).__name__})"
            raise HostError(message("runtime.ship", what, got=parcel.name)) from problem


def own_copy(name: str, theirs: str, ours: Path) -> str:
    """Return the same file of this machine's fedsim for a file of the driver's, what ships with it; else the name.

    >>> own_copy("/a/fedsim/builtin/model", "/a/fedsim", Path("/b/fedsim"))
    '/b/fedsim/builtin/model'
    >>> own_copy("openai-community/gpt2", "/a/fedsim", Path("/b/fedsim"))
    'openai-community/gpt2'
    """
    path = Path(name)
    return str(ours / path.relative_to(theirs)) if theirs and path.is_relative_to(theirs) else name
