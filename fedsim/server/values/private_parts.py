"""What stays with the clients while a run goes: the server's side of `fedsim.personal`.

The private part of a model is put into what a client starts from and taken out of what it sends back.
Second trainings (Ditto, FedDPA) are made at the commit of their visit, from what the client has kept
of the one before: so a client's second model goes on from visit to visit without a gap, whatever is under
way elsewhere. They are handed to the workers at once and read one commit later; nothing waits for them,
and nothing that the server does depends on them.

What is kept is in the layout's shape and scale, whatever slots and scale a visit had: it is cut and converted on its
way to a visit and back. Slots that a client has not trained yet are those of version 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.units import in_client_units, server_units
from fedsim.aggregators._base import Offer
from fedsim.clock.components import parts_of
from fedsim.config.experiment import Experiment
from fedsim.executors import Executor, Ticket
from fedsim.files.client_vectors import ClientVectors
from fedsim.jobs import Job, Update
from fedsim.personal import Home
from fedsim.personal.held_out import unseen
from fedsim.server.values.batches import batches
from fedsim.server.values.computed import Computed
from fedsim.server.values.handles import Handles


@dataclass(frozen=True)
class _View:
    """How a client of some rank, scale and depth sees what it keeps.

    Attributes:
        home: version 0 as it is there.
        trained: which of the numbers that are kept it has (kept,).
        units: what they are multiplied with on their way back (kept,); None: nothing.
    """

    home: Home
    trained: NDArray[np.bool_]
    units: NDArray[np.float64] | None


@dataclass(frozen=True)
class Owner:
    """Whose a second training is, and with how many slots, what scale and how many layers its visit had (None: the layout's)."""

    client: int
    rank: int | None
    scale: float | None
    depth: int | None = None


@dataclass(frozen=True)
class _Open:
    """A client batch of second trainings at work, and whose they are."""

    owners: Sequence[Owner]
    ticket: Ticket


PrivateData = tuple[ClientVectors, int, list[tuple[list[Owner], list[Update]]]]
"""What clients keep, how many trainings were faulty, and the second trainings that were not read yet."""


class PrivateParts:
    """What each client keeps, and the trainings whose results it will keep.

    Attributes:
        kind: the component.
        unseen: clients that are held out, ascending.
        waits: whether a client must not be asked again between the landing and the commit of its visit.
        kept: client -> what it keeps: private values, or its own second model.
        seen: visits of each client that were committed, (clients,).
        faulty: trainings of a client's own that ended in numbers that are not finite: it kept what it had.
    """

    def __init__(
        self,
        experiment: Experiment,
        layout: Layout,
        initial: Vector,
        executor: Executor | None = None,
        folder: Path | None = None,
    ) -> None:
        """Take version 0 (`initial`), where to train (None: nothing is), and the run's folder (None: no name)."""
        parts = parts_of(experiment)
        self.kind, self._experiment = parts.personal, experiment
        self._attach(executor)
        self._open: deque[_Open] = deque()
        self._views: dict[tuple[int | None, float | None, int | None], _View] = {}
        self.home = Home(layout, initial)
        self.kept = ClientVectors(None if folder is None else folder / "kept" / "personal.f32")
        self.seen = np.zeros(experiment.population.clients, dtype=np.int64)
        self.faulty = 0
        self.unseen = unseen(parts.personal, experiment)
        self.waits = bool(self.kind.waits or parts.aggregator.traits.personal)

    def _attach(self, executor: Executor | None) -> None:
        self._executor = executor
        self._clients_per_call = self._experiment.numerics.clients_per_call if executor is not None else 1
        self.trains_beside = executor is not None and self.kind.alongside(self._experiment.local) is not None

    def dump(self) -> PrivateData:
        """Return what depends on values, as explicit data; waits for the second trainings under way.

        Raises:
            FedsimError: one of them could not be computed.
        """
        under_way = [(list(done.owners), list(done.ticket.result())) for done in self._open]
        return self.kept, self.faulty, under_way

    def go_on(self, executor: Executor, data: PrivateData) -> None:
        """Train from now on, from what `dump` has returned, in place of a replay without values."""
        self._attach(executor)
        self.kept, self.faulty, under_way = data
        self._open = deque(_Open(owners, Computed(updates)) for owners, updates in under_way)

    def offer(self, offer: Offer) -> Offer:
        """Return an offer whose payloads lack what is private; the same object if nothing is."""
        return self.kind.offer(self.home, offer)

    def start(
        self,
        client: int,
        start: Vector,
        rank: int | None = None,
        scale: float | None = None,
        depth: int | None = None,
    ) -> Vector:
        """Put a client's private part into the start that it has downloaded; the same array if it has none.

        Args:
            client: whose.
            start: what it has downloaded.
            rank: slots of its visit; None: the layout's.
            scale: what the visit multiplies B A with; None: the layout's.
            depth: layers of its visit, from the output; None: all.
        """
        private = self.own(client, rank, scale, depth) if self.kind.waits else None
        return start if private is None else self.kind.composed(self.home, start, private)

    def own(
        self, client: int, rank: int | None, scale: float | None, depth: int | None = None
    ) -> Vector | None:
        """Return what a client keeps, as a visit of this rank, scale and depth (None: the layout's) sees it; None: nothing."""
        kept, view = self.kept.get(client), self._view(rank, scale, depth)
        if kept is None or (view.units is None and view.trained.all()):
            return kept
        in_its_units = kept if view.units is None else kept / view.units
        return np.where(view.trained, in_its_units, 0.0).astype(np.float32)

    def home_of(self, job: Job) -> Home:
        """Return what a kind may use of the run, version 0 in the slots, the scale and the layers of a job."""
        return self._view(job.rank, job.scale, job.depth).home

    def landed(
        self,
        client: int,
        rank: int,
        start: Vector,
        end: Vector,
        scale: float | None = None,
        depth: int | None = None,
    ) -> Vector:
        """Keep the private part of where a client's training ended; return what the server may see.

        Args:
            client: whose.
            rank: slots of each factor that it trained; the others of its private part stay as they were.
            start: as the server sent it.
            end: where the training ended.
            scale: what it multiplied B A with; None: the layout's.
            depth: layers that it trained, from the output; None: all.
        """
        private = self.kind.keeps(self.home, end)
        if private is None:
            return end
        self._keep(client, self._view(rank, scale, depth), private)
        kept_back = self.kind.keeps(self.home, start)
        assert kept_back is not None
        return self.kind.composed(self.home, end, kept_back)

    def untouched(self, vector: Vector) -> Vector:
        """Return a shared adapter whose private arrays are those of version 0: no rule and no optimiser moves them."""
        private = self.kind.keeps(self.home, self.home.initial)
        if private is None or np.array_equal(self.kind.keeps(self.home, vector), private):
            return vector
        return self.kind.composed(self.home, vector, private)

    def _keep(self, client: int, view: _View, values: Vector) -> None:
        """Keep where a client ended, in its own slots; the others stay as they were."""
        before = self.kept.get(client)
        if before is None:
            before = self._kept_of(self.home.initial)
        in_our_units = values if view.units is None else values * view.units
        kept = np.where(view.trained, in_our_units, before).astype(np.float32)
        self.kept = self.kept.including({client: kept})

    def _kept_of(self, vector: Any) -> Any:
        """Return what of a vector (or of a mask) is kept: the private values, or all of a second model."""
        private = self.kind.keeps(self.home, vector)
        return vector if private is None else private

    def _view(self, rank: int | None, scale: float | None, depth: int | None) -> _View:
        key = (rank or None, scale, depth)
        if key not in self._views:
            layout, initial = self.home.layout, self.home.initial
            slots, units = layout.slots(rank or None, depth=depth), server_units(layout, scale)
            there = np.where(slots, in_client_units(layout, initial, scale), np.float32(0.0))
            home = self.home if slots.all() and units is None else replace(self.home, initial=there)
            kept_units = None if units is None else self._kept_of(units)
            self._views[key] = _View(home, self._kept_of(slots), kept_units)
        return self._views[key]

    def committed(self, jobs: Sequence[Job]) -> None:
        """Count the visits of a commit, and have their second trainings made.

        Args:
            jobs: of the visits, vectors as they are (no handles), in the order of client and visit.
        """
        for job in jobs:
            self.seen[job.client] += 1
        if not self.trains_beside:
            return
        self._read()
        waiting = list(jobs)
        while waiting:  # two visits of one client in one commit: the second goes on from the first
            once = list({job.client: job for job in reversed(waiting)}.values())[::-1]
            waiting = [job for job in waiting if not any(job is done for done in once)]
            self._train(once)
            if waiting:
                self._read()

    def finish(self) -> ClientVectors:
        """Wait for the second trainings under way; return what every client keeps."""
        self._read()
        return self.kept

    def _train(self, jobs: Sequence[Job]) -> None:
        assert self._executor is not None
        made = [self._beside(job) for job in jobs]
        pairs = [(job, second) for job, second in zip(jobs, made, strict=True) if second is not None]
        handles = Handles(self._executor)
        for cut in batches(len(pairs), self._clients_per_call):
            part = pairs[cut]
            ticket = self._executor.train([handles.in_place(second) for _, second in part])
            owners = [Owner(job.client, job.rank, job.scale, job.depth) for job, _ in part]
            self._open.append(_Open(owners, ticket))

    def _beside(self, job: Job) -> Job | None:
        own = self.own(job.client, job.rank, job.scale, job.depth)
        return self.kind.beside(self.home_of(job), job, own)

    def _read(self) -> None:
        while self._open:
            done = self._open.popleft()
            done.ticket.want()
            for owner, update in zip(done.owners, done.ticket.result(), strict=True):
                if np.all(np.isfinite(update.end)):
                    self._keep(owner.client, self._view(owner.rank, owner.scale, owner.depth), update.end)
                else:
                    self.faulty += 1
