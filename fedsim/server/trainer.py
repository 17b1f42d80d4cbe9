"""Pending jobs: trained together, as late as their values are needed, and never if they are lost.

When a commit needs values, *all* jobs still pending go to the executor: first those needed now, in
the order in which the commit reads them (client, then visit), then the others by version and order
of dispatch. They are cut into ceil(n / K) client batches of nearly equal size, so the composition of
a batch follows from the virtual schedule and K alone.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import ServerModel
from fedsim.clock.visit import Visit
from fedsim.config.experiment import Experiment
from fedsim.errors import RunError, WorkerError, message
from fedsim.executors import Executor, Ticket
from fedsim.jobs import Job, ScoreJob, Task, Update, add_sums
from fedsim.server.ledger import OnEvent

Scored = Callable[[int, float, str, dict[str, float]], None]

OPEN = 4
"""Versions whose scores may be outstanding; each of them is kept until then."""
ALONE = ("client", "samples")
"""Splits of which every client has its own part, where clients have their own models."""
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
    rows: list[int]


class Trainer:
    """Holds pending jobs and open evaluations; without an executor it only keeps the books."""

    def __init__(
        self,
        experiment: Experiment,
        task: Task,
        executor: Executor | None,
        scored: Scored,
        tell: OnEvent = lambda _kind, _facts: None,
    ) -> None:
        self._tell = tell
        self.experiment, self.task, self.executor, self._scored = experiment, task, executor, scored
        assert experiment.numerics.client_batch != "auto"
        self._size = int(experiment.numerics.client_batch)
        self._pending: dict[int, tuple[Visit, Job]] = {}
        self._tickets: dict[int, tuple[Ticket, int]] = {}
        self._shared: dict[int, tuple[Vector, Any]] = {}
        self._cuttable: dict[int, Job] = {}
        self._may_cut = experiment.population.on_close == "partial"
        self._evaluations: deque[_Evaluation] = deque()
        self.dispatched = self.trained = 0

    def expect(self, visit: Visit, job: Job, *, common: bool) -> None:
        """Note the job of a visit at its dispatch, its vectors as they are.

        A start that many visits have in `common` is shared with the workers once, like the base; one of a
        single client travels with its job.
        """
        self.dispatched += 1
        if self.executor is not None:
            start = self._handle(job.start) if common else _read_only(job.start)
            base = None if job.base is None else self._handle(job.base)
            job = replace(job, start=start, base=base)
        self._pending[visit.order] = (visit, job)
        if self._may_cut:
            self._cuttable[visit.order] = job

    def shorten(self, visit: Visit, steps: int) -> None:
        """The visit makes its first `steps` steps only; if it was trained in full already, it is trained again.

        One that was forgotten, because it finishes in vain, stays so.
        """
        job = self._cuttable.get(visit.order)
        if job is not None:
            self._tickets.pop(visit.order, None)
            self._pending[visit.order] = (visit, replace(job, upto=steps))

    def renew(self, model: ServerModel) -> None:
        """There is a new version: what is not in it any more leaves with its last job."""
        base = None if model.base is None else model.base.vector
        kept = [pair for pair in self._shared.values() if pair[0] is base or model.adapter.holds(pair[0])]
        self._shared = {id(vector): (vector, handle) for vector, handle in kept}

    def _handle(self, vector: Vector) -> Any:
        assert self.executor is not None
        if id(vector) not in self._shared:
            self._shared[id(vector)] = (vector, self.executor.share(vector))
        return self._shared[id(vector)][1]

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
                visit.mark_trained()
                self._tickets[visit.order] = (ticket, index)

    def losses(self, asked: Sequence[tuple[int, Vector, Vector | None]]) -> list[float]:
        """Return the loss of each client's training data now: a client, a vector, a change of the base.

        Raises:
            RunError: the task has no metric `loss`.
        """
        assert self.executor is not None
        tickets, users = [], Counter(id(vector) for _, vector, _ in asked)
        for client, vector, base in asked:
            handle = self._handle(vector) if users[id(vector)] > 1 else _read_only(vector)
            changed = None if base is None else self._handle(base)
            jobs = [ScoreJob(handle, p, changed) for p in self.task.probes("shard", client=client)]
            tickets.append(self.executor.score(jobs))
            tickets[-1].want()
        found = [self.task.metrics(add_sums(ticket.result())) for ticket in tickets]
        if any("loss" not in metrics for metrics in found):
            what = f"needs the task's metric loss, and it has {', '.join(found[0])}"
            raise RunError(message(f"sampler {self.experiment.sampler.kind}", what))
        return [metrics["loss"] for metrics in found]

    # scores -------------------------------------------------------------------------------------

    def evaluate(
        self,
        version: int,
        time_s: float,
        model: ServerModel,
        own: Callable[[int], Vector] | None = None,
    ) -> None:
        """Queue the evaluation of a version; its scores arrive later, in order.

        It is worked on where no training waits: the executor prefers training.

        Args:
            version: which.
            time_s: of its commit.
            model: the server's.
            own: client -> its own model, where clients have one: their scores then count, not the shared model's.
        """
        if self.executor is None:
            return
        for split in self.experiment.evaluate.splits:
            jobs = self._common(model, split) if own is None else self._own(model, split, own)
            calls = [jobs[cut] for cut in batches(len(jobs), PIECES)]
            tickets = [self.executor.score(call) for call in calls]
            rows = [sum(job.probe.stop - job.probe.start for job in call) for call in calls]
            self._evaluations.append(_Evaluation(version, float(time_s), split, tickets, rows))

    def _common(self, model: ServerModel, split: str) -> list[ScoreJob]:
        handle, base = self._handle(model.adapter.vector), self._base(model)
        return [ScoreJob(handle, p, base) for p in self.task.probes(split, self.experiment.evaluate.windows)]

    def _base(self, model: ServerModel) -> Any:
        return None if model.base is None or not model.base.version else self._handle(model.base.vector)

    def _own(self, model: ServerModel, split: str, own: Callable[[int], Vector]) -> list[ScoreJob]:
        """Every client's own adapter: on its own held-out part (`clients`), its own draw (`samples`), else on the split."""
        windows = self.experiment.evaluate.windows
        base, jobs = self._base(model), []
        for client in range(self.task.clients):
            vector = own(client)
            handle = self._handle(vector) if model.adapter.holds(vector) else _read_only(vector)
            asked = "client" if split == "clients" else split
            probes = self.task.probes(asked, windows, client if asked in ALONE else None)
            jobs += [ScoreJob(handle, probe, base) for probe in probes]
        return jobs

    def _hand_over(self, keep: int) -> None:
        """Hand over the evaluations that are done, in order; wait only for those beyond `keep`."""
        while self._evaluations:
            first = self._evaluations[0]
            if len(self._evaluations) <= keep and not all(ticket.done() for ticket in first.tickets):
                return
            self._evaluations.popleft()
            parts: list[Any] = []
            for i, ticket in enumerate(first.tickets):
                done = {"version": first.version, "split": first.split, "done": sum(first.rows[:i])}
                self._tell("scoring", done | {"of": sum(first.rows)})
                parts += ticket.result()
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
            visit.fail()
