"""The end of a round: enough have landed, or all have ended; who counts and who came in vain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import simpy

from fedsim.clock.visit import Visit


def enough_landed(env: simpy.Environment, visits: Sequence[Visit], want: int) -> simpy.Event:
    """Return the event that `want` of the visits have landed, or that the server knows how all of them ended.

    It may be asked of the same visits again, and of visits that have ended: those count at once.
    """
    return _Count(env, visits, want).reached


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
