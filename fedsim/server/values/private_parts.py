"""What stays with the clients while a run goes: the server's side of `fedsim.personal`.

The private part of a model is put into what a client starts from and taken out of what it sends back.
Second trainings (Ditto, FedDPA) are made at the commit of their visit, from what the client has kept
of the one before: so a client's second model goes on from visit to visit without a gap, whatever is under
way elsewhere. They are handed to the workers at once and read one commit later; nothing waits for them,
and nothing that the server does depends on them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.aggregators._base import Offer
from fedsim.clock.components import parts_of
from fedsim.config.experiment import Experiment
from fedsim.executors import Executor, Ticket
from fedsim.files.client_vectors import ClientVectors
from fedsim.jobs import Job
from fedsim.personal import Home
from fedsim.personal.held_out import unseen
from fedsim.server.values.batches import batches
from fedsim.server.values.handles import Handles


@dataclass(frozen=True)
class _Open:
    """A client batch of second trainings at work."""

    jobs: Sequence[Job]
    ticket: Ticket


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
        self.kind = parts.personal
        self._executor = executor
        self._clients_per_call = experiment.numerics.clients_per_call if executor is not None else 1
        self._open: deque[_Open] = deque()
        self._masks: dict[int, Any] = {}
        self.home = Home(layout, initial)
        self.kept = ClientVectors(None if folder is None else folder / "kept" / "personal.f32")
        self.seen = np.zeros(experiment.population.clients, dtype=np.int64)
        self.faulty = 0
        self.unseen = unseen(parts.personal, experiment)
        self.waits = bool(self.kind.waits or parts.aggregator.traits.personal)
        self.trains_beside = executor is not None and self.kind.alongside(experiment.local) is not None

    def offer(self, offer: Offer) -> Offer:
        """Return an offer whose payloads lack what is private; the same object if nothing is."""
        return self.kind.offer(self.home, offer)

    def start(self, client: int, start: Vector) -> Vector:
        """Put a client's private part into the start that it has downloaded; the same array if it has none."""
        private = self.kept.get(client) if self.kind.waits else None
        return start if private is None else self.kind.composed(self.home, start, private)

    def landed(self, client: int, rank: int, start: Vector, end: Vector) -> Vector:
        """Keep the private part of where a client's training ended; return what the server may see.

        Args:
            client: whose.
            rank: slots of each factor that it trained; the others of its private part stay as they were.
            start: as the server sent it.
            end: where the training ended.
        """
        private = self.kind.keeps(self.home, end)
        if private is None:
            return end
        before = self.kind.keeps(self.home, self.start(client, start))
        assert before is not None
        trained = self.kind.keeps(self.home, self._trained(rank))
        self.kept = self.kept.including({client: np.where(trained, private, before).astype(np.float32)})
        kept_back = self.kind.keeps(self.home, start)
        assert kept_back is not None
        return self.kind.composed(self.home, end, kept_back)

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
        made = [self.kind.beside(self.home, job, self.kept.get(job.client)) for job in jobs]
        second = [job for job in made if job is not None]
        handles = Handles(self._executor)
        for cut in batches(len(second), self._clients_per_call):
            part = second[cut]
            ticket = self._executor.train([handles.in_place(job) for job in part])
            self._open.append(_Open([replace(job, anchor=None, base=None) for job in part], ticket))

    def _read(self) -> None:
        while self._open:
            done = self._open.popleft()
            done.ticket.want()
            for job, update in zip(done.jobs, done.ticket.result(), strict=True):
                if not np.all(np.isfinite(update.end)):
                    self.faulty += 1
                    continue
                end = update.end
                if job.rank is not None:
                    end = np.where(self._trained(job.rank), end, job.start).astype(np.float32)
                self.kept = self.kept.including({job.client: end})

    def _trained(self, rank: int) -> Any:
        """Return which numbers of a vector lie in the first `rank` slots; whole tensors do."""
        if rank not in self._masks:
            self._masks[rank] = self.home.layout.slots(rank or None)
        return self._masks[rank]
