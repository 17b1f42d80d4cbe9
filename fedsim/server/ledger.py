"""The books of a run: one row a visit, a commit, a score, as they become final."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Adapter
from fedsim.adapters.sums import Moves, length
from fedsim.callbacks.telling import OnEvent
from fedsim.clock.visit import Visit
from fedsim.jobs import Task
from fedsim.records.info import Refusal, Totals
from fedsim.records.rows import CommitRow, ScoreRow, VisitRow, plain
from fedsim.records.writer import Writer


def quiet(_kind: str, _facts: dict[str, Any]) -> None:
    """Tell nobody."""


NAMED = 100
"""Refused updates that are named in `run.json`; all are counted."""


class Ledger:
    """Writes the rows of a run and keeps its totals.

    Attributes:
        writer: takes the rows.
    """

    def __init__(self, writer: Writer, task: Task, on_event: OnEvent) -> None:
        self.writer, self._task, self._on_event = writer, task, on_event
        self.up_bytes = self.down_bytes = 0
        self.joules = self.gross_joules = 0.0
        self.outcomes: dict[str, int] = {}
        self.refused = 0
        self.visits = 0
        self._serialized_up_bytes = self._serialized_down_bytes = 0
        self._spent: dict[str, float] = {"up_bytes": 0, "down_bytes": 0, "joules": 0.0}
        self._spent_by: dict[int, Mapping[str, float]] = {}

    def count(self, visit: Visit) -> None:
        """Add what an ended visit has used to the totals."""
        usage = visit.usage
        self.up_bytes += usage.up_bytes
        self.down_bytes += usage.down_bytes
        self.joules += usage.joules
        self.gross_joules += usage.gross_joules

    def refuse(self, visit: Visit, reason: str) -> None:
        """Note that an update arrived and was not taken, and why; the first `NAMED` are named in `run.json`."""
        self.refused += 1
        if self.refused <= NAMED:
            info = self.writer.info
            refusals = (*info.refused, Refusal(visit.client, visit.visit, reason))
            self.writer.note(replace(info, refused=refusals))
        self._on_event("refused", {"client": visit.client, "visit": visit.visit, "reason": reason})

    def settle(self, visit: Visit, rank: int) -> None:
        """Write a visit whose fate is final, and the rank it trained at."""
        row = self._row(visit, rank)
        self.outcomes[row.outcome] = self.outcomes.get(row.outcome, 0) + 1
        self.visits += 1
        self._serialized_up_bytes += row.serialized_up_bytes
        self._serialized_down_bytes += row.serialized_down_bytes
        self.writer.visit(row)

    def _row(self, visit: Visit, rank: int) -> VisitRow:
        usage, work = visit.usage, visit.work
        began_upload = not math.isnan(visit.trained_s)
        return VisitRow(
            order=visit.order,
            client=visit.client,
            visit=visit.visit,
            version=visit.version,
            round=visit.round,
            dispatched_s=visit.dispatched_s,
            downloaded_s=visit.downloaded_s,
            trained_s=visit.trained_s,
            landed_s=visit.landed_s,
            ended_s=visit.ended_s,
            outcome=visit.outcome,
            away=visit.away,
            paused_s=visit.paused_s,
            work_share=visit.work_share,
            battery=visit.battery,
            staleness=visit.staleness,
            down_bytes=usage.down_bytes,
            up_bytes=usage.up_bytes,
            serialized_down_bytes=work.serialized_down_bytes,
            serialized_up_bytes=work.serialized_up_bytes if began_upload else 0,
            flops=usage.flops,
            joules=usage.joules,
            gross_joules=usage.gross_joules,
            rank=rank,
            memory_plan=work.memory_plan,
            computed=visit.computed,
            examples=self._task.examples(visit.client),
            tokens=round(work.tokens * visit.work_share),
            loss=visit.loss,
            loss_square=visit.loss_square,
            committed_version=visit.committed_version,
        )

    def totals(self, *, clients: int, commits: int, handed_over: int) -> Totals:
        """Return the totals of the run; those that the ledger does not count are handed in."""
        return Totals(
            clients=clients,
            visits=self.visits,
            commits=commits,
            outcomes=dict(sorted(self.outcomes.items())),
            up_bytes=self.up_bytes,
            down_bytes=self.down_bytes,
            serialized_up_bytes=self._serialized_up_bytes,
            serialized_down_bytes=self._serialized_down_bytes,
            joules=self.joules,
            gross_joules=self.gross_joules,
            refused=self.refused,
            handed_over=handed_over,
        )

    def commit(
        self,
        version: int,
        time_s: float,
        taken: Sequence[Visit],
        moves: Moves | None,
        before: Adapter,
        after: Adapter,
    ) -> None:
        """Write a server step; `moves` is None if nothing was trained."""
        staleness = [v.staleness for v in taken]
        norm, cosine = math.nan, math.nan
        if moves is not None:
            norm = length(after.vector.astype(np.float64) - before.vector)
            cosine = moves.mean_cosine()
        row = CommitRow(
            version=version,
            time_s=float(time_s),
            updates=len(taken),
            mean_staleness=float(np.mean(staleness)),
            max_staleness=int(max(staleness)),
            up_bytes=sum(v.usage.up_bytes for v in taken),
            total_up_bytes=self.up_bytes,
            total_down_bytes=self.down_bytes,
            total_joules=self.joules,
            update_norm=norm,
            mean_cosine=cosine,
        )
        self._spent = {"up_bytes": self.up_bytes, "down_bytes": self.down_bytes, "joules": self.joules}
        self.writer.commit(row)
        self.writer.wall({"version": version})
        self._on_event("commit", plain(row))

    def expect_score(self, version: int) -> None:
        """Remember what was spent by the last version, whose scores come later."""
        self._spent_by[version] = self._spent

    def score(self, version: int, time_s: float, split: str, metrics: dict[str, float]) -> None:
        """Write the metrics of one split at one version."""
        for metric, value in metrics.items():
            self.writer.score(ScoreRow(version, time_s, split, metric, value))
        for older in [known for known in self._spent_by if known < version]:
            del self._spent_by[older]
        facts = {"version": version, "time_s": time_s, "split": split, "metrics": metrics}
        self._on_event("score", {**facts, **self._spent_by.get(version, {})})
