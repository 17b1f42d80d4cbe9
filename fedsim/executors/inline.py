"""The executor without Ray: in this process, on one thread, one call after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.errors import HostError, message
from fedsim.executors._base import Executor, Ticket
from fedsim.executors.calls import Failure, Item, Verb, perform, single_threaded, warm
from fedsim.jobs import Job, ScoreJob, Task


class Inline(Executor):
    """Runs a call when its result is asked for; the reference for every other executor."""

    workers = 1

    def __init__(self) -> None:
        self._task: Task | None = None
        self._threads = ExitStack()

    def open(self, task: Task) -> None:
        """Take the task, load what it loads lazily, and keep torch on one thread until `close`."""
        if self._task is None:
            self._threads.enter_context(single_threaded())
        self._task = task
        warm(task)

    def share(self, vector: Vector) -> Vector:
        """Return the vector itself, read-only: a handle to it is not needed here."""
        view = np.ascontiguousarray(vector, dtype=np.float32).view()
        view.flags.writeable = False
        return view

    def train(self, batch: Sequence[Job]) -> InlineTicket:
        """Promise the updates of a client batch."""
        return self._ticket("train", batch)

    def score(self, batch: Sequence[ScoreJob]) -> InlineTicket:
        """Promise the sums of some pieces of an evaluation."""
        return self._ticket("score", batch)

    def close(self) -> None:
        """Drop the task and give torch its threads back."""
        self._task = None
        self._threads.close()

    def _ticket(self, verb: Verb, batch: Sequence[Item]) -> InlineTicket:
        if self._task is None:
            raise HostError(message("executor", "it is closed", fix="call open(task) first"))
        return InlineTicket(self._task, verb, tuple(batch))


class InlineTicket(Ticket):
    """A call that runs at the first `result()`."""

    def __init__(self, task: Task, verb: Verb, items: tuple[Item, ...]) -> None:
        self._call: tuple[Task, Verb, tuple[Item, ...]] | None = (task, verb, items)
        self._outcome: list[Any] | Failure = []

    def want(self) -> None:
        """Nothing goes before: calls run when they are read."""

    def done(self) -> bool:
        """Return True: there is nobody else to wait for."""
        return True

    def result(self) -> list[Any]:
        """Run the call (once) and return one result per item.

        Raises:
            WorkerError: the task's code raised; names client and visit, its cause is the original.
            FedsimError: the task's own, as it was raised (a missing model, say).
        """
        if self._call is not None:
            task, verb, items = self._call
            self._outcome = perform(task, verb, items, resolve=lambda vector: vector)
            self._call = None
        if isinstance(self._outcome, Failure):
            raise self._outcome.error()
        return self._outcome
