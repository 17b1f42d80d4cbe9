"""TimelyFL: slow clients do less, so that they land in time (Zhang et al., CVPR-W 2023, arXiv 2304.06947)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import model_validator

from fedsim.clock.protocol import ServerProtocol, Steps, Verbs, cohort_problems, whole_visit_s
from fedsim.config.fields import AtLeastOne, Count, Positive
from fedsim.config.problem import Problem
from fedsim.errors import invalid


class Timely(ServerProtocol):
    """Rounds whose length is the k-th smallest estimated time of their cohort; everybody works that long.

    Each of `cohort` clients estimates its whole visit (`visit.estimate`: on its own link, without noise).
    The interval T is the `k`-th smallest of those totals. Then every client is given the most work with
    which its estimate is within T:

    * optimiser steps, at least one. On a device of constant speed these are floor((T - t_com) / t_step),
      as many as fit for a fast client (the paper's E = floor((T - t_com) / t_cmp), in steps where the paper
      counts epochs); `most` bounds them, in units of a whole visit.
    * with `partial: rank`, a slow client first trains fewer rank slots (at least one), which also shortens
      its transfers, and takes fewer steps only if that is not enough (the paper's partial model). The frozen
      model costs the same at every rank, so most of the time saved is that of the transfers. The slots that it
      does not train are not in its model meanwhile (in the paper they stay, frozen), and it has no vote on them:
      the server's stay as the others make them.

    The round ends when all have landed or failed, at T (1 + `grace`) at the latest: what a shared link or
    noise delays beyond that is late. Nobody is stale: rounds do not overlap.

    Attributes:
        cohort: clients asked in a round.
        k: which of their estimated times, in ascending order, is the length of the round.
        partial: what a slow client does less of: `steps`, or first `rank`.
        most: largest work of a fast client, in units of a whole visit; None: no bound.
        grace: share of the round's length that is waited beyond it.
    """

    kind: Literal["timely"] = "timely"
    cohort: Count = 10
    k: Count = 5
    partial: Literal["steps", "rank"] = "steps"
    most: AtLeastOne | None = None
    grace: Positive = 0.05

    @model_validator(mode="after")
    def _reachable(self) -> Timely:
        if self.k > self.cohort:
            raise invalid(f"`k` ({self.k}) cannot exceed `cohort` ({self.cohort})")
        return self

    @property
    def stale(self) -> bool:
        """Never: rounds do not overlap."""
        return False

    @property
    def clients_at_work(self) -> int:
        """The cohort."""
        return self.cohort

    @property
    def clients_at_once(self) -> int:
        """The cohort."""
        return self.cohort

    @property
    def updates_per_commit(self) -> int:
        """The cohort, if all of it lands."""
        return self.cohort

    def problems(self, clients: int) -> list[Problem]:
        """Return what is larger than the population."""
        return cohort_problems(self.cohort, clients)

    @property
    def cuts_ranks(self) -> bool:
        """Whether it asks for fewer rank slots than a client has."""
        return self.partial == "rank"

    def run(self, server: Verbs) -> Steps:
        """Run rounds for ever; the server's budget ends them."""
        round_ = 0
        while True:
            clients = yield from server.sample(self.cohort)
            interval_s = interval([whole_visit_s(server, client) for client in clients], self.k)
            shares = [self._share(server, client, interval_s) for client in clients]
            visits = [
                server.dispatch(client, round_, steps=steps, rank=rank)
                for client, (steps, rank) in zip(clients, shares, strict=True)
            ]
            deadline_s = interval_s * (1.0 + self.grace) if math.isfinite(interval_s) else None
            yield from server.wait(visits, want=len(visits), deadline_s=deadline_s)
            landed = server.collect(visits, want=len(visits))
            if landed:
                server.commit(landed)
            round_ += 1

    def _share(self, server: Verbs, client: int, interval_s: float) -> tuple[int | None, int | None]:
        """Return the steps and the rank with which a client lands in time; None: those of a whole visit."""
        if not math.isfinite(interval_s):
            return None, None

        def in_time(steps: int, rank: int | None) -> bool:
            return server.estimate(client, steps=steps, rank=rank).total_s <= interval_s

        whole = server.steps(client)
        rank = None
        if self.partial == "rank":
            rank = largest(lambda r: in_time(whole, r), 1, server.rank(client))
        bound = None if self.most is None else max(1, math.floor(self.most * whole))
        low, high = 1, bound
        if bound is None or bound >= whole:  # fewer steps have no short batches, and may take longer than all
            low, high = (whole, bound) if in_time(whole, rank) else (1, max(1, whole - 1))
        return largest(lambda s: in_time(s, rank), low, high), rank


def interval(totals_s: Sequence[float], k: int) -> float:
    """Return the k-th smallest total [s], or the largest finite one if there are fewer; inf if there are none.

    >>> interval([30.0, 10.0, 20.0], 2)
    20.0
    """
    finite = sorted(t for t in totals_s if math.isfinite(t))
    return finite[min(k, len(finite)) - 1] if finite else math.inf


def largest(holds: Callable[[int], bool], low: int, high: int | None) -> int:
    """Return the largest number from `low` to `high` (None: without end) for which `holds`; `low` if none.

    `holds` must not become true again once it is false, and must become false if there is no end.

    >>> largest(lambda n: n * n <= 50, 1, None)
    7
    """
    if high is None:
        high = low + 1
        while holds(high):
            low, high = high, 2 * high
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
