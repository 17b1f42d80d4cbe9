"""Aggregation rules: pure functions of (state, model, contributions).

A rule is a frozen component with `init`, `offer` and `apply`: its first state, what one client gets
and sends, and the next model. Sums run in a fixed order (client, then visit) with float64 accumulators.

Contributions come one at a time, as workers finish them, so that a round of 10,000 fits in memory:
a rule with `one_pass = True` gets an iterator and keeps none of them. Others get a list.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from fedsim.adapter import Adapter, Layout, Vector
from fedsim.base import Base
from fedsim.kept import NOTHING_KEPT, Kept

Trains = Literal["AB", "A", "B"]


@dataclass(frozen=True)
class Traits:
    """What holds for a rule whatever its settings; the table of combinations is made of it.

    Attributes:
        exact: the product of the new model is the weighted mean of the clients' products.
        unequal_ranks: clients may have different ranks.
        moves_base: every commit changes the frozen weights; the base's version is the model's.
        refactors: factors of two versions are not comparable: deltas across versions mean nothing.
        personal: clients keep a part for themselves: there is no single global model. Such a rule may have
            `own(model, client) -> Vector`, the client's whole model, if that is not what is kept.
        optimizer: a server optimiser may move the shared adapter instead, by steps of its factors.
        compressible: sparse deltas of the factors, with error feedback, make sense.
        stale: has a meaning for updates of earlier versions (asynchronous protocols).
        full_model: also averages whole models (`lora: {full: true}`).
        history: what travels depends on earlier commits (a phase, a stack, a catch-up with a moved base). A
            timeline-only run then applies the rule to contributions in which nobody has moved, so bytes must
            follow from ranks, counts, versions and phases alone.
    """

    exact: bool
    unequal_ranks: bool
    moves_base: bool = False
    refactors: bool = False
    personal: bool = False
    optimizer: bool = True
    compressible: bool = True
    stale: bool = True
    full_model: bool = False
    history: bool = True


@dataclass(frozen=True)
class Payload:
    """What travels between server and client in one direction, and nothing besides.

    Attributes:
        arrays: names as in `Layout.slices` (`NAME.lora_A`, ...); None: every array of the layout.
        rank: slots of each factor that are sent; None: the layout's.
        extra_floats: more numbers, a catch-up with a moved base for one; float32 whatever the wire format.
    """

    arrays: tuple[str, ...] | None = None
    rank: int | None = None
    extra_floats: int = 0

    def floats(self, layout: Layout) -> int:
        """Return the number of floats, the extra ones included."""
        names = layout.slices if self.arrays is None else self.arrays
        return self.extra_floats + sum(math.prod(self.shape(layout, name)) for name in names)

    def shape(self, layout: Layout, name: str) -> tuple[int, ...]:
        """Return the shape in which an array travels: its slots cut to `rank`; whole tensors stay whole."""
        shape = layout.slices[name][1]
        axis = layout.slot_axes[name]
        if self.rank is None or axis is None:
            return shape
        return (*shape[:axis], min(self.rank, shape[axis]), *shape[axis + 1 :])


WHOLE = Payload()
"""Every array at the layout's rank."""
NOTHING = Payload(arrays=())
"""Not a byte."""


@dataclass(frozen=True)
class Ask:
    """One client that is about to be asked.

    Attributes:
        client, visit: who, and its how-many-th visit (from 0).
        rank: slots of each factor that it will train; at most the layout's.
        scale: what it multiplies B A with, unless the layout's modules differ in it.
        last_seen: version of the model that it downloaded last; None: it has none yet.
    """

    client: int
    visit: int
    rank: int
    scale: float
    last_seen: int | None


@dataclass(frozen=True)
class Offer:
    """What a client gets, what it sends back, and what it may move.

    Attributes:
        start: where it starts, in the layout's shape; slots from `Ask.rank` on are zero.
        down, up: what travels for it.
        trains: which factors it moves.
        phase: the rule's own tag; comes back with the contribution.
        tail: what is added to the client's objective (`Job.tail`).
    """

    start: Vector = field(repr=False)
    down: Payload
    up: Payload
    trains: Trains = "AB"
    phase: str = ""
    tail: tuple[float, int] | None = None


@dataclass(frozen=True)
class Contribution:
    """One landed update, as a rule sees it.

    Attributes:
        client, visit: whose, and which visit; contributions come sorted by these, at least one.
        start, end: the snapshot this client trained from and where it ended (float32 vectors).
        weight: number of training examples.
        staleness: versions committed between dispatch and this commit.
        version: the version it was dispatched from.
        rank, scale: slots that it trained, and what it multiplied B A with.
        phase, trains: as offered.
        base, base_version: the frozen weights it trained on; None: the pretrained ones, version 0.
    """

    client: int
    visit: int
    start: Vector = field(repr=False)
    end: Vector = field(repr=False)
    weight: float
    staleness: int
    version: int
    rank: int
    scale: float
    phase: str = ""
    base_version: int = 0
    trains: Trains = "AB"
    base: Base | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ServerModel:
    """The server's model: the adapter, and what rules that move the base or keep parts at home need.

    Attributes:
        adapter: the shared adapter.
        base: how the frozen weights have changed; None: not at all.
        personal: what clients keep for themselves.
    """

    adapter: Adapter
    base: Base | None = None
    personal: Kept = NOTHING_KEPT


def own(rule: Any, model: ServerModel, client: int) -> Vector | None:
    """Return the whole model of a client of its own, None if it has the shared one."""
    if not rule.traits.personal:
        return None
    found: Vector | None = rule.own(model, client) if hasattr(rule, "own") else model.personal.get(client)
    return found


class Aggregator(Protocol):
    """What the server asks of a rule."""

    traits: ClassVar[Traits]
    one_pass: ClassVar[bool]

    def init(self, model: ServerModel) -> Any:
        """Return the rule's first state."""
        ...

    def offer(self, state: Any, model: ServerModel, ask: Ask) -> Offer:
        """Return what this client starts from and what travels for it; pure."""
        ...

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the next model and state; pure."""
        ...
