"""The server's verbs: sample, dispatch, wait, collect, commit. The two times meet here.

SimPy decides when; the executor computes what. A dispatch leaves a pending job beside the visit;
`commit` is the only verb that reads values. Nothing here reads a wall clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, Literal

import numpy as np
import simpy
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import ServerModel
from fedsim.clock.estimate import Estimate
from fedsim.clock.plan import Plan
from fedsim.clock.protocol import Blend, Steps
from fedsim.clock.visit import Visit
from fedsim.clock.visit_order import DeviceWorld
from fedsim.cost.shape import backbone_bytes
from fedsim.instants import Instant
from fedsim.network.base import Network
from fedsim.samplers._base import PollingSampler
from fedsim.server.clients import ClientBook
from fedsim.server.idle_clients import IdleClients
from fedsim.server.ledger import Ledger
from fedsim.server.offers import Offers
from fedsim.server.open_visits import OpenVisits
from fedsim.server.polling import Poll, polled
from fedsim.server.rounds import by_landing, end_of_round, next_landing_s
from fedsim.server.values.averaging import Average
from fedsim.server.values.commits import BlankCommit, Commit, LoggedCommit, RefusedCommits
from fedsim.server.values.private_parts import PrivateParts
from fedsim.server.values.trainer import Trainer
from fedsim.server.values.versions import Dispatched, Versions

OnDispatch = Callable[[Visit, Dispatched], None]
"""Told of each visit that trains, at its dispatch, with its job, vectors as they are."""


class Server(IdleClients):
    """Mechanism without policy; a protocol is a generator over these verbs (`fedsim.clock.protocol.Verbs`).

    Attributes:
        last_commit_s: when the last version was made [virtual s].
        visits: those that are under way, or whose fate is not final.
    """

    def __init__(
        self,
        env: simpy.Environment,
        plan: Plan,
        *,
        network: Network,
        model: ServerModel,
        trainer: Trainer,
        ledger: Ledger,
        private_parts: PrivateParts,
        on_dispatch: OnDispatch | None = None,
    ) -> None:
        """Stand at time 0 with nobody asked."""
        super().__init__(env, plan, private_parts.unseen, self._expected_s)
        experiment = plan.experiment
        self.experiment, self._on_dispatch = experiment, on_dispatch
        self.trainer, self.ledger, self.private_parts = trainer, ledger, private_parts
        self.versions = Versions(plan, model, private_parts)
        self.average = Average(model, experiment.evaluate.ema)
        self.last_commit_s, self._refused = 0.0, RefusedCommits()
        self._made_at, self._scored = (0.0, 0.0), -1
        first_visit = experiment.network.backbone == "first_visit"
        self._book = ClientBook(
            self.clients,
            backbone_bytes=backbone_bytes(plan.shape) if first_visit else 0,
            resumes=experiment.network.interrupted == "resume",
        )
        self._offers = Offers(plan, self.versions, self._book)
        detect_after_s, tail = experiment.network.detect_after_s, experiment.energy.tail
        self.visits = OpenVisits(
            DeviceWorld(
                env, network, self.machines, self.attendance, tail=tail, detect_after_s=detect_after_s
            ),
            plan,
            book=self._book,
            ledger=ledger,
            trainer=trainer,
            seen=self.seen,
            roster=self.roster,
            desk=self.desk,
            alarm=self._alarm,
            one_at_a_time=private_parts.waits,
            on_exhausted=self.end,
        )

    # the model -----------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Commits so far."""
        return self.versions.number

    @property
    def model(self) -> ServerModel:
        """The model of this version."""
        return self.versions.model

    @property
    def state(self) -> Any:
        """What the rule remembers."""
        return self.versions.state

    @property
    def vector(self) -> Vector:
        """The shared adapter of this version, (size,) float32."""
        return self.versions.model.adapter.vector

    @property
    def never_equipped(self) -> int:
        """Clients that are not asked again, because the frozen model never got through to them."""
        return len(self._book.never_equipped)

    # whom ---------------------------------------------------------------------------------------

    def sample(
        self, n: int, among: NDArray[np.int64] | None = None
    ) -> Generator[simpy.Event, Any, list[int]]:
        """Wait until n clients are idle and online, and choose them.

        Requests are served in the order in which they were made, those for one pool apart from the others.

        Args:
            n: how many.
            among: the only clients that may be chosen, ascending; None: all.
        """
        _check_count(n, self.clients if among is None else len(among))
        clients = yield from self.grant(n, among)
        sampler = self.plan.parts.sampler
        if isinstance(sampler, PollingSampler):
            clients = yield from polled(self, sampler, clients, n, among)
        return clients

    # visits -------------------------------------------------------------------------------------

    def dispatch(
        self, client: int, round_: int = -1, *, steps: int | None = None, rank: int | None = None
    ) -> Visit:
        """Send the model of this version to a client; returns its visit, under way.

        Args:
            client: who.
            round_: the protocol's own count of rounds, for the table.
            steps: optimiser steps, if fewer than a whole visit has (partial work; charged accordingly).
            rank: slots of each factor, if fewer than the client's.
        """
        if not 0 <= client < self.clients:
            raise ValueError(f"there is no client {client} to dispatch to, only 0 to {self.clients - 1}")
        if self.visits.is_at_work(client):
            raise ValueError(
                f"client {client} is at work on another visit: dispatch to those that `sample` returns"
            )
        invitation = self._offers.invitation(client, rank)
        offer = self._offers.offer(invitation)
        dispatched = self.versions.dispatched(invitation, offer, steps)
        work, on_close = self._offers.work(invitation, offer, steps), self.experiment.population.on_close
        visit = self.visits.begin(dispatched, work, self.version, round_, on_close)
        self._book.polled.pop(client, None)
        self.seen.ask(client)
        self.trainer.expect(visit, dispatched.job, common=dispatched.common)
        if self._on_dispatch is not None:
            self._on_dispatch(visit, dispatched)
        return visit

    def poll(self, client: int) -> Poll:
        """Ask a client for the loss of this version's model on its training data (see `fedsim.server.polling`).

        Once it has answered it stays busy, so that nobody else asks it before the choice: `free` it or dispatch.
        """
        invitation = self._offers.invitation(client)
        offer = self._offers.offer(invitation)
        work = self._offers.poll_work(invitation, offer)
        visit = self.visits.begin(self.versions.dispatched(invitation, offer), work, self.version)
        visit.ignore("polled")
        own_scale = invitation.scale != self.versions.scale
        vector = self.model.adapter.cut(invitation.rank) if own_scale else visit.start
        return Poll(visit, vector, self.versions.base)

    def losses(self, polls: Sequence[Poll]) -> list[float]:
        """Return what polled clients answer: the mean loss on each one's training data."""
        log = self.trainer.log
        if log is not None:
            losses = [log.of(poll.visit).loss for poll in polls]
        else:
            losses = self.trainer.evaluations.losses([(p.visit.client, p.vector, p.base) for p in polls])
        for poll, loss in zip(polls, losses, strict=True):
            poll.visit.report_loss(loss)
        return losses

    def close_polls(self, polls: Sequence[Poll]) -> None:
        """Write the visits of polls that were answered: what they answered is known by now."""
        for poll in polls:
            self.visits.settle(poll.visit)

    def estimate(self, client: int, *, steps: int | None = None, rank: int | None = None) -> Estimate:
        """Return how a visit would go if it began now, alone on its own link, on a cool device."""
        return self._offers.estimate(client, self.now_s, steps=steps, rank=rank)

    def _expected_s(self, client: int) -> float:
        """Return how long a whole visit of a client should take [s]; inf if its memory does not hold the training."""
        expected = self.estimate(client)
        return expected.total_s if expected.fits else math.inf

    # rounds -------------------------------------------------------------------------------------

    def wait(self, visits: Sequence[Visit], *, want: int, deadline_s: float | None = None) -> Steps:
        """Wait until `want` visits have landed, all have ended, or the deadline; then for the
        commits' place in that instant, so that whatever lands at the same time counts.
        """
        yield end_of_round(self.env, visits, want, deadline_s)
        yield self.turn(Instant.COMMIT)

    def collect(
        self, visits: Sequence[Visit], *, want: int, late: Literal["stop", "finish"] = "stop"
    ) -> list[Visit]:
        """Close a round: return its first `want` landed visits, by landing time then dispatch.

        Landed visits beyond `want` are `surplus`. Those still at work are `surplus` when the
        round had enough and `late` when it had not; they stop now or finish in vain.
        """
        landed = by_landing(visits)
        for visit in landed[want:]:
            self.visits.refuse(visit, "surplus")
        why: Literal["surplus", "late"] = "surplus" if len(landed) >= want else "late"
        for visit in visits:
            if not visit.ended:
                self.trainer.forget(visit)
                (visit.stop if late == "stop" else visit.ignore)(why)
        return landed[:want]

    def reject(self, landed: Sequence[Visit]) -> None:
        """Drop landed visits: their round had too few reports."""
        for visit in landed:
            self.visits.refuse(visit, "rejected")

    def fresh(self, landed: Sequence[Visit], max_staleness: int | None) -> list[Visit]:
        """Return the landed visits of the last `max_staleness` versions (None: all); the others end as `stale`."""
        if max_staleness is None or self.over:
            return list(landed)
        for visit in landed:
            if self.version - visit.version > max_staleness:
                self.visits.refuse(visit, "stale")
        return [visit for visit in landed if visit.outcome == "landed"]

    # values -------------------------------------------------------------------------------------

    def commit(self, landed: Sequence[Visit], *, blend: Blend | None = None) -> None:
        """Read the values of landed visits and make the next version of them.

        Args:
            landed: the visits.
            blend: makes the shared adapter of what the rule makes of the one that was sent, instead of a server
                optimiser.
        """
        if self.over:
            return
        self.visits.check_landed(landed)
        self._score_by_grid()
        before, commit = self.model.adapter, self._made(landed, blend)
        self._refused.note(commit.accepted, commit.refused)
        if not commit.accepted:
            return
        self.seen.commit()
        self.last_commit_s = self.now_s
        jobs = [self.visits.dispatched[visit.order].job for visit in commit.accepted]
        for visit in commit.accepted:
            visit.commit(self.version)
            self.visits.settle(visit)
        self.trainer.renew(self.model)
        after = self.model.adapter
        self.ledger.commit(self.version, self.env.now, commit.accepted, commit.moves, before, after)
        self.average.follow(self.model, self.version)
        self._made_at = self.now_s, float(self.ledger.up_bytes)
        if self.experiment.evaluate.at_commit(self.version):
            self.evaluate()
        self.private_parts.committed(jobs)
        if self.version == self.experiment.budget.commits:
            self.end()

    def _made(self, landed: Sequence[Visit], blend: Blend | None) -> Commit:
        """Make the next version of what has landed; returns what was taken of it."""
        landed = sorted(landed, key=lambda v: (v.client, v.visit))
        results, dispatched = self.trainer.results(landed), self.visits.dispatched
        blank = (landed, dispatched, self.versions)
        commit: Commit
        if results is not None:
            commit = Commit(results, dispatched, self.versions)
        elif self.trainer.log is not None:
            self.trainer.log.ask(landed)
            commit = LoggedCommit(self.trainer.log, *blank)
        else:
            commit = BlankCommit(*blank)
        try:
            if isinstance(commit, BlankCommit):
                self.versions.make_blank(commit)
            else:
                self.versions.make(commit, blend)
        finally:
            for visit, reason in commit.refused:
                self.ledger.refuse(visit, reason)
                self.visits.refuse(visit, "rejected")
            for report in commit.reports:
                self.seen.report(report.client, report.loss, report.square)
        return commit

    def _score_by_grid(self) -> None:
        """Have this version scored, before the next one is made, if it was the server's at a point of a grid."""
        now = self.now_s, float(self.ledger.up_bytes)
        if self.experiment.evaluate.in_between(self._made_at, now):
            self.evaluate()

    def evaluate(self) -> None:
        """Queue the scores of this version, once: of the shared model, or of every client's own where there are any."""
        if self._scored == self.version:
            return
        self._scored = self.version
        models = self.versions.client_models()
        self.trainer.evaluations.queue(self.version, self.last_commit_s, self.average.model, models)

    # the end ------------------------------------------------------------------------------------

    def next_landing_s(self) -> float:
        """Return when the first update that is on its way lands [virtual s]; inf: none is."""
        return next_landing_s(self.visits.under_way())

    def visits_under_way(self) -> Collection[Visit]:
        """Return the visits whose device has not finished."""
        return [visit for visit in self.visits.under_way() if not visit.ended]

    def close(self, now_s: float) -> None:
        """Write the visits that are still open as they stand at `now_s`."""
        self.visits.close(now_s)


def _check_count(n: int, pool: int) -> None:
    if not 1 <= n <= pool:
        raise ValueError(f"{n} clients are asked for, of {pool}: at least 1, and no more than there are")
