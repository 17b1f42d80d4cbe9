"""Where the real work runs. An executor knows nothing of virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fedsim.adapters.adapter import Vector
from fedsim.jobs import Job, ScoreJob, Sums, Task, Update


class Ticket(Protocol):
    """A promise of one call's results."""

    def want(self) -> None:
        """Say that the result is needed now: it goes before calls of which this was not said."""
        ...

    def done(self) -> bool:
        """Tell whether `result` needs to wait for nobody else."""
        ...

    def result(self) -> list[Any]:
        """Wait (in real time) and return one result per item of the batch, in order.

        The list is the caller's: who has read an item may take it out. Arrays may lie in a store of the
        executor's, read-only: who keeps one for long copies it.

        Raises:
            WorkerError: the code of one item raised; names client and visit.
            HostError: workers keep dying on it, or nothing moved for `watchdog_s`.
        """
        ...


class Executor(Protocol):
    """Runs batches of jobs on a task."""

    workers: int

    def open(self, task: Task) -> None:
        """Start the workers and give each the task; called once, before the clock starts."""
        ...

    def share(self, vector: Vector) -> Any:
        """Make a vector available to all workers once; the handle goes into jobs."""
        ...

    def train(self, batch: Sequence[Job]) -> Ticket:
        """Queue a client batch; the ticket gives `list[Update]`."""
        ...

    def score(self, batch: Sequence[ScoreJob]) -> Ticket:
        """Queue pieces of an evaluation, behind all training; the ticket gives `list[Sums]`."""
        ...

    def close(self) -> None:
        """Stop the workers and leave nothing behind; safe to call twice."""
        ...


__all__ = ["Executor", "Job", "ScoreJob", "Sums", "Ticket", "Update"]
