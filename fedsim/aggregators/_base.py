"""What a rule is: its traits, what it is asked, what it offers, what it gets back, and the model it moves."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedsim.adapters.adapter import Adapter, Layout, Trains, Vector
from fedsim.adapters.moved_base import Base
from fedsim.adapters.payload import Payload
from fedsim.component import Component
from fedsim.files.client_vectors import NO_VECTORS, ClientVectors


@dataclass(frozen=True)
class Traits:
    """What holds for a rule whatever its settings; the table of combinations is made of it.

    Attributes:
        exact: the product of the new model is the weighted mean of the clients' products.
        unequal_ranks: clients may have different ranks.
        unequal_depths: clients may train the adapters of their last layers only (`Contribution.depth`), each its own number:
            a layer is then moved by those that trained it.
        moves_base: every commit changes the frozen weights; the base's version is the model's.
        refactors: factors of two versions are not comparable: deltas across versions mean nothing.
        personal: clients keep a part for themselves: there is no single global model. Such a rule may have
            `client_model`, the client's whole model, if that is not what is kept.
        optimizer: a server optimiser may move the shared adapter instead, by steps of its factors.
        compressible: sparse deltas of the factors, with error feedback, make sense.
        stale: has a meaning for updates of earlier versions (asynchronous protocols).
        full_model: also averages whole models (`lora: {full: true}`).
        history: what travels depends on earlier commits (a phase, a stack, a catch-up with a moved base). A
            timeline-only run then applies the rule to contributions in which nobody has moved, so bytes must
            follow from ranks, counts, versions and phases alone.
        beside: averages, number by number, what is trained beside the factors too: magnitudes (DoRA), biases, modules
            that are trained whole.
        unequal_modules: modules may differ in rank and scale (`lora.rank_pattern`, `lora.alpha_pattern`).
        draws_a: clients draw the first A from a seed, so that version 0 is LoRA's own initialisation.
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
    unequal_depths: bool = False
    beside: bool = False
    unequal_modules: bool = False
    draws_a: bool = False


@dataclass(frozen=True)
class Invitation:
    """One client that is about to be asked.

    Attributes:
        client, visit: who, and its how-many-th visit (from 0).
        rank: slots of each factor that it will train; at most the layout's.
        scale: what it multiplies B A with, unless the layout's modules differ in it.
        last_seen: version of the model that it downloaded last; None: it has none yet.
        own_rank: slots that are its own (`lora.rank_by`), of which a protocol (TimelyFL) or a lack of memory
            (`memory.when_short: rank`) may leave it fewer this time; None: `rank`.
        last_rank: slots that it downloaded last; None: none yet, or as many as now.
        depth: layers, counted from the output, whose adapters it has and trains; None: all. A rule need not look at it:
            what it offers of the layers below does not travel, and is zero in the start.
    """

    client: int
    visit: int
    rank: int
    scale: float
    last_seen: int | None
    own_rank: int | None = None
    last_rank: int | None = None
    depth: int | None = None


@dataclass(frozen=True)
class Offer:
    """What a client gets, what it sends back, and what it may move.

    Attributes:
        start: where it starts, in the layout's shape; slots from `Invitation.rank` on are zero.
        down, up: what travels for it.
        trains: which factors it moves.
        phase: the rule's own tag; comes back with the contribution.
        slot_penalty: what is added to the client's objective (`Job.slot_penalty`).
    """

    start: Vector = field(repr=False)
    down: Payload
    up: Payload
    trains: Trains = "AB"
    phase: str = ""
    slot_penalty: tuple[float, int] | None = None


@dataclass(frozen=True)
class Contribution:
    """One landed update, as a rule sees it.

    Attributes:
        client, visit: whose, and which visit; contributions come sorted by these, at least one.
        start, end: the snapshot this client trained from and where it ended (float32 vectors).
        examples: n_k, the training examples in the client's shard, whatever this visit used of them (FedAvg's n_k).
        staleness: versions committed between dispatch and this commit.
        version: the version it was dispatched from.
        rank, scale: slots that it trained, and what it multiplied B A with.
        phase, trains: as offered.
        base, base_version: the frozen weights it trained on; None: the pretrained ones, version 0.
        own_rank: slots that are the client's own: about those from `rank` on it was not asked this time, so it
            says nothing about them; about those from here on it never says anything. None: `rank`.
        used: different examples that its steps went through; NaN: not known.
        effective_steps: how far its steps carry a gradient that does not change, in steps of `local.lr` (FedNova's
            |a_k|_1, `fedsim.aggregators._steps`); the number of steps where each counts alike.
        depth: layers, counted from the output, whose adapters it had; about those below it says nothing. None: all.
    """

    client: int
    visit: int
    start: Vector = field(repr=False)
    end: Vector = field(repr=False)
    examples: float
    staleness: int
    version: int
    rank: int
    scale: float
    phase: str = ""
    base_version: int = 0
    trains: Trains = "AB"
    base: Base | None = field(default=None, repr=False)
    own_rank: int | None = None
    used: float = math.nan
    effective_steps: float = 1.0
    depth: int | None = None

    @property
    def whole_rank(self) -> int:
        """Slots that are the client's own."""
        return self.rank if self.own_rank is None else max(self.rank, self.own_rank)


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
    personal: ClientVectors = NO_VECTORS

    @property
    def change(self) -> Vector | None:
        """The change of the frozen weights, as a vector; None as long as there is none."""
        return None if self.base is None or not self.base.version else self.base.vector


@dataclass(frozen=True)
class Setting:
    """What of an experiment decides how much its updates count.

    Attributes:
        fedbuff: the protocol is FedBuff's, which divides a sum of discounted moves by their number K.
        chosen_by_size: the sampler asks clients in proportion to their examples already, so each that was asked
            counts alike (power-of-choice, arXiv 2010.01243, equation 2).
    """

    fedbuff: bool = False
    chosen_by_size: bool = False


class Aggregator(Component):
    """What the server asks of a rule: its first state, what one client gets and sends, and the next model.

    Attributes:
        traits: what holds for the rule whatever its settings.
        one_pass: whether `apply` gets an iterator, and not a list.
        reads_values: whether values decide whom the server asks or when: there is no timeline without them then.
    """

    traits: ClassVar[Traits]
    one_pass: ClassVar[bool] = False
    reads_values: ClassVar[bool] = False

    @property
    def votes_zero(self) -> bool:
        """Whether a client without a slot says 0 about it, so that slots that few have shrink by themselves."""
        return False

    @property
    def drops_updates(self) -> bool:
        """Whether it leaves out updates that a commit holds, by its own settings."""
        return False

    def suited(self, setting: Setting) -> Aggregator:
        """Return the rule with its `auto` settings decided for where it is used; itself if there is nothing to decide."""
        return self

    @abstractmethod
    def init(self, model: ServerModel) -> Any:
        """Return the rule's first state."""

    @abstractmethod
    def offer(self, state: Any, model: ServerModel, invitation: Invitation) -> Offer:
        """Return what this client starts from and what travels for it; pure."""

    @abstractmethod
    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the next model and state; pure."""

    def dump(self, state: object) -> object:
        """Return the state as explicit data for a checkpoint: what `fedsim.files.checkpoint.plain_values` holds.

        The default is the state itself, for states that are made of numbers, text, arrays, lists, tuples, dicts, frozen
        dataclasses and named tuples.
        """
        return state

    def load(self, data: object) -> object:
        """Return the state that `dump` gave these data of."""
        return data

    def client_model(self, model: ServerModel, client: int) -> Vector | None:
        """Return a client's whole model of its own, None if it has the shared one; pure."""
        return model.personal.get(client) if self.traits.personal else None

    def kept_floats(self, layout: Layout) -> int:
        """Return how many floats a client keeps for itself under this rule, at most."""
        return layout.size if self.traits.personal else 0

    def commit_flops(self, shapes: Sequence[tuple[int, int]], rank: int, ranks: Sequence[int]) -> float:
        """Return the operations of a commit beyond the mean of the factors, for `server.compute`; by sizes alone.

        Args:
            shapes: (outputs, inputs) of every matrix with an adapter.
            rank: the server's.
            ranks: of each update.
        """
        return 0.0
