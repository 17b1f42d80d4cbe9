"""What a protocol is, and the verbs that it may use: the seam between policy and the server's mechanism."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.clock.estimate import Estimate
from fedsim.clock.visit import Visit
from fedsim.component import Component
from fedsim.config.problem import Problem
from fedsim.instants import Instant


class Memory(Protocol):
    """What a protocol remembers from blend to blend: one object for a whole run."""

    def dump(self) -> object:
        """Return it as explicit data for a checkpoint: what `fedsim.files.checkpoint.plain_values` holds."""
        ...

    def load(self, data: Any) -> None:
        """Remember what `dump` has returned, in place of all else."""
        ...


@dataclass(frozen=True)
class Blend:
    """How a protocol makes the shared adapter of several by itself.

    Attributes:
        sent: the adapter that the visits of the commit were sent, (size,) float32; the rule is applied to it, and
            nobody is stale to it.
        mix: (visits taken, what the rule made of `sent`) -> the shared adapter.
        memory: what `mix` remembers, the same object in every blend of a run; None: it cannot be said, and such a run
            has no checkpoints.
    """

    sent: Vector = field(repr=False)
    mix: Callable[[Sequence[Visit], Vector], Vector]
    memory: Memory | None = None


Steps = Generator[simpy.Event, Any, None]
"""A process of the clock that returns nothing."""


class Verbs(Protocol):
    """What the server does for a protocol. Times are virtual seconds; values are never seen."""

    # whom ---------------------------------------------------------------------------------------

    def sample(
        self, n: int, among: NDArray[np.int64] | None = None
    ) -> Generator[simpy.Event, Any, list[int]]:
        """Wait until n clients (of `among`, ascending; None: of all) are idle and online, and choose them."""
        ...

    def hold(self, client: int) -> None:
        """Keep a client from being asked, although its visit has ended, until `free`."""
        ...

    def free(self, clients: Sequence[int]) -> None:
        """Let held clients be asked again, from this instant's dispatches on."""
        ...

    # visits -------------------------------------------------------------------------------------

    def dispatch(
        self, client: int, round_: int = -1, *, steps: int | None = None, rank: int | None = None
    ) -> Visit:
        """Send the model of this version to a client; returns its visit, under way."""
        ...

    def wait(self, visits: Sequence[Visit], *, want: int, deadline_s: float | None = None) -> Steps:
        """Wait until `want` visits have landed, all have ended, or the deadline; then for the commits' place."""
        ...

    def collect(
        self, visits: Sequence[Visit], *, want: int, late: Literal["stop", "finish"] = "stop"
    ) -> list[Visit]:
        """Close a round: return its first `want` landed visits; the others are surplus or late."""
        ...

    def reject(self, landed: Sequence[Visit]) -> None:
        """Drop landed visits: their round had too few reports."""
        ...

    def fresh(self, landed: Sequence[Visit], max_staleness: int | None) -> list[Visit]:
        """Return the landed visits of the last `max_staleness` versions (None: all); the others end as `stale`."""
        ...

    def commit(self, landed: Sequence[Visit], *, blend: Blend | None = None) -> None:
        """Make the next version of landed visits."""
        ...

    # what would be ------------------------------------------------------------------------------

    def estimate(self, client: int, *, steps: int | None = None, rank: int | None = None) -> Estimate:
        """Return how a visit would go if it began now, alone on its own link, on a cool device."""
        ...

    def steps(self, client: int) -> int:
        """Return the optimiser steps of a whole visit of a client."""
        ...

    def rank(self, client: int) -> int:
        """Return the slots of each factor that a client trains in a whole visit; 0 for whole models."""
        ...

    # the clock ----------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The time now [virtual s]."""
        ...

    def process(self, generator: Generator[Any, Any, Any]) -> simpy.Process:
        """Start a process."""
        ...

    def event(self) -> simpy.Event:
        """Return an event that happens when somebody says so (`succeed`)."""
        ...

    def timeout(self, delay_s: float) -> simpy.Event:
        """Return the event `delay_s` from now."""
        ...

    def all_of(self, events: Iterable[simpy.Event]) -> simpy.Event:
        """Return the event that all have happened."""
        ...

    def turn(self, instant: Instant, *, at_s: float | None = None) -> simpy.Event:
        """Return the event that an instant (None: this one) has come to its commits (or dispatches)."""
        ...

    # what there is ------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """How many clients there are."""
        ...

    @property
    def held_out(self) -> Collection[int]:
        """Clients that are never asked."""
        ...

    @property
    def seed(self) -> int:
        """The seed of training, for `fedsim.rng.stream`."""
        ...

    @property
    def vector(self) -> Vector:
        """The shared adapter of this version, (size,) float32."""
        ...


class ServerProtocol(Component):
    """When to ask, wait and commit: a SimPy generator over the server's verbs. What it says of itself is optional."""

    @abstractmethod
    def run(self, server: Verbs) -> Steps:
        """Run for ever; the server's budget ends it."""

    @property
    def stale(self) -> bool:
        """Whether an update may meet a newer model than its own."""
        return True

    @property
    def blends(self) -> bool:
        """Whether it makes the shared model of several by itself (`commit(..., blend=)`)."""
        return False

    @property
    def fedbuff(self) -> bool:
        """Whether a commit is FedBuff's: `aggregator.normalize: auto` then divides discounted moves by their number."""
        return False

    @property
    def cuts_ranks(self) -> bool:
        """Whether it asks for fewer rank slots than a client has."""
        return False

    @property
    def reads_values(self) -> bool:
        """Whether losses decide whom to ask: there is no timeline without training then."""
        return False

    @property
    def round_deadline_s(self) -> float | None:
        """How long a round waits at most [virtual s], if it is known before the run; None: it is not."""
        return None

    @property
    def clients_at_work(self) -> int:
        """Clients that it wants at work at the same time."""
        return 1

    @property
    def whole_visits(self) -> bool:
        """Whether it asks every client for all of its steps and slots; False: it may ask for less."""
        return False

    @property
    def clients_at_once(self) -> int:
        """Clients that it asks for together (`sample(n)`): so many have to be idle and online at one time."""
        return 1

    @property
    def least_updates(self) -> int:
        """Different clients without whose updates it makes no version."""
        return 1

    @property
    def updates_per_commit(self) -> int | None:
        """Updates that a commit takes when all goes well; None: not known."""
        return None

    @property
    def commits_every_s(self) -> float | None:
        """Virtual seconds between two instants at which it may commit, if those follow from the clock; None: they do not."""
        return None

    def problems(self, clients: int) -> list[Problem]:
        """Return what it asks for and cannot have with so many clients."""
        return []


def more_than_there_are(field: str, number: int, clients: int, what: str) -> list[Problem]:
    """Return the problem that a protocol's field is larger than the number of clients, if it is."""
    if number <= clients:
        return []
    fix = f"set it to at most {clients}, or raise population.clients"
    return [Problem(("protocol", field), what, fix, number)]


def cohort_problems(cohort: int, clients: int, wanted: int | None = None) -> list[Problem]:
    """Return the problem that a cohort is larger than the population, if it is.

    Args:
        cohort: `protocol.cohort`.
        clients: how many there are.
        wanted: clients that a round asks, if more than the cohort.
    """
    if cohort <= clients:
        return []
    fix = f"ask fewer, or set population.clients to at least {wanted or cohort}"
    return [Problem(("protocol", "cohort"), f"asks more clients than there are ({clients})", fix, cohort)]


def whole_visit_s(server: Verbs, client: int) -> float:
    """Return the estimated time of a whole visit [virtual s]; inf if it does not fit the client's memory."""
    expected = server.estimate(client)
    return expected.total_s if expected.fits else math.inf
