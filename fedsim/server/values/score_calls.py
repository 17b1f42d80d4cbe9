"""Scores of many vectors, cut into calls: each owner's pieces stay together, and a call has several owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedsim.executors import Executor, Ticket
from fedsim.jobs import ScoreJob, Sums
from fedsim.server.values.batches import batches


@dataclass(frozen=True)
class ScoreCalls:
    """Calls under way.

    Attributes:
        tickets: of the calls.
        counts: pieces of each owner, in the order of the calls.
    """

    tickets: tuple[Ticket, ...]
    counts: tuple[int, ...]

    @classmethod
    def begun(cls, executor: Executor, jobs: Sequence[Sequence[ScoreJob]], owners: int) -> ScoreCalls:
        """Queue the pieces of every owner, those of at most `owners` in a call."""
        calls = [[job for own in jobs[cut] for job in own] for cut in batches(len(jobs), owners)]
        return cls(tuple(executor.score(call) for call in calls), tuple(map(len, jobs)))

    def want(self) -> None:
        """Say that the results are needed now."""
        for ticket in self.tickets:
            ticket.want()

    def parts(self) -> list[list[Sums]]:
        """Wait, and return the sums of every owner's pieces."""
        found = iter([sums for ticket in self.tickets for sums in ticket.result()])
        return [[next(found) for _ in range(count)] for count in self.counts]
