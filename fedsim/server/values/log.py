"""What the tables of a run say of its values, for a replay of its schedule without training.

Values decide about a schedule in a few places only: an update that is not finite is refused, samplers and protocols
read losses, polled clients answer theirs. All of that stands in the table of visits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedsim.clock.visit import Visit
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
    """What a run has written about its visits.

    Attributes:
        trained: whether something was trained.
    """

    def __init__(self, run: Run) -> None:
        """Take a run's tables."""
        visits = run.visits
        self.trained = not run.info.timeline_only
        self._stopped = run.info.status in ("failed", "interrupted")
        names = ("client", "visit", "outcome", "committed_version", "loss", "loss_square")
        rows = zip(*(visits[name].tolist() for name in names), strict=True)
        self._visits = {(client, visit): LoggedVisit(*rest) for client, visit, *rest in rows}

    def of(self, visit: Visit) -> LoggedVisit:
        """Return what is written of a visit; one without a row has landed, and nothing was read of it."""
        return self._visits.get((visit.client, visit.visit), UNWRITTEN)

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
