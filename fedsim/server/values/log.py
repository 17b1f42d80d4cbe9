"""What the tables of a run say of its values, for a replay of its schedule without training.

Values decide about a schedule in a few places only: an update that is not finite is refused, samplers and protocols
read losses, polled clients answer theirs. All of that stands in the table of visits.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.clock.visit import Visit
from fedsim.config.target import TargetConfig
from fedsim.records.run import Run


class LogEndError(Exception):
    """The run did not come further than this; SimPy rebuilds it from its one argument."""


@dataclass(frozen=True, slots=True)
class LoggedVisit:
    """How a visit ended, the version that its update is in, and what was read of it; NaN: nothing was."""

    outcome: str = "landed"
    committed_version: int = -1
    loss: float = math.nan
    square: float = math.nan


UNWRITTEN = LoggedVisit()
"""A visit without a row: the run was killed before it was settled."""


class Log:
    """What a run has written about its visits: some columns, by client and visit.

    Attributes:
        trained: whether something was trained.
    """

    def __init__(self, run: Run) -> None:
        """Take a run's tables."""
        self.trained = not run.info.timeline_only
        self._stopped = run.info.status in ("failed", "interrupted")
        visits = run.columns("visits")
        client, number = visits["client"], visits["visit"]
        order = np.lexsort([number, client])
        self._client: memoryview[int] = client[order].data
        self._number: memoryview[int] = number[order].data
        self._version: memoryview[int] = visits["committed_version"][order].data
        self._losses: list[Sequence[float]] = [
            np.asarray(visits[n][order], np.float64).data for n in ("loss", "loss_square")
        ]
        self._outcome = visits["outcome"][order]
        self._scores = run.columns("scores")

    def of(self, visit: Visit) -> LoggedVisit:
        """Return what is written of a visit; one without a row has landed, and nothing was read of it."""
        begin = bisect_left(self._client, visit.client)
        end = bisect_right(self._client, visit.client, begin)
        at = bisect_right(self._number, visit.visit, begin, end) - 1  # of two, the last one
        if at < begin or self._number[at] != visit.visit:
            return UNWRITTEN
        loss, square = (column[at] for column in self._losses)
        return LoggedVisit(self._outcome[at], self._version[at], loss, square)

    def first_reaching(self, target: TargetConfig) -> tuple[int, float] | None:
        """Return the first version whose score reached a target, and the score; None: none did."""
        scores = self._scores
        rows = (scores["split"] == target.split) & (scores["metric"] == target.metric)
        reached = [
            (int(version), float(value))
            for version, value in zip(scores["version"][rows], scores["value"][rows], strict=True)
            if target.reached(value)
        ]
        return min(reached, default=None)

    def ask(self, landed: Sequence[Visit]) -> None:
        """Let a commit of these visits be made, or mark them as the run left them when it stopped there.

        Raises:
            LogEndError: the run stopped in it, for an error or because somebody stopped it.
        """
        logged = [self.of(visit) for visit in landed]
        left = [
            v for v in logged if v.outcome == "failed" or (v.outcome == "landed" and v.committed_version < 0)
        ]
        if self._stopped and left:
            for visit, known in zip(landed, logged, strict=True):
                visit.report_loss(known.loss, known.square)
                if known.outcome == "failed":
                    visit.fail()
            raise LogEndError("the run stopped in this commit")
