"""Who is asked: requests for clients, served in the order in which they were made.

Pure bookkeeping over the roster; when to look again is the server's to arrange.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.clock.online.idle_set import IdleSet
from fedsim.clock.online.roster import Roster
from fedsim.clock.plan import Plan
from fedsim.errors import RunError, message
from fedsim.rng import CountedStreams, stream
from fedsim.samplers.seen import Records
from fedsim.samplers.uniform import Uniform
from fedsim.server import returned

Places = Callable[[int, int, np.random.Generator], NDArray[np.int64]]
"""(idle clients, n, all chance) -> the places of n of them."""


@dataclass(frozen=True, eq=False, slots=True)
class PoolRequest:
    """Somebody waits for `n` clients since `since_s` [virtual s]; `grant` hands them over.

    `among` are the only clients that will do (ascending), a pool; None: everybody. A sampler that polls
    grants more than n.
    """

    n: int
    grant: Callable[[list[int]], Any]
    since_s: float
    among: NDArray[np.int64] | None = field(default=None, repr=False)

    @property
    def pool(self) -> int:
        """What tells requests of one pool from those of another; 0 for everybody."""
        return 0 if self.among is None else id(self.among)

    def of(self, idle: IdleSet) -> IdleSet | NDArray[np.int64]:
        """Return those of the idle clients that will do, ascending; a set that goes on changing where all will do."""
        return idle if self.among is None else idle.those_of(self.among)


class Desk:
    """The requests that wait, and the clients that could serve them."""

    def __init__(
        self,
        plan: Plan,
        roster: Roster,
        records: Records,
        held_out: int = 0,
        on_nobody_left: Callable[[str], None] | None = None,
    ) -> None:
        """Take who there is.

        Args:
            plan: of the experiment.
            roster: who is idle.
            records: what the sampler may know of the past.
            held_out: how many clients are never asked, for the words of an error.
            on_nobody_left: told, in a sentence, that the clients' windows are over; None: that is an error.
        """
        self._on_nobody_left = on_nobody_left
        self._experiment, self._clients, self._roster = plan.experiment, len(plan.population), roster
        self._records, self._held_out = records, held_out
        self._sampler = sampler = plan.parts.sampler
        self._by_places: Places | None = None
        self._first_draws: CountedStreams | None = None
        if isinstance(sampler, Uniform) and type(sampler).choose is Uniform.choose:
            self._by_places = sampler.places
            if type(sampler).places is Uniform.places:
                self._first_draws = CountedStreams(self._experiment.training_seed, "sample")
        self._requests: deque[PoolRequest] = deque()
        self._draws = 0
        self._most_idle: dict[int, int] = {}
        self._held: set[int] = set()

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._requests)

    def ask(self, request: PoolRequest) -> None:
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

    def keep_busy(self, client: int) -> None:
        """Count a client as busy although its visit has ended: a choice is pending, then a dispatch or `free`."""
        self._roster.reserve(np.array([client]))

    def serve(self, now_s: float) -> float:
        """Grant requests, in their order, for which there are enough idle and online clients.

        A request that has to wait keeps back the later ones of its pool, and no others.

        Returns:
            When more clients may be there [virtual s], inf if nobody waits or nobody will come by himself.

        Raises:
            RunError: a request can never be granted, or has waited longer than `runtime.stall_s`. That the windows
                of a trace are over is no error: the run ends, or waits for the end of `budget.time_s`.
        """
        if not self._requests:
            return math.inf
        idle, next_s = self._roster.look(now_s), math.inf
        short: dict[int, PoolRequest] = {}
        waiting, self._requests = self._requests, deque()
        for request in waiting:
            pool = request.pool
            if pool in short:
                self._requests.append(request)
                continue
            fit = request.of(idle)
            if len(fit) < request.n:
                self._most_idle[pool] = max(self._most_idle.get(pool, 0), len(fit))
                short[pool] = request
                self._requests.append(request)
                continue
            chosen = self._chosen(request, fit, now_s)
            self._most_idle.pop(pool, None)
            request.grant(chosen)
        if short:
            next_s = self._roster.availability.next_start_s(now_s)
        for request in short.values():
            self._give_up_if_hopeless(request, now_s, next_s)
        return next_s

    def _chosen(self, request: PoolRequest, fit: IdleSet | NDArray[np.int64], now_s: float) -> list[int]:
        number, self._draws = self._draws, self._draws + 1
        if request.n == 1 and isinstance(fit, IdleSet) and self._first_draws is not None:
            client = fit.member(
                self._first_draws.integer(number, len(fit))
            )  # as below, and nothing else made
            self._roster.reserve_one(client)
            return [client]
        rng = stream(self._experiment.training_seed, "sample", number)
        if isinstance(fit, IdleSet) and self._by_places is not None:
            chosen = fit.at(self._by_places(len(fit), request.n, rng))
        else:
            idle = fit.members() if isinstance(fit, IdleSet) else fit
            drawn = self._sampler.choose(idle, request.n, rng, self._records.now(now_s))
            chosen = returned.chosen(self._sampler, idle, request.n, drawn)
        self._roster.reserve(chosen)
        clients: list[int] = chosen.tolist()
        return clients

    def _give_up_if_hopeless(self, request: PoolRequest, now_s: float, next_s: float) -> None:
        able = self._roster.able(request.among)
        waited_s = now_s - request.since_s
        stall_s = self._experiment.runtime.stall_s
        nothing_flies = self._roster.busy == len(self._held)
        for_ever = nothing_flies and math.isinf(next_s)
        if able >= request.n and for_ever and self._windows_are_over(now_s):
            return
        if able >= request.n and not for_ever and waited_s <= stall_s:
            return
        raise self._nobody_to_ask(request, now_s)

    def give_up(self, now_s: float) -> None:
        """Raise if somebody has waited for clients; who asks in this very instant is served later in it.

        Raises:
            RunError: says how many were needed, and how many there were.
        """
        if self._requests and self._requests[0].since_s < now_s:
            raise self._nobody_to_ask(self._requests[0], now_s)

    def _nobody_to_ask(self, request: PoolRequest, now_s: float) -> RunError:
        share = float(np.mean(self._roster.availability.share()))
        held_out = self._held_out
        small, strangers = self._roster.excluded - held_out, f", {held_out} are held out" if held_out else ""
        everybody = self._clients if request.among is None else len(request.among)
        return RunError(
            message(
                "run",
                f"nobody to ask: {request.n} idle clients online at once were needed, at most "
                f"{self._most_idle.get(request.pool, 0)} of {everybody} were there between {request.since_s:.0f} s and "
                f"{now_s:.0f} s of virtual time (clients are online {share:.0%} of the time, "
                f"{self._roster.busy} were busy, {small} have too little memory or never got the model{strangers})",
                fix="ask fewer (protocol.cohort, protocol.concurrency), take more clients, or a longer runtime.stall_s",
            )
        )

    def _windows_are_over(self, now_s: float) -> bool:
        """Tell whether clients had their time and the run goes to its end with what it has; says so if it ends now."""
        if self._roster.availability.constant or self._on_nobody_left is None:
            return False
        if self._experiment.budget.time_s is not None:
            return True  # it is the budget's end that comes next
        if not self._records.version:
            return False
        self._on_nobody_left(
            f"the clients' windows were over at {now_s:.0f} s of virtual time, before the budget was used up"
        )
        return True
