"""Synchronous rounds with over-selection and a deadline (Bonawitz et al., MLSys 2019, section 2)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import model_validator

from fedsim.clock.protocol import ServerProtocol, Steps, Verbs, cohort_problems
from fedsim.config.fields import AtLeastOne, Count, Positive
from fedsim.config.problem import Problem
from fedsim.errors import invalid


class Synchronous(ServerProtocol):
    """Ask a cohort, wait for it, commit, repeat.

    A round asks ceil(cohort * over_select) clients and ends when `cohort` of them have landed,
    when all of them have ended, or at the deadline, whichever is first. An update that lands at
    the deadline counts (`fedsim.instants.in_time`). A deadline that no client can meet is refused. Fewer than `min_reports` landed: the round is dropped, its updates are
    `rejected`. Devices still at work when the round ends are told to stop, or go on to their end
    and are busy until then (`late: stop | finish`); both are charged. The word to stop reaches a device in the
    same instant: no message is modelled.

    Attributes:
        cohort: landed updates that end a round.
        deadline_s: virtual time [s] after which a round ends; None: it waits for all.
        over_select: clients asked, as a multiple of `cohort`.
        min_reports: landed updates without which a round is dropped.
        late: what devices still at work do when the round ends: `stop`, or `finish` in vain.
    """

    kind: Literal["synchronous"] = "synchronous"
    cohort: Count = 10
    deadline_s: Positive | None = None
    over_select: AtLeastOne = 1.0
    min_reports: Count = 1
    late: Literal["stop", "finish"] = "stop"

    @model_validator(mode="after")
    def _reachable(self) -> Synchronous:
        if self.min_reports > self.cohort:
            raise invalid(f"`min_reports` ({self.min_reports}) cannot exceed `cohort` ({self.cohort})")
        return self

    @property
    def stale(self) -> bool:
        """Never: rounds do not overlap."""
        return False

    @property
    def round_deadline_s(self) -> float | None:
        """The deadline of every round."""
        return self.deadline_s

    @property
    def clients_at_work(self) -> int:
        """Those of a round."""
        return self.clients_per_round

    @property
    def whole_visits(self) -> bool:
        """Always."""
        return True

    @property
    def clients_at_once(self) -> int:
        """Those of a round."""
        return self.clients_per_round

    @property
    def least_updates(self) -> int:
        """`min_reports`."""
        return self.min_reports

    @property
    def updates_per_commit(self) -> int:
        """The cohort."""
        return self.cohort

    def problems(self, clients: int) -> list[Problem]:
        """Return what is larger than the population."""
        wanted = self.clients_per_round
        if self.cohort > clients or wanted <= clients:
            return cohort_problems(self.cohort, clients, wanted)
        fix = f"ask fewer, or set population.clients to at least {wanted}"
        what = f"asks {wanted} clients for a cohort of {self.cohort}, and there are {clients}"
        return [Problem(("protocol", "over_select"), what, fix, self.over_select)]

    @property
    def clients_per_round(self) -> int:
        """Clients that a round asks: more than the cohort by `over_select`."""
        return math.ceil(self.cohort * self.over_select - 1e-9)

    def run(self, server: Verbs) -> Steps:
        """Run rounds for ever; the server's budget ends them."""
        round_ = 0
        while True:
            clients = yield from server.sample(self.clients_per_round)
            visits = [server.dispatch(client, round_) for client in clients]
            yield from server.wait(visits, want=self.cohort, deadline_s=self.deadline_s)
            landed = server.collect(visits, want=self.cohort, late=self.late)
            if len(landed) >= self.min_reports:
                server.commit(landed)
            else:
                server.reject(landed)
            round_ += 1
