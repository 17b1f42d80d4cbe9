"""The server's verbs: sample, dispatch, wait, collect, commit. The two times meet here.

SimPy decides when; the executor computes what. A dispatch leaves a pending job beside the visit;
`commit` is the only verb that reads values. Nothing here reads a wall clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
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
from fedsim.cost.shape import backbone_bytes
from fedsim.instants import At, Instant
from fedsim.network.base import Network
from fedsim.samplers._base import PollingSampler
from fedsim.server.clients import ClientBook
from fedsim.server.idle_clients import IdleClients, check_count
from fedsim.server.ledger import Ledger
from fedsim.server.offers import Offers
from fedsim.server.open_visits import OpenVisits
from fedsim.server.polling import Poll, polled, told_losses
from fedsim.server.rounds import by_landing, end_of_round, next_landing_s
from fedsim.server.values.averaging import Average
from fedsim.server.values.dispatched import Dispatched
from fedsim.server.values.private_parts import PrivateParts
from fedsim.server.values.trainer import Trainer
from fedsim.server.values.versions import Versions
from fedsim.server.version_maker import VersionMaker

OnDispatch = Callable[[Visit, Dispatched], None]
"""Told of each visit that trains, at its dispatch, with its job, vectors as they are."""


class Server(IdleClients):
    """Mechanism without policy; a protocol is a generator over these verbs (`fedsim.clock.protocol.Verbs`).

    Attributes:
        visits, maker: those under way or whose fate is not final; what makes the versions.
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
        experiment, self._on_dispatch = plan.experiment, on_dispatch
        self.experiment, self.trainer, self.ledger = experiment, trainer, ledger
        self.private_parts = private_parts
        versions = self.versions = Versions(plan, model, private_parts)
        equips = experiment.network.backbone == "first_visit"
        self._book = ClientBook(
            self.clients,
            backbone_bytes=backbone_bytes(plan.shape) if equips else 0,
            resumes=experiment.network.interrupted == "resume",
        )
        self._offers = Offers(plan, versions, self._book)
        self.visits = OpenVisits(
            self._device_world(network),
            plan,
            book=self._book,
            ledger=ledger,
            trainer=trainer,
            seen=self.seen,
            roster=self.roster,
            desk=self.desk,
            alarm=self._alarm,
            one_at_a_time=private_parts.waits,
            on_exhausted=self._end_when_ready,
        )
        self.maker = VersionMaker(
            plan,
            versions,
            trainer=trainer,
            ledger=ledger,
            visits=self.visits,
            seen=self.seen,
            private_parts=private_parts,
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
        return self.versions.lent.vector(self.version, self.model.adapter.vector)

    @property
    def average(self) -> Average:
        """What is scored and saved: the model, or an average of its versions."""
        return self.maker.average

    @property
    def last_commit_s(self) -> float:
        """When the last version was ready, or will be [virtual s]."""
        return self.maker.ready_s

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
        check_count(n, self.clients if among is None else len(among))
        clients = yield from self.grant(n, among)
        sampler = self.plan.parts.sampler
        if isinstance(sampler, PollingSampler):
            clients = yield from polled(self, sampler, clients, n, among)
        return self.visits.expect(clients)

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
        self.visits.check_free(client)
        self._short_waits = 0
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
        self.visits.polled[visit.order] = self.versions.polled(invitation, visit.start)
        return Poll(visit)

    def losses(self, polls: Sequence[Poll]) -> list[float]:
        """Return what polled clients answer: the mean loss on each one's training data."""
        return told_losses(self.trainer, polls, self.visits.polled)

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
        """Read the values of landed visits and make the next version of them; it is there when the server is ready.

        Args:
            landed: the visits.
            blend: makes the shared adapter of what the rule makes of the one that was sent, instead of a server
                optimiser.
        """
        if self.over or self.maker.is_last():
            return
        self.visits.check_landed(landed)
        if self.maker.commit(landed, blend, self.now_s):
            self._alarm.wait_until(self.last_commit_s)
        elif self.maker.target.version is None:
            return
        if self.maker.is_last():
            self._end_when_ready()

    def evaluate(self) -> None:
        """Queue the scores of this version, once: of the shared model, or of every client's own where there are any."""
        self.maker.evaluate()
        if self.maker.target.version is not None and not self.over:
            self._end_when_ready()

    # the end ------------------------------------------------------------------------------------

    def _end_when_ready(self) -> None:
        """End the run as soon as the version that the server works on is there."""
        self._alarm.stop()
        why = self.maker.target.why
        if self.last_commit_s <= self.now_s:
            self.end(why)
        else:
            ready = At(self.env, self.last_commit_s - self.now_s, Instant.EVALUATE)
            ready.callbacks.append(lambda _event: self.end(why))

    def next_landing_s(self) -> float:
        """Return when the first update that is on its way lands [virtual s]; inf: none is."""
        return next_landing_s(self.visits.at_work())

    def close(self, now_s: float) -> None:
        """Write the visits that are still open as they stand at `now_s`."""
        self.visits.close(now_s)
