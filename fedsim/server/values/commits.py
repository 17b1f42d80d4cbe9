"""One commit: updates read one by one as workers finish, checked, decoded, and handed to the rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.adapters.sums import Moves
from fedsim.aggregators._base import Contribution
from fedsim.aggregators._depth import refuse_moved_below
from fedsim.clock.visit import Visit
from fedsim.errors import RunError, message
from fedsim.jobs import Update
from fedsim.server.values.dispatched import Dispatched
from fedsim.server.values.log import Log
from fedsim.server.values.versions import Versions

REFUSED_COMMITS, REFUSED_UPDATES = 5, 100
"""Commits in a row, of so many updates at least, that took no update at all: these end a run."""


@dataclass(frozen=True)
class Report:
    """The losses that came with an update that was taken."""

    client: int
    loss: float
    square: float


class Commit:
    """The contributions of a commit; iterated once, by the rule, so that no update is held longer than it takes.

    Attributes:
        accepted: visits whose update the rule has got, in the order of client and visit.
        refused: visits whose update it has not, with the reason in words.
        reports: losses of the accepted ones.
        moves: sums of the moves of the accepted ones; None where nobody has really moved.
    """

    def __init__(
        self,
        results: Iterable[tuple[Visit, Update]],
        dispatched: Mapping[int, Dispatched],
        versions: Versions,
    ) -> None:
        """Start with nothing read.

        Args:
            results: visits and their updates, in the order of client and visit.
            dispatched: what each visit left with, by its order.
            versions: decodes what comes in.
        """
        self._results, self._dispatched, self._versions = results, dispatched, versions
        self.accepted: list[Visit] = []
        self.refused: list[tuple[Visit, str]] = []
        self.reports: list[Report] = []
        self.moves: Moves | None = None

    def __iter__(self) -> Iterator[Contribution]:
        """Yield what the rule sees. Faulty updates are refused: they are in no sum."""
        layout = self._versions.model.adapter.layout
        size = layout.size
        self.moves = moves = Moves(size)
        for visit, update in self._results:
            visit.report_loss(update.loss, update.square)
            dispatched = self._dispatched[visit.order]
            fault = update.fault(size)
            if fault is None:
                end = np.require(
                    update.end, requirements="O"
                )  # out of the executor's store, if it lies there
                refuse_moved_below(layout, dispatched.job, end)
                end = self._versions.received(visit, dispatched, end)
                fault = None if moves.add(dispatched.shared_start, end) else "the move is not finite"
            if fault is not None:
                self.refused.append((visit, fault))
                continue
            self.accepted.append(visit)
            self.reports.append(Report(visit.client, update.loss, update.square))
            yield self._versions.contribution(visit, dispatched, end, (update.examples, update.steps))


class BlankCommit(Commit):
    """The contributions of a timeline-only run: nobody has moved, the rest is as it would be."""

    def __init__(
        self, landed: Sequence[Visit], dispatched: Mapping[int, Dispatched], versions: Versions
    ) -> None:
        """Take the visits."""
        super().__init__((), dispatched, versions)
        self._landed = landed

    def __iter__(self) -> Iterator[Contribution]:
        """Yield what the rule sees."""
        for visit in self._landed:
            if not self._takes(visit):
                continue
            dispatched = self._dispatched[visit.order]
            self.accepted.append(visit)
            yield self._versions.contribution(visit, dispatched, dispatched.shared_start)

    def skim(self) -> None:
        """Have the rule get them all, where it does nothing with them."""
        self.accepted += [visit for visit in self._landed if self._takes(visit)]

    def _takes(self, visit: Visit) -> bool:
        """Tell whether the rule gets this visit's update."""
        return True


class LoggedCommit(BlankCommit):
    """The contributions of a replay without training: what they were worth stands in the run's tables."""

    def __init__(
        self,
        log: Log,
        landed: Sequence[Visit],
        dispatched: Mapping[int, Dispatched],
        versions: Versions,
    ) -> None:
        """Take what the run has written, and the rest as `BlankCommit` does."""
        super().__init__(landed, dispatched, versions)
        self._log = log

    def _takes(self, visit: Visit) -> bool:
        logged = self._log.of(visit)
        visit.report_loss(logged.loss, logged.square)
        if logged.outcome == "rejected":
            self.refused.append((visit, "the run refused it"))
            return False
        if self._log.trained:
            self.reports.append(Report(visit.client, logged.loss, logged.square))
        return True


class RefusedCommits:
    """Counts commits in a row that took no update: training that never gives finite numbers must not go on for ever."""

    def __init__(self) -> None:
        """Begin with none."""
        self._commits = self._updates = 0

    def note(self, accepted: Sequence[Visit], refused: Sequence[tuple[Visit, str]]) -> None:
        """Note a commit: what it took, and what it did not, with the reasons.

        Raises:
            RunError: too many in a row took nothing; says why.
        """
        if accepted or not refused:
            self._commits = self._updates = 0
            return
        self._commits += 1
        self._updates += len(refused)
        if self._commits >= REFUSED_COMMITS and self._updates >= REFUSED_UPDATES:
            visit, reason = refused[-1]
            what = (
                f"the last {self._commits} commits took no update: all {self._updates} were refused, "
                f"the latest of client {visit.client}: {reason}"
            )
            fix = "lower local.lr, or check the weights of the model that training starts from"
            raise RunError(message("run", what, fix=fix))
