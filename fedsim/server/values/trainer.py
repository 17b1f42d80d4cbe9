"""Pending jobs: trained together, as late as their values are needed, and never if they are lost.

When a commit needs values, *all* jobs still pending go to the executor: first those needed now, in
the order in which the commit reads them (client, then visit), then the others by version and order
of dispatch. They are cut into ceil(n / K) client batches of nearly equal size, so the composition of
a batch follows from the virtual schedule and K alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fedsim.aggregators._base import ServerModel
from fedsim.callbacks.telling import OnEvent
from fedsim.clock.visit import Visit
from fedsim.config.experiment import Experiment
from fedsim.errors import FedsimError
from fedsim.executors import Executor, Ticket
from fedsim.jobs import Job, Task, Update
from fedsim.server.ledger import quiet
from fedsim.server.values.batches import batches
from fedsim.server.values.computed import Computed
from fedsim.server.values.dispatched import Dispatched
from fedsim.server.values.evaluations import Evaluations, OnScore
from fedsim.server.values.handles import Handles, read_only
from fedsim.server.values.log import Log


@dataclass(slots=True)
class _Slot:
    """The training of one visit: pending while it has no ticket.

    Attributes:
        visit: whose.
        job: what is trained; None once it was handed over and cannot be cut any more.
        ticket, index: the call that trains it, and its place in that.
    """

    visit: Visit
    job: Job | None
    ticket: Ticket | None = None
    index: int = 0


class Trainer:
    """Holds pending jobs; without an executor it only keeps the books.

    Attributes:
        executor: where to train; None: nothing is trained.
        log: what a run has written of its values, where its schedule is replayed; None: it is no replay.
        evaluations: the scores under way on the same executor.
        handed_over: visits whose training was needed, also where nothing is trained.
    """

    def __init__(
        self,
        experiment: Experiment,
        task: Task,
        executor: Executor | None,
        on_score: OnScore,
        tell: OnEvent = quiet,
        log: Log | None = None,
    ) -> None:
        """Start with nothing pending; `numerics.client_batch` is a number by now."""
        self.executor, self.log = executor, log
        self._computes = executor is not None or (log is not None and log.trained)
        self._handles = None if executor is None else Handles(executor)
        self.evaluations = Evaluations(experiment, task, executor, self._handles, on_score, tell)
        self._clients_per_call = experiment.numerics.clients_per_call
        self._may_cut = experiment.population.on_close == "partial"
        self._slots: dict[int, _Slot] = {}
        self._pending: dict[int, _Slot] = {}
        self.handed_over = 0

    def dump(self) -> dict[int, Update]:
        """Return what was computed of visits that may still be needed, by their order; waits for it.

        Raises:
            FedsimError: some of it could not be computed: it may never be needed, so that this is no error yet.
        """
        tickets = {id(slot.ticket): slot.ticket for slot in self._slots.values() if slot.ticket is not None}
        results = {key: ticket.result() for key, ticket in tickets.items()}
        return {
            order: results[id(slot.ticket)][slot.index]
            for order, slot in self._slots.items()
            if slot.ticket is not None
        }

    def handed_over_now(self) -> set[int]:
        """Return the orders of the visits whose training was handed over and whose result may still be needed."""
        return {order for order in self._slots if order not in self._pending}

    def go_on(
        self, executor: Executor, dispatched: Mapping[int, Dispatched], updates: Mapping[int, Update]
    ) -> None:
        """Train from now on, in place of a replay without values.

        Args:
            executor: where.
            dispatched: what visits have left with, by their order.
            updates: what `dump` has returned.
        """
        self.executor, self.log, self._computes = executor, None, True
        self._handles = Handles(executor)
        self.evaluations.attach(executor, self._handles)
        for order, slot in self._slots.items():
            if order in self._pending or self._may_cut:
                slot.job = self._with_handles(dispatched[order].job, common=dispatched[order].common)
            if order not in self._pending:
                slot.ticket, slot.index = Computed([updates[order]]), 0
                slot.job = slot.job if self._may_cut else None

    def _with_handles(self, job: Job, *, common: bool) -> Job:
        if self._handles is None:
            return job
        start = self._handles.of(job.start) if common else read_only(job.start)
        return replace(job, start=start, base=self._handles.of_change(job.base))

    def expect(self, visit: Visit, job: Job, *, common: bool) -> None:
        """Note the job of a visit at its dispatch, its vectors as they are.

        A start that many visits have in `common` is shared with the workers once, like the base; one of a
        single client travels with its job.
        """
        slot = _Slot(visit, self._with_handles(job, common=common))
        self._slots[visit.order] = self._pending[visit.order] = slot

    def shorten(self, visit: Visit, steps: int) -> None:
        """Have a visit make its first `steps` steps only; if it was trained in full already, it is trained again.

        One that was forgotten, because it finishes in vain, stays so.
        """
        slot = self._slots.get(visit.order)
        if slot is not None and slot.job is not None:
            slot.job, slot.ticket = replace(slot.job, upto=steps), None
            self._pending[visit.order] = slot

    def renew(self, model: ServerModel) -> None:
        """Take note of a new version: vectors that are not in it any more leave with their last job."""
        if self._handles is None:
            return
        change = None if model.base is None else model.base.vector
        self._handles.keep_only(lambda vector: vector is change or model.adapter.holds(vector))

    def forget(self, visit: Visit) -> None:
        """Drop the job of a lost visit: it is not trained if it was not handed over yet."""
        self._slots.pop(visit.order, None)
        self._pending.pop(visit.order, None)

    def results(self, landed: Sequence[Visit]) -> Iterator[tuple[Visit, Update]] | None:
        """Have everything pending trained; None in a timeline-only run.

        Args:
            landed: the visits whose values are needed now.

        Returns:
            Their updates in the given order, each as soon as it is there; none is kept here after that.
        """
        self._submit(landed)
        slots = [self._slots.pop(visit.order) for visit in landed]
        if self.executor is None:
            return None
        tickets = [slot.ticket for slot in slots if slot.ticket is not None]
        for ticket in {id(ticket): ticket for ticket in tickets}.values():
            ticket.want()
        self.evaluations.hand_over()
        return _read(slots, self._slots.values())

    def _submit(self, landed: Sequence[Visit]) -> None:
        needed = [self._pending.pop(v.order) for v in landed if v.order in self._pending]
        others = sorted(self._pending.values(), key=lambda slot: (slot.visit.version, slot.visit.order))
        queue = needed + others
        self._pending.clear()
        for slot in queue:  # one that is cut short after it was handed over comes again
            self.handed_over += not slot.visit.handed_over
            slot.visit.hand_over(computed=self._computes)
        if self.executor is not None:
            for cut in batches(len(queue), self._clients_per_call):
                self._hand_over(self.executor, queue[cut])

    def _hand_over(self, executor: Executor, slots: Sequence[_Slot]) -> None:
        ticket = executor.train([slot.job for slot in slots if slot.job is not None])
        for index, slot in enumerate(slots):
            slot.ticket, slot.index = ticket, index
            slot.job = slot.job if self._may_cut else None


def _read(slots: Sequence[_Slot], others: Iterable[_Slot]) -> Iterator[tuple[Visit, Update]]:
    read: Ticket | None = None
    updates: list[Update | None] = []
    for slot in slots:
        assert slot.ticket is not None
        if slot.ticket is not read:
            try:
                read, updates = slot.ticket, slot.ticket.result()
            except FedsimError as problem:
                _mark_failed(problem, slots, others)
                raise
        update, updates[slot.index] = updates[slot.index], None
        assert update is not None
        yield slot.visit, update


def _mark_failed(problem: FedsimError, landed: Sequence[_Slot], others: Iterable[_Slot]) -> None:
    """Have an error say which versions the visits trained that it blames; those that have landed are `failed`."""
    told = problem.message
    blamed = [s.visit for s in (*landed, *others) if (s.visit.client, s.visit.visit) in told.blamed]
    if not blamed:
        return
    versions = sorted({visit.version for visit in blamed})
    words = "version" if len(versions) == 1 else "versions"
    where = f"{told.where} ({words} {', '.join(map(str, versions))})"
    problem.args = (replace(told, where=where),)
    for slot in landed:
        if slot.visit in blamed:
            slot.visit.fail()
