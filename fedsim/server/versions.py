"""The server's model from version to version: what a client is sent of it, and what updates make of it.

No clock here: `fedsim.server.server` says when. A version is made by the rule, then by the server's optimiser (or a
protocol's own blend); what is sent goes through the wire and gets the client's private part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.adapters.moved_base import Base
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, own
from fedsim.clock.plan import Plan
from fedsim.errors import FedsimError, RunError, message
from fedsim.jobs import Job
from fedsim.network.coding import Link
from fedsim.server.private_parts import Privates

if TYPE_CHECKING:
    from fedsim.clock.visit import Visit

    Blend = Callable[[Sequence[Visit], Vector, Vector], Vector]
    """(visits taken, adapter before, adapter as the rule would have it) -> adapter."""


@dataclass(frozen=True)
class Sent:
    """What a visit left with.

    Attributes:
        ask, offer: whom the rule was asked about, and what it offered.
        start: where the client starts as far as the server knows: what is private is not in it.
        base: the frozen weights that it trains on.
        job: its training, vectors as they are; the client's own start is in it.
        common: whether many clients of this version start there.
    """

    ask: Invitation
    offer: Offer
    start: Vector
    base: Base | None
    job: Job
    common: bool


class Versions:
    """The present model and all that changes with it.

    Attributes:
        model, state: the server's model, and what the rule remembers.
        number: commits so far.
        rule: the aggregation rule.
    """

    def __init__(self, plan: Plan, model: ServerModel, privates: Privates) -> None:
        """Start at version 0."""
        experiment, layout = plan.experiment, model.adapter.layout
        self.plan, self.privates, self.model, self.number = plan, privates, model, 0
        self.rule: Any = experiment.aggregator
        self.state: Any = self.rule.init(model)
        self._optimizer: Any = experiment.server_optimizer
        self._optimizer_state = self._optimizer.init(layout.size)
        self._link = Link(experiment.wire, layout, experiment.seed, refactors=self.rule.traits.refactors)
        self.scale = layout.modules[0].scale if layout.modules else 1.0

    # what is sent -------------------------------------------------------------------------------

    def ask(self, client: int, visit: int, last_seen: int | None, rank: int | None) -> Invitation:
        """Return who is asked; `rank` is the most slots, None: the client's own."""
        found = self.plan.rank(client, rank)
        scale = self.plan.experiment.lora.scale_of(found) if found else self.scale
        return Invitation(client, visit, found, scale, last_seen)

    def offer(self, ask: Invitation) -> Offer:
        """Return what the rule offers, less what is private."""
        try:
            offer: Offer = self.rule.offer(self.state, self.model, ask)
        except Exception as problem:
            self._blame("offers", problem)
        return self.privates.offer(offer)

    def sent(self, ask: Invitation, offer: Offer, steps: int | None = None) -> Sent:
        """Return what an offer is on the client's side of the wire, and the training it is for."""
        start = self._link.down(self.number, offer.start, offer.down)
        composed = self.privates.start(ask.client, start)
        common = self.model.adapter.holds(offer.start) and composed is start
        return Sent(ask, offer, start, self.model.base, self._job(ask, offer, composed, steps), common)

    def _job(self, ask: Invitation, offer: Offer, start: Vector, steps: int | None) -> Job:
        smaller = ask.rank < self.model.adapter.layout.rank
        return Job(
            ask.client,
            ask.visit,
            start,
            self.plan.local(ask.client, steps).at_version(self.number),
            self.plan.experiment.seed,
            rank=ask.rank if smaller else None,
            trains=offer.trains,
            scale=ask.scale if smaller else None,
            base=self.base,
            tail=offer.tail,
        )

    @property
    def base(self) -> Vector | None:
        """The change of the frozen weights; None as long as there is none."""
        base = self.model.base
        return None if base is None or not base.version else base.vector

    def own(self) -> Callable[[int], Vector] | None:
        """Return what gives a client's own model of this version; None while all have the shared one."""
        if not len(self.model.personal) and not (self.privates.waits and len(self.privates.kept)):
            return None
        model = self.model

        def vector(client: int) -> Vector:
            kept = own(self.rule, model, client)
            return self.privates.start(client, model.adapter.vector if kept is None else kept)

        return vector

    # what comes back ----------------------------------------------------------------------------

    def received(self, visit: Visit, sent: Sent, end: Vector) -> Vector:
        """Return where a client ended as far as the server may know: what is private stays, the rest is coded."""
        frame = (visit.version, sent.offer.phase)
        found = self._link.up(visit.client, visit.visit, sent.job.start, end, sent.offer.up, frame=frame)
        return self.privates.landed(visit.client, sent.ask.rank, sent.start, found)

    def contribution(self, visit: Visit, sent: Sent, end: Vector, weight: float) -> Contribution:
        """Return an update as the rule sees it."""
        return Contribution(
            client=visit.client,
            visit=visit.visit,
            start=sent.start,
            end=end,
            weight=weight,
            staleness=self.number - visit.version,
            version=visit.version,
            rank=sent.ask.rank,
            scale=sent.ask.scale,
            phase=sent.offer.phase,
            base_version=0 if sent.base is None else sent.base.version,
            trains=sent.offer.trains,
            base=sent.base,
        )

    def make(
        self, contributions: Iterator[Contribution], taken: Sequence[Visit], blend: Blend | None
    ) -> None:
        """Make the next model, if there is a contribution: the rule, then `blend` or the server's optimiser.

        Args:
            contributions: one by one; the visits they come from are in `taken` once they were read.
            taken: see above.
            blend: makes the shared adapter of the one before and the rule's, instead of an optimiser.
        """
        first = next(contributions, None)
        if first is None:
            return
        everybody = chain([first], contributions)
        given = everybody if self.rule.one_pass else list(everybody)
        try:
            model, self.state = self.rule.apply(self.state, self.model, given)
            deque(everybody, maxlen=0)  # what the rule did not look at was committed all the same
        except Exception as problem:
            self._blame(f"failed at version {self.number + 1}", problem)
        before, after = self.model.adapter.vector, model.adapter.vector
        if blend is None:
            stalest = max(self.number - visit.version for visit in taken)
            vector, self._optimizer_state = self._optimizer.step(
                self._optimizer_state, before, after, stalest
            )
        else:
            vector = blend(taken, before, after)
        if vector is not after:
            model = replace(model, adapter=model.adapter.replace(vector))
        self._check(model)
        self.model = model

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
        if not finite:
            fix = "lower aggregator.server_lr or local.lr"
            raise RunError(message(name, f"made version {version} infinite from finite updates", fix=fix))

    def _blame(self, what: str, problem: Exception) -> NoReturn:
        """Name the rule in whatever it raised; SimPy would rebuild it from its args and may lose the message."""
        if isinstance(problem, FedsimError):
            raise problem
        said = f"{what}: {type(problem).__name__}: {problem}"
        raise RunError(message(f"aggregator {self.rule.kind}", said)) from problem
