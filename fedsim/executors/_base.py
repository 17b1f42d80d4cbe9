"""What every executor is: it runs batches of jobs on a task, and promises their results as tickets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.adapters.adapter import Vector
from fedsim.executors.cluster.agreement import processors_here
from fedsim.jobs import Job, ScoreJob, Task


class Ticket(ABC):
    """A promise of one call's results."""

    @abstractmethod
    def want(self) -> None:
        """Say that the result is needed now: it goes before calls of which this was not said."""

    @abstractmethod
    def done(self) -> bool:
        """Tell whether `result` needs to wait for nobody else."""

    @abstractmethod
    def result(self) -> list[Any]:
        """Wait (in real time) and return one result per item of the batch, in order.

        The list is the caller's: who has read an item may take it out. Arrays may lie in a store of the
        executor's, read-only: who keeps one for long copies it.

        Raises:
            WorkerError: the code of one item raised; names client and visit.
            HostError: workers keep dying on it, or nothing moved for `watchdog_s`.
        """


class Executor(ABC):
    """Runs batches of jobs on a task.

    It is closed at first; `prestart` (if it can) begins to start its workers ahead of the task, `open` makes it
    ready, `close` closes it again, from wherever it is; it can be opened again after that.

    Attributes:
        workers: how many processes work; known once it is open.
        reason: why so many, in a few words.
    """

    workers: int = 0
    reason: str = ""

    def prestart(self, modules: Sequence[str] = ()) -> None:  # noqa: B027  # optional: nothing to start ahead
        """Begin to start the workers while the task is prepared; returns at once and reports nothing.

        Args:
            modules: what the workers will need to import.
        """

    def processors(self) -> Mapping[str, int]:
        """Return the kinds of processors that it works on, and how many machines have each; by default, this machine's."""
        return processors_here()

    @abstractmethod
    def open(self, task: Task) -> None:
        """Start the workers and give each the task; called again, gives them another one."""

    @abstractmethod
    def share(self, vector: Vector) -> Any:
        """Make a vector available to all workers once; the handle goes into jobs."""

    @abstractmethod
    def train(self, batch: Sequence[Job]) -> Ticket:
        """Queue a client batch; the ticket gives `list[Update]`."""

    @abstractmethod
    def score(self, batch: Sequence[ScoreJob]) -> Ticket:
        """Queue pieces of an evaluation, behind all training; the ticket gives `list[Sums]`."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers and leave nothing behind; safe to call twice."""
