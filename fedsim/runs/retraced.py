"""The schedule of a run once more, from its settings: without training, with the values that its tables hold.

A replay goes as far as the run went: to the end of its budget, or to the last row that it had written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedsim.clock.plan import Plan
from fedsim.clock.plan_tables import clients_table
from fedsim.records import tables
from fedsim.records.info import UNFINISHED
from fedsim.records.rows import CommitRow, VisitRow
from fedsim.records.run import Run
from fedsim.records.stored.spool import Spool
from fedsim.records.verify.compared import Retraced
from fedsim.records.writer import Writer
from fedsim.runs import course
from fedsim.runs.finish import ended
from fedsim.server.values.log import Log, LogEndError

REFUSED = ("rejected", "surplus", "stale")
"""Outcomes of visits that landed and were not taken."""
INSTANTS = (("visits", "ended_s"), ("commits", "time_s"), ("scores", "time_s"))
"""Columns whose latest instant is how far a run has come."""


class _Rows(Writer):
    """Rows in the order in which they are written.

    Attributes:
        visits, commits: the rows.
        computed, refused: visits that were computed; that landed and were not taken.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(None, plan.experiment)
        self.visits, self.commits = Spool("visits"), Spool("commits")
        self.computed = self.refused = 0

    def visit(self, row: VisitRow) -> None:
        """Keep a visit that has ended."""
        self.visits.add(row)
        self.computed += row.computed
        self.refused += row.outcome in REFUSED and row.landed_s >= 0

    def commit(self, row: CommitRow) -> None:
        """Keep a server step."""
        self.commits.add(row)


def retrace(plan: Plan, run: Run) -> Retraced:
    """Return the schedule of a plan as far as a run of it has come.

    Args:
        plan: of the run's settings.
        run: its tables: losses and refusals are taken from there, and how far it came.

    Raises:
        FedsimError: the schedule cannot be made.
    """
    rows = _Rows(plan)
    follower = _Follower(plan, run, rows)
    ended_s = follower.follow()
    server = follower.server
    columns = {
        "clients": tables.joined("clients", [tables.fit("clients", clients_table(plan))]),
        "visits": rows.visits.columns(),
        "commits": rows.commits.columns(),
    }
    info = course.begun(rows.info, _as_asked(plan, run), timeline_only=run.info.timeline_only)
    return Retraced(
        columns,
        rows.visits.written("order"),
        server.trainer.evaluations.queued,
        server.private_parts.seen.tolist(),
        server.private_parts.unseen,
        ended(info, server, None, ended_s),
        follower.whole,
    )


def _as_asked(plan: Plan, run: Run) -> Plan:
    """Return the plan with the keys as filled in that were `auto` in the run: its stored settings have their values."""
    told = run.info.resolved.followed if run.info.resolved is not None else ()
    blocks = {"aggregator": plan.experiment.aggregator, "numerics": plan.experiment.numerics}
    keys = {f"{name}.{field}" for name, block in blocks.items() for field, _ in block}
    return replace(plan, filled=tuple(followed.key for followed in told if followed.key in keys))


@dataclass
class _Follower:
    """Steps a schedule until it has what a run has.

    Attributes:
        whole: whether the budget ended it.
    """

    plan: Plan
    run: Run
    rows: _Rows
    whole: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        run, info = self.run, self.run.info
        visits = run.frame("visits", "outcome", "landed_s", "computed", "ended_s")
        refused = visits["outcome"].isin(REFUSED) & visits["landed_s"].notna()
        self._unfinished = info.status in UNFINISHED
        self._visits, self._commits = len(visits), run.count("commits")
        self._computed = int(visits["computed"].sum())
        self._ended, self._refused = int((visits["outcome"] != "in_flight").sum()), int(refused.sum())
        last = [run.columns(table)[name] for table, name in INSTANTS]
        self._last_s = max([info.end_time_s, *(float(times_s.max()) for times_s in last if len(times_s))])
        log = Log(self.run)
        self.server = course.world(self.plan, None, self.rows, self._tell, log=log)

    def follow(self) -> float:
        """Go as far as the run; returns the virtual time then [s]."""
        self.server.evaluate()
        try:
            if self.run.info.status == "done":
                ended_s = course.run_to_the_end(self.server, self._tell)
                self.whole = True
                course.evaluate_the_end(self.server)
                return ended_s
            with course.no_garbage_pauses():
                self._step_on()
        except LogEndError:
            pass
        if not self._unfinished:
            self.server.close(self._last_s)
        return self._last_s

    def _step_on(self) -> None:
        """Step until all that the run has written is there, and no further."""
        env, horizon_s = self.server.env, self.plan.experiment.budget.time_s or math.inf
        while not self.server.over and env.peek() < horizon_s:
            before = env.peek() < self._last_s and not self._unfinished
            if not (before or self._is_short()) or self._is_longer():
                return
            env.step()

    def _is_short(self) -> bool:
        """Tell whether the run has something that this schedule does not have yet."""
        rows, visits = self.rows, self.server.visits
        if rows.commits.rows < self._commits:
            return True
        if self._unfinished:
            return rows.visits.rows < self._visits
        if visits.computed + rows.computed < self._computed:
            return True
        return visits.begun < self._visits or visits.ended < self._ended or rows.refused < self._refused

    def _is_longer(self) -> bool:
        """Tell whether this schedule has more visits than the run can have begun."""
        unwritten = len(self.plan.population) if self._unfinished else 0
        return self.server.visits.begun > self._visits + unwritten

    def _tell(self, kind: str, facts: Mapping[str, object]) -> None:
        time_s = facts.get("time_s")
        late = kind == "time" and isinstance(time_s, float) and time_s > self._last_s
        if late or self._is_longer():
            raise LogEndError("the run did not go on so long")
