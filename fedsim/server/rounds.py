"""The end of a round: enough have landed, or all have ended; who counts and who came in vain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import simpy

from fedsim.clock.visit import Visit
from fedsim.instants import Closing, First, Instant


def enough_landed(env: simpy.Environment, visits: Sequence[Visit], want: int) -> simpy.Event:
    """Return the event that `want` of the visits have landed, or that the server knows how all of them ended.

    It may be asked of the same visits again, and of visits that have ended: those count at once.
    """
    return _Count(env, visits, want).reached


def end_of_round(
    env: simpy.Environment, visits: Sequence[Visit], want: int, deadline_s: float | None
) -> simpy.Event:
    """Return the event that `enough_landed`, or that so many seconds are over; what lands in that instant has landed."""
    enough = enough_landed(env, visits, want)
    if deadline_s is None:
        return enough
    return First(env, (enough, Closing(env, deadline_s, Instant.COMMIT, lambda: next_landing_s(visits))))


def next_landing_s(visits: Iterable[Visit]) -> float:
    """Return when the first of some visits lands, of those whose update is on its way [virtual s]; inf: none is."""
    return min((visit.lands_s for visit in visits), default=math.inf)


class _Count:
    def __init__(self, env: simpy.Environment, visits: Sequence[Visit], want: int) -> None:
        self.reached = env.event()
        self._want, self._landed, self._under_way = want, 0, 0
        for visit in visits:
            if visit.process.processed:
                self._landed += visit.outcome == "landed"
            else:
                self._under_way += 1
                visit.process.callbacks.append(partial(self._on_end, visit))
        self._look()

    def _on_end(self, visit: Visit, _event: simpy.Event) -> None:
        self._under_way -= 1
        self._landed += visit.outcome == "landed"
        self._look()

    def _look(self) -> None:
        if not self.reached.triggered and (self._landed >= self._want or not self._under_way):
            self.reached.succeed()


def by_landing(visits: Sequence[Visit]) -> list[Visit]:
    """Return the visits that have landed, in the order of landing, then of dispatch."""
    return sorted((v for v in visits if v.outcome == "landed"), key=lambda v: (v.landed_s, v.order))
