"""Worker processes as the driver's queue sees them: what it asks of them, the calls they hold, and how they are lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fedsim.errors import HostError, message
from fedsim.executors.calls import Failure, Item, Verb, names
from fedsim.executors.host import INLINE


class WorkerLost(Exception):  # noqa: N818  # an event, not an error of ours
    """The process that held a call is gone; the argument says how, in a few words.

    Attributes:
        hung: it did not answer, and was given up.
        objects: what was lost is an object that it needed or had made.
    """

    def __init__(self, how: str, *, hung: bool = False, objects: bool = False) -> None:
        super().__init__(how)
        self.hung, self.objects = hung, objects


class Pool(Protocol):
    """Worker processes and the way to them. A `ref` is hashable and stands for an answer to come."""

    def start(self) -> Any:
        """Start one worker process; does not wait."""
        ...

    def prepare(self, worker: Any) -> Any:
        """Give it the task; the answer (ref) is `(where, None)` or `(where, Failure)`."""
        ...

    def submit(self, worker: Any, verb: Verb, items: Sequence[Item]) -> Any:
        """Queue a call on it; the answer (ref) is a list of results or a `Failure`."""
        ...

    def wait(self, refs: Sequence[Any], timeout_s: float) -> Collection[Any]:
        """Return the refs that have an answer, waiting for at least one until the timeout."""
        ...

    def fetch(self, ref: Any) -> Any:
        """Return the answer; raises WorkerLost."""
        ...

    def stop(self, worker: Any) -> None:
        """Kill it; what it held is answered by WorkerLost."""
        ...

    def restore(self, items: Sequence[Item]) -> None:
        """Make again what workers need for some items, because objects were lost."""
        ...

    def check(self) -> None:
        """Raise a HostError if what holds the workers together is gone."""
        ...

    def facts(self) -> str:
        """Return what an error says about the machine."""
        ...


@dataclass(eq=False)
class Call:
    """One batch on its way; `outcome` is a list, a `Failure` or an error once it is `done`.

    Attributes:
        verb, items: what is to be done.
        wanted: somebody has asked for it.
        deaths: workers that were lost while they worked on it; weight: the same, those that hung counted for more.
        acquitted: its items were tried alone, and no worker was lost on one.
        trial: the batch whose item this call tries alone (`fedsim.executors.faults.suspects`).
    """

    verb: Verb
    items: tuple[Item, ...]
    wanted: bool = False
    deaths: int = 0
    weight: int = 0
    acquitted: bool = False
    trial: Trial | None = None
    done: bool = False
    outcome: list[Any] | Failure | HostError = field(default_factory=list)

    def settle(self, outcome: list[Any] | Failure | HostError) -> None:
        """Take the outcome and let go of what was sent."""
        self.outcome, self.done, self.items = outcome, True, ()

    def __str__(self) -> str:
        """Name the first clients of the batch."""
        more = len(self.items) - 8
        return names(self.items[:8]) + (f"; and {more} more" if more > 0 else "")


@dataclass(eq=False)
class Trial:
    """A batch whose items are tried alone, because workers died on it.

    Attributes:
        batch: the call.
        calls: the tries that are still open.
    """

    batch: Call
    calls: list[Call] = field(default_factory=list)


@dataclass(eq=False)
class PoolWorker:
    """One worker process as the queue sees it."""

    number: int
    handle: Any
    opening: Any  # the answer to `prepare`, None when it has come
    where: str = "starting"
    calls: dict[Any, Call] = field(default_factory=dict)


FEWER = f"fewer workers (-s runtime.workers=1), or {INLINE}"
"""The way out where workers die."""


def stalled(workers: Sequence[PoolWorker], queued: int, facts: str, patience_s: float) -> HostError:
    """Return the error of workers of which none has started for so long."""
    waiting = [f"worker {w.number} has not started" for w in workers if w.opening is not None]
    what = (
        f"nothing finished for {patience_s:g} s; {' | '.join(waiting[:8]) or 'no worker'}; "
        f"{queued} calls queued; {facts}"
    )
    return HostError(message("watchdog", what, fix=f"a larger runtime.watchdog_s, or {INLINE}"))


def unstarted(lost: WorkerLost, facts: str) -> HostError:
    """Return the error of workers that die before they hold the task."""
    return HostError(message("ray", f"workers die while they start ({lost}); {facts}", fix=FEWER))
