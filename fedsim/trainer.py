"""Pending jobs: trained together, as late as their values are needed, and never if they are lost.

When a commit needs values, *all* jobs still pending go to the executor: first those needed now, in
the order in which the commit reads them (client, then visit), then the others by version and order
of dispatch. They are cut into ceil(n / K) client batches of nearly equal size, so the composition of
a batch follows from the virtual schedule and K alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedsim.adapter import Vector
from fedsim.aggregators import ServerModel
from fedsim.errors import WorkerError
from fedsim.executors import Executor, Ticket
from fedsim.experiment import Experiment
from fedsim.jobs import Job, ScoreJob, Task, Update, add_sums
from fedsim.visit import Visit

Scored = Callable[[int, float, str, dict[str, float]], None]

OPEN = 4
"""Versions whose scores may be outstanding; each of them is kept until then."""
PIECES = 4
"""Pieces of an evaluation that travel in one call."""


def batches(n: int, size: int) -> list[slice]:
    """Cut n jobs into ceil(n / size) runs whose lengths differ by at most one.

    >>> [(s.start, s.stop) for s in batches(10, 4)]
    [(0, 4), (4, 7), (7, 10)]
    """
    count = math.ceil(n / size) if n else 0
    lengths = [n // count + (i < n % count) for i in range(count)]
    stops = np.cumsum(lengths).tolist() if lengths else []
    return [slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]


@dataclass(frozen=True)
class _Evaluation:
    version: int
    time_s: float
    split: str
    tickets: list[Ticket]


class Trainer:
    """Holds pending jobs and open evaluations; without an executor it only keeps the books."""

    def __init__(self, experiment: Experiment, task: Task, executor: Executor | None, scored: Scored) -> None:
        self.experiment, self.task, self.executor, self._scored = experiment, task, executor, scored
        assert experiment.numerics.client_batch != "auto"
        self._size = int(experiment.numerics.client_batch)
        self._pending: dict[int, tuple[Visit, Job]] = {}
        self._tickets: dict[int, tuple[Ticket, int]] = {}
        self._cuttable: dict[int, Job] = {}
        self._may_cut = experiment.population.on_close == "partial"
        self._shared: tuple[Vector, Any] | None = None
        self._evaluations: deque[_Evaluation] = deque()
        self.dispatched = self.trained = 0

    def expect(self, visit: Visit, *, shared: bool) -> None:
        """Note the job of a visit at its dispatch.

        A vector that many visits start from is shared once; one of a single client travels with its job.
        """
        self.dispatched += 1
        handle = None
        if self.executor is not None:
            handle = self._handle(visit.start) if shared else _read_only(visit.start)
        job = Job(visit.client, visit.visit, handle, self.experiment.local, self.experiment.seed)
        self._pending[visit.order] = (visit, job)
        if self._may_cut:
            self._cuttable[visit.order] = job

    def steps(self, client: int) -> int:
        """Return the local steps of a visit; 0 where nobody needs to know."""
        if not self._may_cut:
            return 0
        task: Any = self.task
        return int(task.steps(client, self.experiment.local))

    def shorten(self, visit: Visit, steps: int) -> None:
        """The visit makes its first `steps` steps only; if it was trained in full already, it is trained again.

        One that was forgotten, because it finishes in vain, stays so.
        """
        job = self._cuttable.get(visit.order)
        if job is not None:
            self._tickets.pop(visit.order, None)
            self._pending[visit.order] = (visit, replace(job, upto=steps))

    def _handle(self, vector: Vector) -> Any:
        assert self.executor is not None
        if self._shared is None or self._shared[0] is not vector:
            self._shared = (vector, self.executor.share(vector))
        return self._shared[1]

    def forget(self, visit: Visit) -> None:
        """The visit is lost: its job is not trained if it was not handed over yet."""
        self._pending.pop(visit.order, None)
        self._tickets.pop(visit.order, None)
        self._cuttable.pop(visit.order, None)

    def results(self, landed: Sequence[Visit]) -> Iterator[tuple[Visit, Update]] | None:
        """Have everything pending trained; None in a timeline-only run.

        Args:
            landed: the visits whose values are needed now.

        Returns:
            Their updates in the given order, each as soon as it is there; none is kept here after that.
        """
        self._submit(landed)
        if self.executor is None:
            for visit in landed:
                self._cuttable.pop(visit.order, None)
            return None
        for ticket in {id(t): t for t, _ in (self._tickets[v.order] for v in landed)}.values():
            ticket.want()
        self._hand_over(len(self.experiment.evaluate.splits) * OPEN)
        return self._read(landed)

    def _read(self, landed: Sequence[Visit]) -> Iterator[tuple[Visit, Update]]:
        read: Ticket | None = None
        updates: list[Any] = []
        for visit in landed:
            ticket, index = self._tickets.pop(visit.order)
            self._cuttable.pop(visit.order, None)
            if ticket is not read:
                try:
                    read, updates = ticket, ticket.result()
                except WorkerError as problem:
                    _blame(problem, landed)
                    raise
            update, updates[index] = updates[index], None
            yield visit, update

    def _submit(self, landed: Sequence[Visit]) -> None:
        needed = [self._pending.pop(v.order) for v in landed if v.order in self._pending]
        others = sorted(self._pending.values(), key=lambda p: (p[0].version, p[0].order))
        queue = needed + others
        self._pending.clear()
        self.trained += len(queue)
        if self.executor is None:
            return
        for cut in batches(len(queue), self._size):
            ticket = self.executor.train([job for _, job in queue[cut]])
            for index, (visit, _) in enumerate(queue[cut]):
                visit.trained = True
                self._tickets[visit.order] = (ticket, index)

    # scores -------------------------------------------------------------------------------------

    def evaluate(self, version: int, time_s: float, model: ServerModel) -> None:
        """Queue the evaluation of a version; its scores arrive later, in order.

        It is worked on where no training waits: the executor prefers training.
        """
        if self.executor is None:
            return
        for split in self.experiment.evaluate.splits:
            jobs = self._own(model, split) if model.personal else self._common(model, split)
            tickets = [self.executor.score(jobs[cut]) for cut in batches(len(jobs), PIECES)]
            self._evaluations.append(_Evaluation(version, float(time_s), split, tickets))

    def _common(self, model: ServerModel, split: str) -> list[ScoreJob]:
        handle = self._handle(model.adapter.vector)
        return [ScoreJob(handle, p) for p in self.task.probes(split, self.experiment.evaluate.windows)]

    def _own(self, model: ServerModel, split: str) -> list[ScoreJob]:
        """Every client's own adapter: on its own held-out part (`clients`), else on the split."""
        windows = self.experiment.evaluate.windows
        shared = self._handle(model.adapter.vector)
        jobs = []
        for client in range(self.task.clients):
            own = model.personal.get(client)
            handle = shared if own is None else _read_only(own)
            held_out = split == "clients"
            probes = self.task.probes("client" if held_out else split, windows, client if held_out else None)
            jobs += [ScoreJob(handle, probe) for probe in probes]
        return jobs

    def _hand_over(self, keep: int) -> None:
        """Hand over the evaluations that are done, in order; wait only for those beyond `keep`."""
        while self._evaluations:
            first = self._evaluations[0]
            if len(self._evaluations) <= keep and not all(ticket.done() for ticket in first.tickets):
                return
            self._evaluations.popleft()
            parts = [part for ticket in first.tickets for part in ticket.result()]
            self._scored(first.version, first.time_s, first.split, self.task.metrics(add_sums(parts)))

    def finish(self) -> None:
        """Wait for the evaluations still open."""
        self._hand_over(0)


def _read_only(vector: Vector) -> Vector:
    view = vector.view()
    view.flags.writeable = False
    return view


def _blame(problem: WorkerError, landed: Sequence[Visit]) -> None:
    """Mark the visits that an error names as `failed`."""
    blamed = str(problem).partition(": ")[0].split("; ")
    for visit in landed:
        if f"client {visit.client}, visit {visit.visit}" in blamed:
            visit.outcome = "failed"
