"""The server's verbs: sample, dispatch, wait, collect, commit. The two times meet here.

SimPy decides when; the executor computes what. A dispatch leaves a pending job beside the visit;
`commit` is the only verb that reads values. Nothing here reads a wall clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import simpy
from numpy.typing import NDArray

from fedsim.adapters.payload import NOTHING
from fedsim.adapters.sums import Moves
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel
from fedsim.clock.estimate import Estimate, estimate
from fedsim.clock.plan import Plan
from fedsim.clock.roster import Roster
from fedsim.clock.visit import OnClose, Visit
from fedsim.clock.watched import attendance
from fedsim.cost.shape import backbone_bytes
from fedsim.cost.work import Work
from fedsim.devices.compute import Machines
from fedsim.errors import RunError, message
from fedsim.instants import At, Instant
from fedsim.jobs import Job, Update
from fedsim.network.base import Network
from fedsim.samplers.seen import Records
from fedsim.server.averaging import Average
from fedsim.server.ledger import Ledger
from fedsim.server.polling import Poll, poll_work, polled
from fedsim.server.private_parts import Privates
from fedsim.server.requests import Desk, Request
from fedsim.server.trainer import Trainer
from fedsim.server.versions import Sent, Versions

if TYPE_CHECKING:
    from fedsim.server.versions import Blend


class Server:
    """Mechanism without policy; a protocol is a generator over these verbs."""

    def __init__(
        self,
        env: simpy.Environment,
        plan: Plan,
        *,
        network: Network,
        model: ServerModel,
        trainer: Trainer,
        ledger: Ledger,
        privates: Privates,
    ) -> None:
        experiment, population = plan.experiment, plan.population
        self.env, self.plan, self.experiment, self.population = env, plan, experiment, population
        self.network, self.trainer, self.ledger, self.privates = network, trainer, ledger, privates
        self.versions = Versions(plan, model, privates)
        self.average = Average(model, experiment.evaluate.ema)
        self.watch: Callable[[Visit, Job], None] | None = None
        self.machines = Machines(experiment.compute, experiment.seed)
        self.attendance = attendance(env, experiment, population, self.machines)
        self.roster = Roster(self.attendance)
        for client in privates.unseen:
            self.roster.exclude(client)
        self.seen = Records(population.availability, plan.task.examples)
        self.desk = Desk(experiment, population, self.roster, self.seen)
        self.over = False
        self.open: dict[int, Visit] = {}
        self._sent: dict[int, Sent] = {}
        self._awaited: set[int] = set()
        self._visits_of = np.zeros(len(population), dtype=np.int64)
        self._last_seen: dict[int, int] = {}
        self._polled: dict[int, int] = {}
        self._equipped: set[int] = set()
        self._dispatches = 0
        self._rung_s = self._alarm_s = -1.0
        self.last_commit_s = 0.0

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

    # time ---------------------------------------------------------------------------------------

    def process(self, generator: Generator[Any, Any, Any]) -> simpy.Process:
        """Start a process."""
        return self.env.process(generator)

    def timeout(self, delay_s: float) -> simpy.Event:
        """Return an event `delay_s` from now [virtual s]."""
        return self.env.timeout(delay_s)

    def all_of(self, events: Iterable[simpy.Event]) -> simpy.Event:
        """Return the event that all have happened."""
        return self.env.all_of(events)

    def turn(self, instant: Instant) -> simpy.Event:
        """Return the event that this instant has come to its commits (or dispatches)."""
        return At(self.env, 0.0, instant)

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
        chosen = yield from self.grant(n, among)
        if hasattr(self.experiment.sampler, "keep"):
            chosen = yield from polled(self, chosen, n, among)
        return chosen

    def grant(self, n: int, among: NDArray[np.int64] | None = None) -> Generator[simpy.Event, Any, list[int]]:
        """Wait until n clients are idle and online, and have the sampler choose: n, or more to be polled."""
        granted = self.env.event()
        self.desk.ask(Request(n, granted.succeed, float(self.env.now), among))
        self._ring()
        chosen: list[int] = yield granted
        return chosen

    def _ring(self) -> None:
        if self.desk.waiting and self._rung_s != self.env.now:
            self._rung_s = float(self.env.now)
            At(self.env, 0.0, Instant.DISPATCH).callbacks.append(self._serve)

    def _serve(self, _: simpy.Event) -> None:
        self._rung_s = -1.0
        if self.over:
            return
        now = float(self.env.now)
        next_s = self.desk.serve(now)
        if math.isfinite(next_s) and self._alarm_s != next_s:
            self._alarm_s = next_s
            At(self.env, next_s - now, Instant.LANDING).callbacks.append(self._awake)

    def _awake(self, _: simpy.Event) -> None:
        self._alarm_s = -1.0  # now + (next - now) may round to just before the window: then wait once more
        self._ring()

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
        ask = self._ask(client, rank)
        offer = self.versions.offer(ask)
        sent = self.versions.sent(ask, offer, steps)
        on_close = self.experiment.population.on_close
        visit = self._leave(sent, self._work(ask, offer, steps), round_, on_close)
        self._polled.pop(client, None)
        self.seen.ask(client)
        self.trainer.expect(visit, sent.job, common=sent.common)
        if self.watch is not None:
            self.watch(visit, sent.job)
        return visit

    def poll(self, client: int) -> Poll:
        """Ask a client for the loss of this version's model on its training data (see `fedsim.server.polling`)."""
        ask = self._ask(client, None)
        offer = self.versions.offer(ask)
        work = self._with_backbone(client, poll_work(self.plan, client, ask.rank, offer))
        visit = self._leave(self.versions.sent(ask, offer), work, -1)
        visit.ignore("polled")
        own_scale = ask.scale != self.versions.scale
        vector = self.model.adapter.cut(ask.rank) if own_scale else visit.start
        return Poll(visit, vector, self.versions.base)

    def online(self, client: int) -> bool:
        """Tell whether a client is there now."""
        return bool(self.attendance.online(float(self.env.now))[client])

    def _leave(self, sent: Sent, work: Work, round_: int, on_close: OnClose = "lost") -> Visit:
        """Send what is offered on its way; `on_close` says what happens if the device goes away."""
        client = sent.ask.client
        visit = Visit(
            self.env,
            self.network,
            profile=self.population.profile(client),
            work=work,
            order=self._dispatches,
            visit=sent.ask.visit,
            version=self.version,
            round_=round_,
            start=sent.job.start,
            attendance=self.attendance,
            detect_after_s=self.experiment.network.detect_after_s,
            machines=self.machines,
            tail=self.experiment.energy.tail,
            on_end=self._ended,
            on_close=on_close,
            steps=self._steps(sent.job) if on_close == "partial" else 0,
            shorten=self._shorten,
        )
        self._dispatches += 1
        self._visits_of[client] += 1
        self.open[visit.order] = visit
        self._sent[visit.order] = sent
        visit.process.callbacks.append(partial(self._home, visit))
        return visit

    def _steps(self, job: Job) -> int:
        return job.local.steps_over(self.plan.task.examples(job.client))

    def _shorten(self, visit: Visit, steps: int) -> None:
        """The device went away after `steps` steps: they are all that is trained."""
        sent = self._sent[visit.order]
        self._sent[visit.order] = replace(sent, job=replace(sent.job, upto=steps))
        self.trainer.shorten(visit, steps)

    def steps(self, client: int) -> int:
        """Return the optimiser steps of a whole visit of a client."""
        return self.plan.steps(client)

    def rank(self, client: int) -> int:
        """Return the slots of each factor that a client trains in a whole visit; 0 for whole models."""
        return self.plan.rank(client)

    def estimate(self, client: int, *, steps: int | None = None, rank: int | None = None) -> Estimate:
        """Return how a visit would go if it began now, alone on its own link, on a cool device."""
        ask = self._ask(client, rank)
        _, until_s = self.population.availability.window(client, self.env.now)
        return estimate(
            self.population.profile(client),
            self._work(ask, self.versions.offer(ask), steps),
            float(self.env.now),
            until_s,
            compute=self.experiment.compute,
            tail=self.experiment.energy.tail,
        )

    def _ask(self, client: int, rank: int | None) -> Invitation:
        visit = int(self._visits_of[client])
        return self.versions.ask(client, visit, self._last_seen.get(client), rank)

    def _work(self, ask: Invitation, offer: Offer, steps: int | None) -> Work:
        if self._polled.get(ask.client) == self.version:
            offer = replace(offer, down=NOTHING)
        work = self.plan.sent(self.plan.work(ask.client, steps, ask.rank or None), offer)
        return self._with_backbone(ask.client, work)

    def _with_backbone(self, client: int, work: Work) -> Work:
        """Add the frozen backbone to a client's first download, if it is not preinstalled."""
        if self.experiment.network.backbone == "preinstalled" or client in self._equipped:
            return work
        return replace(work, down_bytes=work.down_bytes + backbone_bytes(self.plan.shape))

    def _ended(self, visit: Visit) -> None:
        """The device has finished with a visit: what it used is in the books from now on."""
        if not math.isnan(visit.downloaded_s):
            self._last_seen[visit.client] = visit.version
            self._equipped.add(visit.client)
        self.ledger.count(visit)
        if visit.outcome == "landed":
            self.seen.land(visit.client, visit.landed_s - visit.dispatched_s)
        else:
            if visit.outcome == "polled":
                self._polled[visit.client] = visit.version
            self.trainer.forget(visit)
            self._settle(visit)
        limit = self.experiment.budget.up_bytes
        if limit is not None and self.ledger.up_bytes >= limit:
            # what lands or is committed in this same instant still counts; then it is over
            At(self.env, 0.0, Instant.EVALUATE).callbacks.append(self._exhausted)

    def _exhausted(self, _: simpy.Event) -> None:
        self.over = True

    def _home(self, visit: Visit, _: simpy.Event) -> None:
        """The server knows how a visit ended: the client may be asked again, unless it is too small.

        One whose private part is in a visit that has landed waits until that is committed or refused.
        """
        self.roster.release(visit.client)
        if self.privates.waits and visit.order in self.open and visit.outcome == "landed":
            self._awaited.add(visit.client)
            self.hold(visit.client)
        if visit.outcome == "memory":
            self.roster.exclude(visit.client)
        self._ring()

    def hold(self, client: int) -> None:
        """Keep a client from being asked, although its visit has ended, until `free`."""
        self.desk.hold(client)

    def free(self, clients: Sequence[int]) -> None:
        """Let held clients be asked again, from this instant's dispatches on."""
        self.desk.free(clients)
        self._ring()

    def _settle(self, visit: Visit) -> None:
        del self.open[visit.order]
        self.ledger.settle(visit, self._sent.pop(visit.order).ask.rank)
        if visit.client in self._awaited:
            self._awaited.remove(visit.client)
            self.free([visit.client])

    def refuse_to_spin(self) -> None:
        """Raise if the run has no horizon and nothing has been committed for `runtime.stall_s`.

        Raises:
            RunError: says how the visits ended instead.
        """
        stall_s = self.experiment.runtime.stall_s
        if self.env.now - self.last_commit_s <= stall_s:
            return
        ended = (
            ", ".join(f"{n} {outcome}" for outcome, n in sorted(self.ledger.outcomes.items())) or "none ended"
        )
        raise RunError(
            message(
                "run",
                f"no commit in {stall_s:.0f} s of virtual time, and no budget.time_s to end the run (visits: {ended})",
                fix="give budget.time_s, a longer protocol.deadline_s, a smaller protocol.buffer or min_reports",
            )
        )

    def close(self, now_s: float) -> None:
        """End the run here: write the visits that are still open as they stand at `now_s`."""
        for visit in sorted(self.open.values(), key=lambda v: v.order):
            if not visit.ended:
                visit.close(now_s)
                self.ledger.count(visit)
            self._settle(visit)

    def wait(
        self, visits: Sequence[Visit], *, want: int, deadline_s: float | None = None
    ) -> Generator[simpy.Event, Any, None]:
        """Wait until `want` visits have landed, all have ended, or the deadline; then for the
        commits' place in that instant, so that whatever lands at the same time counts.
        """
        done = self.env.event()
        open_ = len(visits)
        landed = 0

        def count(visit: Visit, _: simpy.Event) -> None:
            nonlocal open_, landed
            open_ -= 1
            landed += visit.outcome == "landed"
            if (landed >= want or open_ == 0) and not done.triggered:
                done.succeed()

        for visit in visits:
            visit.process.callbacks.append(partial(count, visit))
        yield done if deadline_s is None else done | self.timeout(deadline_s)
        yield self.turn(Instant.COMMIT)

    def collect(
        self, visits: Sequence[Visit], *, want: int, late: Literal["stop", "finish"] = "stop"
    ) -> list[Visit]:
        """Close a round: return its first `want` landed visits, by landing time then dispatch.

        Landed visits beyond `want` are `surplus`. Those still at work are `surplus` when the
        round had enough and `late` when it had not; they stop now or finish in vain.
        """
        landed = sorted((v for v in visits if v.outcome == "landed"), key=lambda v: (v.landed_s, v.order))
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
        before = self.model.adapter
        landed = sorted(landed, key=lambda v: (v.client, v.visit))
        results = self.trainer.results(landed)
        moves = Moves(before.layout.size) if results is not None else None
        taken: list[Visit] = []
        if results is not None and moves is not None:
            self.versions.make(self._contributions(results, moves, taken), taken, blend)
        elif self.versions.rule.traits.history:
            self.versions.make(self._blank(landed, taken), taken, None)
        else:
            taken += landed
        if not taken:
            return
        self.versions.number += 1
        self.seen.commit()
        self.last_commit_s = float(self.env.now)
        jobs = [self._sent[visit.order].job for visit in taken]
        for visit in taken:
            visit.staleness = self.version - 1 - visit.version
            visit.committed_version = self.version
            self._settle(visit)
        self.trainer.renew(self.model)
        self.ledger.commit(self.version, self.env.now, taken, moves, before, self.model.adapter)
        self.average.follow(self.model, self.version)
        if self.version % self.experiment.evaluate.every_commits == 0:
            self.evaluate()
        self.privates.committed(jobs)
        if self.version == self.experiment.budget.commits:
            self.over = True

    def evaluate(self) -> None:
        """Queue the scores of this version: of the shared model, or of every client's own where there are any."""
        self.trainer.evaluate(self.version, self.last_commit_s, self.average.model, self.versions.own())

    def _contributions(
        self, results: Iterator[tuple[Visit, Update]], moves: Moves, taken: list[Visit]
    ) -> Iterator[Contribution]:
        """Yield what the rule sees, one by one, as workers finish; notes moves and visits on the way.

        Faulty updates are rejected: they are in neither.
        """
        size = self.model.adapter.layout.size
        for visit, update in results:
            visit.loss = update.loss
            sent = self._sent[visit.order]
            reason = update.fault(size)
            if reason is None:
                # out of the executor's store, if it lies there
                end = np.require(update.end, requirements="O")
                end = self.versions.received(visit, sent, end)
                reason = None if moves.add(sent.start, end) else "the move is not finite"
            if reason is not None:
                self.ledger.refuse(visit, reason)
                self._refuse(visit, "rejected")
                continue
            taken.append(visit)
            self.seen.report(visit.client, update.loss, update.square)
            yield self.versions.contribution(visit, sent, end, float(update.examples))

    def _blank(self, landed: Sequence[Visit], taken: list[Visit]) -> Iterator[Contribution]:
        """Yield the contributions of a timeline-only run: nobody has moved, the rest is as it would be."""
        for visit in landed:
            sent = self._sent[visit.order]
            taken.append(visit)
            yield self.versions.contribution(
                visit, sent, sent.start, float(self.plan.task.examples(visit.client))
            )
