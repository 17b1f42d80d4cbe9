"""The server's model from version to version: what a client is sent of it, and what updates make of it.

No clock here: `fedsim.server.server` says when. A version is made by the rule, then by the server's optimiser (or a
protocol's own blend); what is sent goes through the wire and gets the client's private part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import NoReturn, Protocol, TypedDict

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel
from fedsim.aggregators._depth import offered
from fedsim.aggregators._steps import effective_steps
from fedsim.blame import place_in
from fedsim.clock.plan import Plan
from fedsim.clock.protocol import Blend
from fedsim.clock.visit import Visit
from fedsim.component import Component
from fedsim.errors import FedsimError, RunError, message
from fedsim.jobs import Job
from fedsim.network.coding import Coder, CoderData
from fedsim.server import returned
from fedsim.server.values.dispatched import Dispatched, PolledModel, counted
from fedsim.server.values.lent import LentVectors
from fedsim.server.values.private_parts import PrivateParts


class Taken(Protocol):
    """The contributions of a commit, iterated once, and the visits whose contribution the rule has got by then."""

    accepted: list[Visit]

    def __iter__(self) -> Iterator[Contribution]:
        """Yield the contributions, by client and visit."""
        ...


class VersionsData(TypedDict):
    """What `Versions.dump` returns, as it is read again."""

    model: ServerModel
    rule: object
    optimizer: object
    coder: CoderData


class Versions:
    """The present model and all that changes with it.

    Attributes:
        model, state: the server's model, and what the rule remembers.
        number: commits so far.
        rule, optimizer: the aggregation rule, and the server's optimiser.
        coder: of what travels.
        lent: the vectors that protocols were given.
    """

    def __init__(self, plan: Plan, model: ServerModel, private_parts: PrivateParts) -> None:
        """Start at version 0."""
        experiment, layout = plan.experiment, model.adapter.layout
        self.plan, self.private_parts, self.model, self.number = plan, private_parts, model, 0
        self.rule, self.optimizer = plan.parts.aggregator, plan.parts.server_optimizer
        self.state = self.rule.init(model)
        self._optimizer_state = self.optimizer.init(layout.size)
        refactors = self.rule.traits.refactors
        self.coder = Coder(experiment.wire, layout, experiment.training_seed, refactors=refactors)
        self.scale = layout.modules[0].scale if layout.modules else 1.0
        self.lent = LentVectors()

    # a checkpoint -------------------------------------------------------------------------------

    def dump(self) -> VersionsData:
        """Return what depends on values, as explicit data, after a commit: before anything of its version is sent."""
        return {
            "model": self.model,
            "rule": self.rule.dump(self.state),
            "optimizer": self.optimizer.dump(self._optimizer_state),
            "coder": self.coder.dump(),
        }

    def load(self, data: VersionsData) -> None:
        """Go on from what `dump` has returned; the number of the version is that of the schedule."""
        self.model = data["model"]
        self.state = self.rule.load(data["rule"])
        self._optimizer_state = self.optimizer.load(data["optimizer"])
        self.coder.load(data["coder"])

    # what is sent -------------------------------------------------------------------------------

    def invitation(
        self,
        client: int,
        visit: int,
        last_seen: int | None,
        rank: int | None,
        last_rank: int | None = None,
    ) -> Invitation:
        """Return whom the rule is asked about; `rank` is the most slots, None: the client's own."""
        slots = self.plan.rank(client, rank)
        scale = self.plan.experiment.lora.scale_at(slots, self.scale)
        own_rank, depth = self.plan.own_rank(client), self.plan.depth(client)
        return Invitation(client, visit, slots, scale, last_seen, own_rank, last_rank, depth)

    def offer(self, invitation: Invitation) -> Offer:
        """Return what the rule offers, less what lies below the client's depth and what is private."""
        try:
            offer = offered(self.rule, self.state, self.model, invitation)
        except Exception as problem:
            self._blame("offers", problem)
        return self.private_parts.offer(offer)

    def dispatched(self, invitation: Invitation, offer: Offer, steps: int | None = None) -> Dispatched:
        """Return what an offer is on the client's side of the wire, and the training it is for."""
        client, had = invitation.client, invitation
        start = self.coder.down(
            self.number, offer.start, offer.down, client=client, last_seen=invitation.last_seen
        )
        composed = self.private_parts.start(client, start, had.rank, had.scale, had.depth)
        common = self.model.adapter.holds(offer.start) and composed is start
        job = self._job(invitation, offer, composed, steps)
        return Dispatched(invitation, offer, start, self.model.base, job, common)

    def polled(self, invitation: Invitation, start: Vector) -> PolledModel:
        """Return what a poll asks about of a client that starts at `start`."""
        return PolledModel(counted(self.model.adapter, start, invitation, self.scale), self.base)

    def _job(self, invitation: Invitation, offer: Offer, start: Vector, steps: int | None) -> Job:
        smaller = invitation.rank < self.model.adapter.layout.rank
        return Job(
            invitation.client,
            invitation.visit,
            start,
            self.plan.local(invitation.client, steps).at_version(self.number),
            self.plan.experiment.training_seed,
            rank=invitation.rank if smaller else None,
            trains=offer.trains,
            scale=invitation.scale if smaller else None,
            base=self.base,
            slot_penalty=offer.slot_penalty,
            depth=invitation.depth,
        )

    @property
    def base(self) -> Vector | None:
        """The change of the frozen weights; None: none."""
        return self.model.change

    def client_models(self) -> Callable[[int], Vector] | None:
        """Return what gives a client's own model of this version; None while all have the shared one."""
        if not len(self.model.personal) and not (self.private_parts.waits and len(self.private_parts.kept)):
            return None
        model = self.model

        def vector(client: int) -> Vector:
            whole = self.rule.client_model(model, client)
            return self.private_parts.start(client, model.adapter.vector if whole is None else whole)

        return vector

    # what comes back ----------------------------------------------------------------------------

    def received(self, visit: Visit, dispatched: Dispatched, end: Vector) -> Vector:
        """Return where a client ended as far as the server may know: what is private stays, the rest is coded."""
        frame, had = (visit.version, dispatched.offer.phase), dispatched.invitation
        decoded = self.coder.up(
            visit.client,
            visit.visit,
            dispatched.job.start,
            end,
            dispatched.offer.up,
            frame=frame,
            scale=had.scale,
        )
        start = dispatched.shared_start
        return self.private_parts.landed(visit.client, had.rank, start, decoded, had.scale, had.depth)

    def contribution(
        self, visit: Visit, dispatched: Dispatched, end: Vector, made: tuple[int, int] | None = None
    ) -> Contribution:
        """Return an update as the rule sees it.

        Args:
            visit: whose.
            dispatched: what it left with.
            end: where it ended.
            made: examples that it used and steps that it made; None: as its job says.
        """
        job, examples = dispatched.job, self.plan.task.examples(visit.client)
        whole = job.local.steps_over(examples)
        if made is None:
            steps = whole if job.upto is None else min(whole, job.upto)
            made = (min(examples, steps * job.local.batch), steps)
        return Contribution(
            client=visit.client,
            visit=visit.visit,
            start=dispatched.shared_start,
            end=end,
            examples=float(examples),
            staleness=self.number - visit.version,
            version=visit.version,
            rank=dispatched.invitation.rank,
            scale=dispatched.invitation.scale,
            phase=dispatched.offer.phase,
            base_version=0 if dispatched.base is None else dispatched.base.version,
            trains=dispatched.offer.trains,
            base=dispatched.base,
            own_rank=dispatched.invitation.own_rank,
            used=float(made[0]),
            effective_steps=effective_steps(job.local, made[1], max(whole, made[1])),
            depth=dispatched.invitation.depth,
        )

    def make(self, commit: Taken, blend: Blend | None) -> None:
        """Make the next version, if there is a contribution: the rule, then `blend` or the server's optimiser.

        Args:
            commit: what has come in.
            blend: makes the shared adapter of what the rule makes of the adapter that was sent, instead of an
                optimiser. To that adapter nobody is stale.
        """
        contributions = iter(commit)
        first = next(contributions, None)
        if first is None:
            return
        contributions, before = chain([first], contributions), self.model
        if blend is not None:
            before = replace(before, adapter=before.adapter.replace(blend.sent))
            contributions = (replace(c, staleness=0) for c in contributions)
        model = self._applied(before, contributions)
        self._check(model)
        if blend is None:
            stalest = max(self.number - visit.version for visit in commit.accepted)
            old, new = before.adapter.vector, model.adapter.vector
            step = self.optimizer.step(self._optimizer_state, old, new, stalest)
            vector, self._optimizer_state = returned.stepped(self.optimizer, step, len(old))
            self._refuse_infinite("server_optimizer", self.optimizer, vector, "lower server_optimizer.lr")
        else:
            vector, protocol = blend.mix(commit.accepted, model.adapter.vector), self.plan.parts.protocol
            self._refuse_infinite("protocol", protocol, vector, "have its blends return finite numbers")
        vector = self.private_parts.untouched(vector)
        if vector is not model.adapter.vector:
            model = replace(model, adapter=model.adapter.replace(vector))
        self.model = model
        self.number += 1

    def _applied(self, before: ServerModel, contributions: Iterator[Contribution]) -> ServerModel:
        """Return the model that the rule makes of another one and what has come in; all of it is read."""
        try:
            everything = contributions if self.rule.one_pass else list(contributions)
            result = self.rule.apply(self.state, before, everything)
            model, self.state = returned.applied(self.rule, result, before.adapter.layout.size)
            # what the rule did not look at was committed all the same: it is read, checked and counted
            deque(contributions, maxlen=0)
        except Exception as problem:
            self._blame(f"failed at version {self.number + 1}", problem)
        return model

    def make_blank(self, commit: Taken) -> None:
        """Make the next version of a timeline-only run, of what is accepted; bytes may depend on what the rule does."""
        if self.rule.traits.history:
            self.make(commit, None)
            return
        if commit.accepted:
            self.number += 1

    def _check(self, model: ServerModel) -> None:
        """Raise if a model is infinite, or its base moved otherwise than the rule's traits say."""
        name, version = f"aggregator {self.rule.kind}", self.number + 1
        moved = 0 if model.base is None else model.base.version
        due = version if self.rule.traits.moves_base else 0
        if moved != due:
            what = f"made version {version} with a base of version {moved}, its traits say {due}"
            raise RunError(message(name, what))
        finite = bool(np.all(np.isfinite(model.adapter.vector)))
        if model.base is not None and model.base is not self.model.base:
            finite &= bool(np.all(np.isfinite(model.base.vector)))
        vector = model.adapter.vector if finite else np.array([np.inf], np.float32)
        self._refuse_infinite("aggregator", self.rule, vector, "lower aggregator.server_lr or local.lr")

    def _refuse_infinite(self, block: str, component: Component, vector: Vector, fix: str) -> None:
        returned.refuse_infinite(block, component, vector, self.number + 1, fix)

    def _blame(self, what: str, problem: Exception) -> NoReturn:
        """Name the rule in whatever it raised; SimPy would rebuild it from its args and may lose the message."""
        if isinstance(problem, FedsimError):
            raise problem
        place, where = place_in(problem), f"aggregator {self.rule.kind}"
        said = f"{what}: {type(problem).__name__}: {problem}"
        raise RunError(message(where if place is None else f"{where} ({place})", said)) from problem
