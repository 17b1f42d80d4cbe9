"""Pending jobs: trained together, as late as their values are needed, and never if they are lost.

When a commit needs values, *all* jobs still pending go to the executor: those needed first, then
by version and order of dispatch, in ceil(n / K) client batches of nearly equal size. So the
composition of a batch follows from the virtual schedule and K alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedsim.adapter import Vector
from fedsim.aggregators import ServerModel
from fedsim.errors import WorkerError
from fedsim.executors import Executor, Ticket
from fedsim.experiment import Experiment
from fedsim.jobs import Job, Probe, ScoreJob, Task, Update, add_sums
from fedsim.visit import Visit

Scored = Callable[[int, float, str, dict[str, float]], None]


def batches(n: int, size: int) -> list[slice]:
    """Cut n jobs into ceil(n / size) runs whose lengths differ by at most one.

    >>> [(s.start, s.stop) for s in batches(10, 4)]
    [(0, 4), (4, 7), (7, 10)]
    """
    count = math.ceil(n / size) if n else 0
    lengths = [n // count + (i < n % count) for i in range(count)]
    stops = np.cumsum(lengths).tolist() if lengths else []
    return [slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]


class Trainer:
    """Holds pending jobs and open evaluations; without an executor it only keeps the books."""

    def __init__(self, experiment: Experiment, task: Task, executor: Executor | None, scored: Scored) -> None:
        self.experiment, self.task, self.executor, self._scored = experiment, task, executor, scored
        assert experiment.numerics.client_batch != "auto"
        self._size = int(experiment.numerics.client_batch)
        self._pending: dict[int, tuple[Visit, Job]] = {}
        self._tickets: dict[int, tuple[Ticket, int]] = {}
        self._shared: tuple[Vector, Any] | None = None
        self._evaluations: list[tuple[int, float, str, list[Ticket]]] = []
        self.dispatched = self.trained = 0

    def expect(self, visit: Visit, *, shared: bool) -> None:
        """Note the job of a visit at its dispatch."""
        self.dispatched += 1
        start = visit.start
        handle = None
        if self.executor is not None:
            handle = self._handle(start) if shared else self.executor.share(start)
        job = Job(visit.client, visit.visit, handle, self.experiment.local, self.experiment.seed)
        self._pending[visit.order] = (visit, job)

    def _handle(self, vector: Vector) -> Any:
        assert self.executor is not None
        if self._shared is None or self._shared[0] is not vector:
            self._shared = (vector, self.executor.share(vector))
        return self._shared[1]

    def forget(self, visit: Visit) -> None:
        """The visit is lost: its job is not trained if it was not handed over yet."""
        self._pending.pop(visit.order, None)
        self._tickets.pop(visit.order, None)

    def results(self, landed: Sequence[Visit]) -> dict[int, Update] | None:
        """Return the updates of landed visits by order of dispatch; None in a timeline-only run."""
        self._submit([v.order for v in landed])
        if self.executor is None:
            return None
        updates: dict[int, Update] = {}
        for visit in landed:
            ticket, index = self._tickets.pop(visit.order)
            try:
                updates[visit.order] = ticket.result()[index]
            except WorkerError as problem:
                blamed = str(problem).partition(": ")[0].split("; ")
                for other in landed:
                    if f"client {other.client}, visit {other.visit}" in blamed:
                        other.outcome = "failed"
                raise
        self._drain(wait=False)
        return updates

    def _submit(self, needed: Sequence[int]) -> None:
        first = set(needed)
        queue = sorted(
            self._pending.values(), key=lambda p: (p[0].order not in first, p[0].version, p[0].order)
        )
        self._pending.clear()
        for visit, _ in queue:
            visit.trained = self.executor is not None
        self.trained += len(queue)
        if self.executor is None:
            return
        for cut in batches(len(queue), self._size):
            ticket = self.executor.train([job for _, job in queue[cut]])
            for index, (visit, _) in enumerate(queue[cut]):
                self._tickets[visit.order] = (ticket, index)

    # scores -------------------------------------------------------------------------------------

    def evaluate(self, version: int, time_s: float, model: ServerModel) -> None:
        """Queue the evaluation of a version; its scores arrive later, in order."""
        if self.executor is None:
            return
        windows = self.experiment.evaluate.windows
        for split in self.experiment.evaluate.splits:
            if model.personal:
                tickets = self._evaluate_own(model, split, windows)
            else:
                handle = self._handle(model.adapter.vector)
                tickets = self._score(handle, self.task.probes(split, windows))
            self._evaluations.append((version, float(time_s), split, tickets))

    def _evaluate_own(self, model: ServerModel, split: str, windows: int | None) -> list[Ticket]:
        """Every client's own adapter: on its own held-out part (`clients`), else on the split."""
        assert self.executor is not None
        tickets = []
        for client in range(self.task.clients):
            own_vector = model.personal.get(client)
            handle = (
                self._handle(model.adapter.vector) if own_vector is None else self.executor.share(own_vector)
            )
            own = split == "clients"
            probes = self.task.probes("client" if own else split, windows, client if own else None)
            tickets += self._score(handle, probes)
        return tickets

    def _score(self, handle: Any, probes: Sequence[Probe]) -> list[Ticket]:
        assert self.executor is not None
        return [
            self.executor.score([ScoreJob(handle, p) for p in probes[cut]]) for cut in batches(len(probes), 4)
        ]

    def _drain(self, *, wait: bool) -> None:
        """Hand over finished evaluations in order; while training goes on, keep the newest open."""
        keep = 0 if wait else len(self.experiment.evaluate.splits)
        while len(self._evaluations) > keep:
            version, time_s, split, tickets = self._evaluations.pop(0)
            parts = [part for ticket in tickets for part in ticket.result()]
            self._scored(version, time_s, split, self.task.metrics(add_sums(parts)))

    def finish(self) -> None:
        """Wait for the evaluations still open."""
        self._drain(wait=True)
