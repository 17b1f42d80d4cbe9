"""From landed visits to the next version: values read, the rule asked, rows written, scores queued, and when it is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedsim.clock.plan import Plan
from fedsim.clock.protocol import Blend, Memory
from fedsim.clock.visit import Visit
from fedsim.instants import in_time
from fedsim.samplers.seen import Records
from fedsim.server.commit_time import CommitTime
from fedsim.server.ledger import Ledger
from fedsim.server.open_visits import OpenVisits
from fedsim.server.values.averaging import Average
from fedsim.server.values.commits import BlankCommit, Commit, LoggedCommit, RefusedCommits
from fedsim.server.values.goals import Target
from fedsim.server.values.private_parts import PrivateParts
from fedsim.server.values.trainer import Trainer
from fedsim.server.values.versions import Versions


def _nothing() -> None:
    """Do nothing."""


class VersionMaker:
    """Makes versions, one after the other.

    Attributes:
        versions, average: the model, and what is scored of it.
        ready_s: when the last version was, or will be, ready [virtual s]; 0 for version 0.
        memory: what a protocol's own blends remember; None: none was made yet, or it cannot be said.
        forgets: whether a blend was made whose memory cannot be said.
        target: the version that has reached `budget.target`, if one has.
        on_version: called when a version is made and its books are closed, before anything is sent of it.
    """

    def __init__(
        self,
        plan: Plan,
        versions: Versions,
        *,
        trainer: Trainer,
        ledger: Ledger,
        visits: OpenVisits,
        seen: Records,
        private_parts: PrivateParts,
    ) -> None:
        """Stand at version 0."""
        self.versions, self.average = versions, Average(versions.model, plan.experiment.evaluate.ema)
        self._experiment, self._trainer, self._ledger = plan.experiment, trainer, ledger
        self._visits, self._seen, self._private_parts = visits, seen, private_parts
        self.ready_s, self._refused = 0.0, RefusedCommits()
        self._made_at, self._scored = (0.0, 0.0), -1
        self._time = CommitTime(plan)
        self.target = Target(plan.experiment.budget.target, trainer.log)
        self.on_version: Callable[[], None] = _nothing
        self.memory: Memory | None = None
        self.forgets = False

    def commit(self, landed: Sequence[Visit], blend: Blend | None, now_s: float) -> bool:
        """Make the next version of landed visits; tells whether there is one, ready by the end of the budget."""
        ready_s = max(now_s, self.ready_s) + self._seconds(landed)
        time_s = self._experiment.budget.time_s
        if time_s is not None and ready_s > now_s and not in_time(ready_s, time_s):
            return False
        self._score_by_grid(ready_s)
        if self.target.version is not None:
            return False
        before, commit = self.versions.model.adapter, self._made(landed, blend)
        self._refused.note(commit.accepted, commit.refused)
        if not commit.accepted:
            return False
        self._seen.commit()
        self.ready_s, version = ready_s, self.versions.number
        jobs = [self._visits.dispatched[visit.order].job for visit in commit.accepted]
        for visit in commit.accepted:
            visit.commit(version)
            self._visits.settle(visit)
        model = self.versions.model
        self._trainer.renew(model)
        self._ledger.commit(version, ready_s, commit.accepted, commit.moves, before, model.adapter)
        self.average.follow(model, version)
        self._made_at = ready_s, float(self._ledger.up_bytes)
        if self._experiment.evaluate.at_commit(version):
            self.evaluate()
        self._private_parts.committed(jobs)
        self.on_version()
        return True

    def is_last(self) -> bool:
        """Tell whether no version follows this one: the budget has no more commits, or the target is reached."""
        return self.versions.number == self._experiment.budget.commits or self.target.version is not None

    def _seconds(self, landed: Sequence[Visit]) -> float:
        """Return how long the server works on a commit [s]."""
        dispatched = [self._visits.dispatched[visit.order] for visit in landed]
        asked, sent = [one.invitation for one in dispatched], [one.offer.up for one in dispatched]
        ranks, depths = [one.rank for one in asked], [one.depth for one in asked]
        return self._time.seconds([visit.work.up_bytes for visit in landed], ranks, depths, sent)

    def _made(self, landed: Sequence[Visit], blend: Blend | None) -> Commit:
        """Make the next version of what has landed; returns what was taken of it."""
        landed = sorted(landed, key=lambda v: (v.client, v.visit))
        if blend is not None:
            self.memory, self.forgets = blend.memory, blend.memory is None
        results, dispatched = self._trainer.results(landed), self._visits.dispatched
        blank = (landed, dispatched, self.versions)
        commit: Commit
        if results is not None:
            commit = Commit(results, dispatched, self.versions)
        elif self._trainer.log is not None:
            self._trainer.log.ask(landed)
            commit = LoggedCommit(self._trainer.log, *blank)
        else:
            commit = BlankCommit(*blank)
        try:
            if isinstance(commit, BlankCommit):
                if not self.versions.rule.traits.history:
                    commit.skim()
                self.versions.make_blank(commit)
            else:
                self.versions.make(commit, blend)
        finally:
            for visit, reason in commit.refused:
                self._ledger.refuse(visit, reason)
                self._visits.refuse(visit, "rejected")
            for report in commit.reports:
                self._seen.report(report.client, report.loss, report.square)
        return commit

    # scores -------------------------------------------------------------------------------------

    def _score_by_grid(self, now_s: float) -> None:
        """Have this version scored, before the next one is made, if it was the server's at a point of a grid."""
        if self._experiment.evaluate.in_between(self._made_at, (now_s, float(self._ledger.up_bytes))):
            self.evaluate()

    def evaluate(self) -> None:
        """Queue the scores of this version, once: of the shared model, or of every client's own where there are any."""
        version = self.versions.number
        if self._scored == version:
            return
        self._scored = version
        models = self.versions.client_models()
        if self._trainer.executor is not None:
            self._ledger.expect_score(version)
        self._trainer.evaluations.queue(version, self.ready_s, self.average.model, models)
        self._look_at_the_target(version)

    def _look_at_the_target(self, version: int) -> None:
        """Wait for the scores of a version if they may end the run; in a replay the run's tables tell."""
        trainer = self._trainer
        if self.target.wanted is None:
            return
        if trainer.log is not None:
            self.target.note_logged(version)
        elif trainer.executor is not None:
            trainer.evaluations.hand_over(all_of_them=True)
            self.target.note(version, trainer.evaluations.newest)
