"""The driver's queue in front of a pool of worker processes.

What somebody wants now goes first, then other training, then scores; within each, first come, first
served. Scores are begun on idle workers only, and only while somebody waits: what training there is
has been queued by then. Finished training that nobody has read yet is bounded, however long the queue.
A call is given to another worker when its own dies or does not answer, so a real failure changes no result
(`fedsim.executors.faults.suspects` says when a call is held to be the cause). Nothing here knows of Ray: a `Pool`
starts workers and moves calls.
"""

from __future__ import annotations

import math
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from fedsim.errors import HostError, message
from fedsim.executors.calls import Failure, Item, Verb
from fedsim.executors.faults.suspects import DEATHS, after_trial, instead_of, is_idle
from fedsim.executors.host import INLINE
from fedsim.executors.pool import Call, Pool, PoolWorker, WorkerLost, stalled, unstarted

IN_FLIGHT = 2
"""Calls a worker holds while there are plenty: one that it works on, one that waits behind it."""
AHEAD = 8
"""Finished client batches a worker, at most, that may lie here unread before no more are begun."""
START_S = 120.0
"""Least patience while all that is waited for are starts: importing torch takes its time."""
POLL_S = 0.02
"""Shortest time between two looks at the answers when nobody waits for one."""


def ahead(room: float, workers: int, batch: int) -> int:
    """Return the finished batches a worker that may lie unread, where `room` results fit in all.

    What the workers hold meanwhile has its place beside them; one batch is always allowed.

    >>> ahead(math.inf, workers=4, batch=8)
    8
    >>> ahead(240, workers=4, batch=8)  # 7 batches a worker, 2 of them in its hands
    5
    """
    return int(max(1, min(AHEAD, room / (workers * max(1, batch)) - IN_FLIGHT)))


class JobQueue:
    """The queue, the workers and the watchdog."""

    def __init__(self, pool: Pool, workers: int, watchdog_s: float, room: float = math.inf) -> None:
        """Start the workers without waiting for them.

        Args:
            pool: where they come from.
            workers: how many.
            watchdog_s: real seconds without any answer before the workers that hold calls are given up.
            room: see `resize`.
        """
        self._pool, self._watchdog_s, self._room = pool, watchdog_s, room
        self._wanted: deque[Call] = deque()
        self._training: deque[Call] = deque()
        self._scores: deque[Call] = deque()
        self._unread: weakref.WeakSet[Call] = weakref.WeakSet()  # see `_startable`
        self._awaited: Call | None = None
        self._moved_s = self._looked_s = time.monotonic()
        self._failed_starts = 0
        self._workers = [self._started_worker(number) for number in range(workers)]

    @property
    def room(self) -> float:
        """How many results of jobs there is room for."""
        return self._room

    def resize(self, room: float) -> None:
        """Say how many results of jobs there is room for; this changes when work is done, never what comes out."""
        self._room = room

    def wait_until_ready(self) -> None:
        """Wait until every worker holds the task.

        Raises:
            HostError: workers die while starting, or do not start in time.
            FedsimError: the task cannot be loaded there.
        """
        self._moved_s = time.monotonic()
        while any(w.opening is not None for w in self._workers):
            self._take_turn()

    def change_task(self) -> None:
        """Drop all calls and give the workers the pool's new task."""
        for queue in self._queues():
            queue.clear()
        for worker in self._workers:
            worker.calls.clear()  # a late answer is to nobody
            worker.opening = self._pool.prepare(worker.handle)

    def submit(self, verb: Verb, items: Sequence[Item]) -> Call:
        """Queue a call."""
        call = Call(verb, tuple(items))
        (self._training if verb == "train" else self._scores).append(call)
        self._assign_calls()
        self.poll()
        return call

    def want(self, call: Call) -> None:
        """Put a call before those that nobody has asked for yet."""
        call.wanted = True
        for queue in (self._training, self._scores):
            if call in queue:
                queue.remove(call)
                self._wanted.append(call)
                self._assign_calls()

    def poll(self) -> None:
        """Look at the answers without waiting, unless that was done a moment ago."""
        if time.monotonic() - self._looked_s > POLL_S:
            self._look_at_answers(0.0)

    def result_of(self, call: Call) -> list[Any]:
        """Wait for a call and return its results.

        Raises:
            WorkerError: the task's code raised; names client and visit.
            HostError: workers keep dying on it, or do not answer for the watchdog's time, or all of them are out of reach.
        """
        self._moved_s = time.monotonic()  # the watchdog counts while somebody waits
        self._awaited = call
        try:
            while not call.done:
                self._bring_to_front(call)
                self._take_turn()
        finally:
            self._awaited = None
        self._unread.discard(call)
        self._assign_calls()
        self.poll()
        if isinstance(call.outcome, Failure):
            raise call.outcome.error()
        if isinstance(call.outcome, HostError):
            raise call.outcome
        return call.outcome

    def _bring_to_front(self, call: Call) -> None:
        """Bring a call that still waits in a queue to the head of all."""
        for queue in self._queues():
            if call in queue:
                queue.remove(call)
                self._wanted.appendleft(call)
                self._assign_calls()
                return

    def _queues(self) -> tuple[deque[Call], deque[Call], deque[Call]]:
        return self._wanted, self._training, self._scores

    def stop(self) -> None:
        """Kill all workers; calls still open end with an error."""
        closed = HostError(message("executor", "closed before this call was done"))
        for worker in self._workers:
            self._pool.stop(worker.handle)
            for call in worker.calls.values():
                call.settle(closed)
        for queue in self._queues():
            for call in queue:
                call.settle(closed)
            queue.clear()
        self._workers.clear()

    def places(self) -> list[str]:
        """Return where each worker runs (`pid 123 on 127.0.0.1`)."""
        return [worker.where for worker in self._workers]

    # one turn ---------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        busy = [w for w in self._workers if w.opening is None and w.calls]
        patience_s = self._watchdog_s if busy else max(self._watchdog_s, START_S)
        left_s = self._moved_s + patience_s - time.monotonic()
        if left_s <= 0 and not busy:
            raise stalled(self._workers, sum(map(len, self._queues())), self._pool.facts(), patience_s)
        if left_s <= 0:
            self._replace_silent_workers(busy, patience_s)
        self._look_at_answers(max(0.0, min(left_s, 1.0)))

    def _look_at_answers(self, timeout_s: float) -> None:
        self._pool.check()
        openings = [w.opening for w in self._workers if w.opening is not None]
        refs = openings + [ref for w in self._workers for ref in w.calls]
        answered = set(self._pool.wait(refs, timeout_s))
        self._looked_s = time.monotonic()
        if answered:
            self._moved_s = self._looked_s
        for worker in tuple(self._workers):
            self._collect_answers(worker, answered)
        self._assign_calls()

    def _assign_calls(self) -> None:
        """Give calls to workers that have room for them."""
        while True:
            queue = next(self._startable(), None)
            if queue is None:
                return
            # the last calls go to idle workers only: none shall wait behind a long one
            if is_idle(queue[0]):
                queue.popleft()
                continue
            plenty = len(self._wanted) + len(self._training) > len(self._workers)
            alone = queue is self._scores or queue[0].trial is not None
            room = IN_FLIGHT if plenty and not alone else 1
            free = [w for w in self._workers if w.opening is None and len(w.calls) < room]
            if not free:
                return
            worker = min(free, key=lambda w: len(w.calls))
            call = queue.popleft()
            worker.calls[self._pool.submit(worker.handle, call.verb, call.items)] = call

    def _startable(self) -> Iterator[deque[Call]]:
        """Yield the queues whose first call may be begun, in their order.

        A call that its owner has dropped cannot be read any more and leaves `_unread` by itself, a weak set:
        it takes no place from the others.
        """
        wanted = sum(call.wanted for call in self._unread)
        if self._wanted:
            first = self._wanted[0]
            urgent = first is self._awaited or first.trial is not None
            if urgent or wanted < self._most_unread(self._wanted):
                yield self._wanted
        if self._training and len(self._unread) < self._most_unread(self._training):
            yield self._training
        if self._scores and self._awaited is not None:
            yield self._scores

    def _most_unread(self, queue: deque[Call]) -> int:
        """Return the unread calls before which the first of a queue may be begun."""
        batch = len(queue[0].items) if queue[0].verb == "train" else 0
        return len(self._workers) * ahead(self._room, len(self._workers), batch)

    def _collect_answers(self, worker: PoolWorker, answered: Collection[Any]) -> None:
        try:
            if worker.opening in answered:
                worker.where, failure = self._pool.fetch(worker.opening)
                worker.opening, self._failed_starts = None, 0
                if failure is not None:
                    raise failure.error(HostError, fix=f"see the cause with --debug, or {INLINE}")
            for ref in [ref for ref in worker.calls if ref in answered]:
                outcome = self._pool.fetch(ref)
                self._settle(worker.calls.pop(ref), outcome)
        except WorkerLost as lost:
            self._replace_worker(worker, lost)

    def _settle(self, call: Call, outcome: list[Any] | Failure) -> None:
        if call.trial is not None and isinstance(outcome, Failure) and not is_idle(call):
            call.trial.batch.settle(outcome)
        self._wanted.extendleft(after_trial(call))
        call.settle(outcome)
        if call.verb == "train" and call.trial is None and call is not self._awaited:
            self._unread.add(call)

    # deaths -----------------------------------------------------------------------------------------

    def _replace_worker(self, worker: PoolWorker, lost: WorkerLost) -> None:
        """Put a new worker in the place of a dead one and queue again what it held, first."""
        self._pool.stop(worker.handle)  # it may be unreachable rather than dead
        if worker.opening is not None:
            self._failed_starts += 1
            if self._failed_starts >= DEATHS:
                raise unstarted(lost, self._pool.facts())
        if lost.objects:
            self._pool.restore([item for call in worker.calls.values() for item in call.items])
        again = [call for ref, call in worker.calls.items() if lost.hung or not self._is_done(ref, call)]
        if again and worker.opening is None:  # a worker runs its calls in order: the first was running
            again[:1] = instead_of(again[0], lost)
        self._wanted.extendleft(reversed(again))
        self._workers[self._workers.index(worker)] = self._started_worker(worker.number)

    def _is_done(self, ref: object, call: Call) -> bool:
        """Take the answer of a call that was done before its worker died."""
        try:
            self._settle(call, self._pool.fetch(ref))
        except WorkerLost:
            return False
        return True

    def _replace_silent_workers(self, silent: Sequence[PoolWorker], patience_s: float) -> None:
        """Give up the workers that hold calls and have not answered."""
        what = f"nothing finished for {patience_s:g} s ({self._pool.facts()})"
        for worker in silent:
            self._replace_worker(worker, WorkerLost(what, hung=True))
        self._moved_s = time.monotonic()

    def _started_worker(self, number: int) -> PoolWorker:
        handle = self._pool.start()
        return PoolWorker(number, handle, self._pool.prepare(handle))
