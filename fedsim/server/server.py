"""The server's verbs: sample, dispatch, wait, collect, commit. The two times meet here.

SimPy decides when; the executor computes what. A dispatch leaves a pending job beside the visit;
`commit` is the only verb that reads values. Nothing here reads a wall clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import simpy
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.adapters.payload import NOTHING
from fedsim.aggregators._base import Invitation, Offer, ServerModel
from fedsim.clock.estimate import Estimate, estimate
from fedsim.clock.plan import Plan
from fedsim.clock.protocol import Blend, Steps
from fedsim.clock.roster import Roster
from fedsim.clock.visit import OnClose, Visit
from fedsim.clock.watched import attendance
from fedsim.cost.shape import backbone_bytes
from fedsim.cost.work import Work
from fedsim.devices.compute import Machines
from fedsim.errors import RunError, message
from fedsim.instants import At, Instant
from fedsim.jobs import Job
from fedsim.network.base import Network
from fedsim.samplers._base import PollingSampler
from fedsim.samplers.seen import Records
from fedsim.server.alarm import DeskAlarm
from fedsim.server.averaging import Average
from fedsim.server.clients import ClientBook
from fedsim.server.commits import BlankCommit, Commit
from fedsim.server.ledger import Ledger
from fedsim.server.polling import Poll, poll_work, polled
from fedsim.server.private_parts import PrivateParts
from fedsim.server.requests import Desk, PoolRequest
from fedsim.server.rounds import by_landing, enough_landed
from fedsim.server.trainer import Trainer
from fedsim.server.versions import Dispatched, Versions

OnDispatch = Callable[[Visit, Job], None]
"""Told of each visit that trains, at its dispatch, with its job, vectors as they are."""


class Server:
    """Mechanism without policy; a protocol is a generator over these verbs (`fedsim.clock.protocol.Verbs`).

    Attributes:
        over: whether the budget is used up.
        last_commit_s: when the last version was made [virtual s].
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
        experiment, population = plan.experiment, plan.population
        self.env, self.plan, self.experiment, self.population = env, plan, experiment, population
        self.network, self.trainer, self.ledger, self.private_parts = network, trainer, ledger, private_parts
        self.versions = Versions(plan, model, private_parts)
        self.average = Average(model, experiment.evaluate.ema)
        self.machines = Machines(experiment.compute, experiment.seed)
        self.attendance = attendance(env, experiment, population, self.machines)
        self.roster = Roster(self.attendance)
        for client in private_parts.unseen:
            self.roster.exclude(client)
        self.seen = Records(population.availability, plan.task.examples)
        self.desk = Desk(plan, self.roster, self.seen, held_out=len(private_parts.unseen))
        self.over = False
        self.last_commit_s = 0.0
        self._alarm = DeskAlarm(env, self.desk)
        self._on_dispatch = on_dispatch
        self._book = ClientBook(len(population))
        self._open: dict[int, Visit] = {}
        self._dispatched: dict[int, Dispatched] = {}
        self._uncommitted: set[int] = set()
        self._visits = 0

    # the model ----------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Commits so far."""
        return self.versions.number

    @property
    def model(self) -> ServerModel:
        """The model of this version."""
        return self.versions.model

    @property
    def vector(self) -> Vector:
        """The shared adapter of this version, (size,) float32."""
        return self.versions.model.adapter.vector

    # what there is ------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self.population)

    @property
    def held_out(self) -> Sequence[int]:
        """Clients that are never asked, ascending."""
        return self.private_parts.unseen

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return self.experiment.seed

    # the clock ----------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The time now [virtual s]."""
        return float(self.env.now)

    def process(self, generator: Generator[Any, Any, Any]) -> simpy.Process:
        """Start a process."""
        return self.env.process(generator)

    def event(self) -> simpy.Event:
        """Return an event that happens when somebody says so (`succeed`)."""
        return self.env.event()

    def timeout(self, delay_s: float) -> simpy.Event:
        """Return an event `delay_s` from now [virtual s]."""
        return self.env.timeout(delay_s)

    def all_of(self, events: Iterable[simpy.Event]) -> simpy.Event:
        """Return the event that all have happened."""
        return self.env.all_of(events)

    def turn(self, instant: Instant, *, at_s: float | None = None) -> simpy.Event:
        """Return the event that an instant (None: this one) has come to its commits (or dispatches)."""
        return At(self.env, 0.0 if at_s is None else at_s - self.env.now, instant)

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
        clients = yield from self.grant(n, among)
        sampler = self.plan.parts.sampler
        if isinstance(sampler, PollingSampler):
            clients = yield from polled(self, sampler, clients, n, among)
        return clients

    def grant(self, n: int, among: NDArray[np.int64] | None = None) -> Generator[simpy.Event, Any, list[int]]:
        """Wait until n clients are idle and online, and have the sampler choose: n, or more to be polled."""
        granted = self.env.event()
        self.desk.ask(PoolRequest(n, granted.succeed, self.now_s, among))
        self._alarm.ring()
        clients: list[int] = yield granted
        return clients

    def hold(self, client: int) -> None:
        """Keep a client from being asked, although its visit has ended, until `free`."""
        self.desk.hold(client)

    def free(self, clients: Sequence[int]) -> None:
        """Let held clients be asked again, from this instant's dispatches on."""
        self.desk.free(clients)
        self._alarm.ring()

    def online(self, client: int) -> bool:
        """Tell whether a client is online now."""
        return bool(self.attendance.online(self.now_s)[client])

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
        invitation = self._invitation(client, rank)
        offer = self.versions.offer(invitation)
        dispatched = self.versions.dispatched(invitation, offer, steps)
        on_close = self.experiment.population.on_close
        visit = self._begin_visit(dispatched, self._work(invitation, offer, steps), round_, on_close)
        self._book.polled.pop(client, None)
        self.seen.ask(client)
        self.trainer.expect(visit, dispatched.job, common=dispatched.common)
        if self._on_dispatch is not None:
            self._on_dispatch(visit, dispatched.job)
        return visit

    def poll(self, client: int) -> Poll:
        """Ask a client for the loss of this version's model on its training data (see `fedsim.server.polling`).

        Once it has answered it stays busy, so that nobody else asks it before the choice: `free` it or dispatch.
        """
        invitation = self._invitation(client, None)
        offer = self.versions.offer(invitation)
        work = self._with_backbone(client, poll_work(self.plan, client, invitation.rank, offer))
        visit = self._begin_visit(self.versions.dispatched(invitation, offer), work, -1)
        visit.ignore("polled")
        own_scale = invitation.scale != self.versions.scale
        vector = self.model.adapter.cut(invitation.rank) if own_scale else visit.start
        return Poll(visit, vector, self.versions.base)

    def losses(self, polls: Sequence[Poll]) -> list[float]:
        """Return what polled clients answer: the mean loss on each one's training data."""
        return self.trainer.losses([(p.visit.client, p.vector, p.base) for p in polls])

    def steps(self, client: int) -> int:
        """Return the optimiser steps of a whole visit of a client."""
        return self.plan.steps(client)

    def rank(self, client: int) -> int:
        """Return the slots of each factor that a client trains in a whole visit; 0 for whole models."""
        return self.plan.rank(client)

    def estimate(self, client: int, *, steps: int | None = None, rank: int | None = None) -> Estimate:
        """Return how a visit would go if it began now, alone on its own link, on a cool device.

        It knows the client's window and its outages; what battery and heat will do is not foreseen.
        """
        invitation = self._invitation(client, rank)
        _, until_s = self.population.availability.window(client, self.env.now)
        return estimate(
            self.population.profile(client),
            self._work(invitation, self.versions.offer(invitation), steps),
            self.now_s,
            until_s,
            compute=self.experiment.compute,
            tail=self.experiment.energy.tail,
        )

    def _invitation(self, client: int, rank: int | None) -> Invitation:
        book = self._book
        return self.versions.invitation(client, book.visits(client), book.last_seen.get(client), rank)

    def _work(self, invitation: Invitation, offer: Offer, steps: int | None) -> Work:
        client = invitation.client
        if self._book.polled.get(client) == self.version:
            offer = replace(offer, down=NOTHING)
        work = self.plan.work(client, offer, steps=steps, rank=invitation.rank or None)
        return self._with_backbone(client, work)

    def _with_backbone(self, client: int, work: Work) -> Work:
        """Add the frozen backbone to a client's first download, if it is not preinstalled."""
        if self.experiment.network.backbone == "preinstalled" or self._book.has_backbone(client):
            return work
        return replace(work, down_bytes=work.down_bytes + backbone_bytes(self.plan.shape))

    def _begin_visit(
        self, dispatched: Dispatched, work: Work, round_: int, on_close: OnClose = "lost"
    ) -> Visit:
        """Send what is offered on its way; `on_close` says what happens if the device goes away."""
        client, job = dispatched.invitation.client, dispatched.job
        visit = Visit(
            self.env,
            self.network,
            profile=self.population.profile(client),
            work=work,
            order=self._visits,
            visit=dispatched.invitation.visit,
            version=self.version,
            round_=round_,
            start=job.start,
            attendance=self.attendance,
            detect_after_s=self.experiment.network.detect_after_s,
            machines=self.machines,
            tail=self.experiment.energy.tail,
            on_end=self._on_visit_end,
            on_close=on_close,
            steps=job.local.steps_over(self.plan.task.examples(client)) if on_close == "partial" else 0,
            shorten=self._on_shortened,
        )
        self._visits += 1
        self._book.begin_visit(client)
        self._open[visit.order] = visit
        self._dispatched[visit.order] = dispatched
        visit.process.callbacks.append(partial(self._on_process_end, visit))
        return visit

    # how visits end -----------------------------------------------------------------------------

    def _on_shortened(self, visit: Visit, steps: int) -> None:
        """The device went away after `steps` steps: they are all that is trained."""
        dispatched = self._dispatched[visit.order]
        self._dispatched[visit.order] = replace(dispatched, job=replace(dispatched.job, upto=steps))
        self.trainer.shorten(visit, steps)

    def _on_visit_end(self, visit: Visit) -> None:
        """The device has finished with a visit: what it used is in the books from now on."""
        if not math.isnan(visit.downloaded_s):
            self._book.note_download(visit.client, visit.version)
        self.ledger.count(visit)
        if visit.outcome == "landed":
            self.seen.land(visit.client, visit.landed_s - visit.dispatched_s)
        else:
            if visit.outcome == "polled":
                self._book.polled[visit.client] = visit.version
            self.trainer.forget(visit)
            self._settle(visit)
        limit = self.experiment.budget.up_bytes
        if limit is not None and self.ledger.up_bytes >= limit:
            # what lands or is committed in this same instant still counts; then it is over
            At(self.env, 0.0, Instant.EVALUATE).callbacks.append(lambda _event: self.end())

    def _on_process_end(self, visit: Visit, _event: simpy.Event) -> None:
        """The server knows how a visit ended: the client may be asked again, unless it is too small.

        One whose private part is in a visit that has landed waits until that is committed or refused, and one
        that has answered a poll until the choice.
        """
        self.roster.release(visit.client)
        if self.private_parts.waits and visit.order in self._open and visit.outcome == "landed":
            self._uncommitted.add(visit.client)
            self.hold(visit.client)
        if visit.outcome == "polled":
            self.desk.keep_busy(visit.client)
        if visit.outcome == "memory":
            self.roster.exclude(visit.client)
        self._alarm.ring()

    def _settle(self, visit: Visit) -> None:
        """Write a visit whose fate is final."""
        del self._open[visit.order]
        self.ledger.settle(visit, self._dispatched.pop(visit.order).invitation.rank)
        if visit.client in self._uncommitted:
            self._uncommitted.remove(visit.client)
            self.free([visit.client])

    # rounds -------------------------------------------------------------------------------------

    def wait(self, visits: Sequence[Visit], *, want: int, deadline_s: float | None = None) -> Steps:
        """Wait until `want` visits have landed, all have ended, or the deadline; then for the
        commits' place in that instant, so that whatever lands at the same time counts.
        """
        landed = enough_landed(self.env, visits, want)
        yield landed if deadline_s is None else landed | self.timeout(deadline_s)
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
            self._refuse(visit, "surplus")
        why: Literal["surplus", "late"] = "surplus" if len(landed) >= want else "late"
        for visit in visits:
            if not visit.ended:
                self.trainer.forget(visit)
                (visit.stop if late == "stop" else visit.ignore)(why)
        return landed[:want]

    def reject(self, landed: Sequence[Visit]) -> None:
        """Drop landed visits: their round had too few reports."""
        for visit in landed:
            self._refuse(visit, "rejected")

    def _refuse(self, visit: Visit, outcome: Literal["surplus", "rejected"]) -> None:
        visit.outcome = outcome
        self.trainer.forget(visit)
        self._settle(visit)

    # values -------------------------------------------------------------------------------------

    def commit(self, landed: Sequence[Visit], *, blend: Blend | None = None) -> None:
        """Read the values of landed visits and make the next version of them.

        Args:
            landed: the visits.
            blend: makes the shared adapter of the one before and the rule's, instead of a server optimiser.
        """
        if self.over:
            return
        landed = sorted(landed, key=lambda v: (v.client, v.visit))
        before, commit = self.model.adapter, self._made(landed, blend)
        if not commit.accepted:
            return
        self.seen.commit()
        self.last_commit_s = self.now_s
        jobs = [self._dispatched[visit.order].job for visit in commit.accepted]
        for visit in commit.accepted:
            visit.staleness = self.version - 1 - visit.version
            visit.committed_version = self.version
            self._settle(visit)
        self.trainer.renew(self.model)
        self.ledger.commit(self.version, self.env.now, commit.accepted, commit.moves, before, self.model.adapter)
        self.average.follow(self.model, self.version)
        if self.version % self.experiment.evaluate.every_commits == 0:
            self.evaluate()
        self.private_parts.committed(jobs)
        if self.version == self.experiment.budget.commits:
            self.end()

    def _made(self, landed: Sequence[Visit], blend: Blend | None) -> Commit:
        """Make the next version of what has landed; returns what was taken of it."""
        results = self.trainer.results(landed)
        if results is None:
            blank = BlankCommit(landed, self._dispatched, self.versions, self.plan.task.examples)
            self.versions.make_blank(blank)
            return blank
        commit = Commit(results, self._dispatched, self.versions)
        try:
            self.versions.make(commit, blend)
        finally:
            for visit, reason in commit.refused:
                self.ledger.refuse(visit, reason)
                self._refuse(visit, "rejected")
            for report in commit.reports:
                self.seen.report(report.client, report.loss, report.square)
        return commit

    def evaluate(self) -> None:
        """Queue the scores of this version: of the shared model, or of every client's own where there are any."""
        models = self.versions.client_models()
        self.trainer.evaluate(self.version, self.last_commit_s, self.average.model, models)

    # the end ------------------------------------------------------------------------------------

    def end(self) -> None:
        """Let nothing more be committed or dispatched: the budget is used up."""
        self.over = True
        self._alarm.stop()

    def close(self, now_s: float) -> None:
        """Write the visits that are still open as they stand at `now_s`."""
        for visit in sorted(self._open.values(), key=lambda v: v.order):
            if not visit.ended:
                visit.close(now_s)
                self.ledger.count(visit)
            self._settle(visit)

    def refuse_to_spin(self) -> None:
        """Raise if the run has no horizon and nothing has been committed for `runtime.stall_s`.

        Raises:
            RunError: says how the visits ended instead.
        """
        stall_s = self.experiment.runtime.stall_s
        if self.env.now - self.last_commit_s <= stall_s:
            return
        ended = ", ".join(f"{n} {outcome}" for outcome, n in sorted(self.ledger.outcomes.items()))
        what = (
            f"no commit in {stall_s:.0f} s of virtual time, and no budget.time_s to end the run "
            f"(visits: {ended or 'none ended'})"
        )
        fix = "give budget.time_s, a longer protocol.deadline_s, a smaller protocol.buffer or min_reports"
        raise RunError(message("run", what, fix=fix))
