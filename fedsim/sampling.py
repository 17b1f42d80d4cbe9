"""Who is asked: requests for clients, served in the order in which they were made.

Pure bookkeeping over the roster; when to look again is the server's to arrange.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim.errors import RunError, message
from fedsim.experiment import Experiment
from fedsim.profiles import Population
from fedsim.rng import stream
from fedsim.roster import Roster


@dataclass(frozen=True)
class Request:
    """Somebody waits for `n` clients since `since_s` [virtual s]; `grant` hands them over."""

    n: int
    grant: Callable[[list[int]], Any]
    since_s: float


class Desk:
    """The requests that wait, and the clients that could serve them."""

    def __init__(self, experiment: Experiment, population: Population, roster: Roster, seen: Any) -> None:
        """Take who there is; `seen` is what the sampler may know of the past."""
        self._experiment, self._population, self._roster, self._seen = experiment, population, roster, seen
        self._sampler: Any = experiment.sampler
        self._requests: deque[Request] = deque()
        self._draws = 0
        self._most_idle = 0
        self._held: set[int] = set()

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._requests)

    def ask(self, request: Request) -> None:
        """Queue a request."""
        self._requests.append(request)

    def hold(self, client: int) -> None:
        """Keep a client from being asked, although its visit has ended, until `free`."""
        self._held.add(client)
        self._roster.reserve(np.array([client]))

    def free(self, clients: Sequence[int]) -> None:
        """Let held clients be asked again."""
        for client in clients:
            self._held.discard(client)
            self._roster.release(client)

    def serve(self, now_s: float) -> float:
        """Grant requests while there are enough idle and online clients for the first of them.

        Returns:
            When more clients may be there [virtual s], inf if nobody waits or nobody will come by himself.

        Raises:
            RunError: the request can never be granted, or has waited longer than `runtime.stall_s`.
        """
        if not self._requests:
            return math.inf
        idle = self._roster.idle(now_s)
        self._most_idle = max(self._most_idle, len(idle))
        while self._requests:
            request = self._requests[0]
            if len(idle) < request.n:
                next_s = self._roster.availability.next_start_s(now_s)
                self._give_up_if_hopeless(request, now_s, next_s)
                return next_s
            rng = stream(self._experiment.seed, "sample", self._draws)
            self._draws += 1
            chosen = self._sampler.choose(idle, request.n, rng, self._seen)
            self._roster.reserve(chosen)
            idle = np.delete(idle, np.searchsorted(idle, chosen))
            self._requests.popleft()
            self._most_idle = 0
            request.grant([int(client) for client in chosen])
        return math.inf

    def _give_up_if_hopeless(self, request: Request, now_s: float, next_s: float) -> None:
        nothing_flies = self._roster.busy == len(self._held)
        hopeless = len(self._population) - self._roster.excluded < request.n
        waited_s = now_s - request.since_s
        if not (
            hopeless or (nothing_flies and math.isinf(next_s)) or waited_s > self._experiment.runtime.stall_s
        ):
            return
        share = float(np.mean(self._roster.availability.share()))
        raise RunError(
            message(
                "run",
                f"nobody to ask: {request.n} idle clients online at once were needed, at most {self._most_idle} "
                f"of {len(self._population)} were there between {request.since_s:.0f} s and {now_s:.0f} s of "
                f"virtual time (clients are online {share:.0%} of the time, {self._roster.busy} were busy, "
                f"{self._roster.excluded} have too little memory)",
                fix="ask fewer (protocol.cohort, protocol.concurrency), take more clients, or a longer runtime.stall_s",
            )
        )
