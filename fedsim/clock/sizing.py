"""What a visit computes, holds and sends: model x rank x tokens on a device with so much memory.

Equal visits share one object: an update then costs the engine a third less time. Nothing here asks for a client's
resolved rank, so that ranks can be resolved with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from fedsim.adapters.adapter import Adapter, Vector
from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Invitation, Offer, ServerModel
from fedsim.aggregators._depth import offered
from fedsim.clock.components import Parts
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig
from fedsim.cost.batches import Batches
from fedsim.cost.formulas import expanded_bytes, layer_passes, moved_bytes, pass_flops, train_flops
from fedsim.cost.memory.model import PLAIN, MemoryModel
from fedsim.cost.memory.plan import MemoryPlan, plan_memory, with_depth
from fedsim.cost.shape import ModelShape, adapter_bytes, with_depth_share, with_rank_share
from fedsim.cost.work import Work
from fedsim.jobs import Task
from fedsim.network.base import Direction
from fedsim.network.messages import bytes_of, charged_bytes, coding_bytes

MOST_SENT = 4096
"""Works with their messages that are remembered."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a device trains the model, the FLOPs of a token then, and its adapters' rank.

    `flops_per_place` is what a token costs more where its sequence is one token longer.
    """

    memory: MemoryPlan
    flops_per_token: float
    rank: int
    flops_per_place: float = 0.0

    def flops(self, batches: Batches, sequence: float | None = None) -> float:
        """Return the FLOPs of a training, its sequences of so many tokens on average (None: the model's).

        They are those of the tokens, and of each pass (`fedsim.cost.formulas.pass_flops`).
        """
        each = self.flops_per_token
        if sequence is not None:
            each += self.flops_per_place * (sequence - self.memory.shape.sequence)
        return float(batches.tokens) * each + self.passes(batches) * pass_flops(self.memory.shape)

    def passes(self, batches: Batches) -> int:
        """Return the forward and backward passes of a training."""
        return batches.cut(self.memory.shape.sequence, self.memory.shape.batch)


class Sizing:
    """Work, memory and bytes of visits of one experiment.

    Keys of what is remembered hold usable memory as it stands in a table's row, and the name of the program's memory
    model: devices of one row share theirs.

    Attributes:
        shape: the model that the clock charges, at the server's rank.
        charged: whether that is a declared model, and not the one that trains.
    """

    def __init__(self, experiment: Experiment, parts: Parts, task: Task, shape: ModelShape) -> None:
        """Start with nothing remembered."""
        self._experiment, self._parts, self._task, self.shape = experiment, parts, task, shape
        charge = parts.task.charge(full=experiment.lora.full)
        self.charged = charge is not None
        self._tokens_declared = None if charge is None else charge.visit_tokens
        self._plans: dict[tuple[float, int, str, int | None], TrainingPlan] = {}
        self._works: dict[
            tuple[Batches, Batches | None, float | None, float, int, str, int | None], Work
        ] = {}
        self._sent: dict[tuple[int, Payload, Payload], tuple[Work, Work]] = {}
        self._payload_bytes: dict[tuple[Payload, Direction], tuple[int, int]] = {}

    @property
    def whole_tokens_declared(self) -> bool:
        """Whether the tokens of a whole visit are declared, whatever trains."""
        return self._tokens_declared is not None

    @cached_property
    def adapter_bytes(self) -> int:
        """Bytes of one whole adapter as charged, in float32."""
        return adapter_bytes(self.shape) if self.charged else 4 * self._task.layout.size

    # how a device trains ------------------------------------------------------------------------

    def training_plan(
        self,
        usable_bytes: float,
        rank: int | None = None,
        model: MemoryModel = PLAIN,
        depth: int | None = None,
    ) -> TrainingPlan:
        """Return how a device with so much memory, whose program keeps so much of it, trains adapters of a rank (None: the server's).

        As asked; else by `memory.when_short`, which may make the rank smaller still; else not at all. The adapters are in
        the last `depth` layers that carry some (None: in all).
        """
        wanted = self._task.layout.rank if rank is None else rank
        key = (usable_bytes, wanted, model.name, depth)
        if key not in self._plans:
            self._plans[key] = self._training_plan(usable_bytes, wanted, model, depth)
        return self._plans[key]

    def _training_plan(
        self, usable_bytes: float, rank: int, model: MemoryModel, depth: int | None
    ) -> TrainingPlan:
        layout = self._task.layout
        whole, shape = layout.rank, self.shape
        if depth is not None:
            shape = with_depth_share(shape, depth, len(layout.blocks))
        shape = with_rank_share(shape, rank, whole) if whole else shape
        shape = self._parts.personal.held(shape)
        memory = plan_memory(shape, usable_bytes, self._experiment.memory.measures, model)
        if depth is not None and memory.fits:
            memory = replace(memory, words=with_depth(memory.words, depth))
        layered = self._experiment.compute.flops == "layers"
        left = max(1, rank * memory.shape.rank // shape.rank) if rank and shape.rank else rank
        each = train_flops(memory.shape, 1, layered=layered)
        longer = replace(memory.shape, sequence=memory.shape.sequence + 1)
        return TrainingPlan(memory, each, left, train_flops(longer, 1, layered=layered) - each)

    def fits(
        self, usable_bytes: float, rank: int, model: MemoryModel = PLAIN, depth: int | None = None
    ) -> bool:
        """Return whether training at this rank and depth fits, by all of `memory.when_short` but a smaller rank."""
        plan = self.training_plan(usable_bytes, rank, model, depth)
        return plan.memory.fits and plan.rank == rank

    # what a visit is ----------------------------------------------------------------------------

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Return the tokens charged for a training; `charge_as` may declare those of a whole visit."""
        whole = self._tokens_declared
        if whole is not None and local is self._experiment.local:
            return whole
        trained = self._task.tokens(client, local)
        if whole is None:
            return trained
        return max(1, round(whole * trained / self._task.tokens(client, self._experiment.local)))

    def batches(self, client: int, local: LocalConfig) -> Batches:
        """Return the steps that are charged for a training; of `tokens_per_visit`, tokens alone."""
        tokens = self.tokens(client, local)
        if self.whole_tokens_declared:
            return Batches(tokens)
        return Batches(tokens, local.batches_over(self._task.examples(client)), by_tokens=self.charged)

    def mean_sequence(self, client: int) -> float | None:
        """Return how long the sequences of a client are where its tokens are those that are charged; None: the model's."""
        return None if self.whole_tokens_declared else self._task.mean_sequence(client)

    def work(
        self,
        client: int,
        local: LocalConfig,
        usable_bytes: float,
        rank: int,
        offer: Offer,
        model: MemoryModel = PLAIN,
        depth: int | None = None,
    ) -> Work:
        """Return what a visit computes and holds, with what an offer really sends both ways.

        Args:
            client: who.
            local: its training.
            usable_bytes: its memory.
            rank: slots of each factor that it trains.
            offer: the rule's. Under `charge_as` a payload's numbers are charged as many times as the declared
                adapter has more numbers.
            model: what its program keeps in memory.
            depth: layers that it trains, counted from the output; None: all.
        """
        computed = self._computed(client, local, (usable_bytes, rank, model, depth))
        key = (id(computed), offer.down, offer.up)
        held = self._sent.get(key)
        if held is None or held[0] is not computed:
            coded = self.coding_bytes(offer.down, "down") + self.coding_bytes(offer.up, "up")
            down, up = self.payload_bytes(offer.down, "down"), self.payload_bytes(offer.up, "up")
            if len(self._sent) >= MOST_SENT:
                self._sent.clear()
            held = self._sent[key] = computed, _sending(computed, *down, *up, coded)
        return held[1]

    def _computed(
        self, client: int, local: LocalConfig, trained: tuple[float, int, MemoryModel, int | None]
    ) -> Work:
        """Return a training's work, with what the client trains beside it (`personal`); nothing is sent yet."""
        personal = self._parts.personal
        second_local = personal.alongside(local)
        batches = self.batches(client, local)
        second = None if second_local is None else self.batches(client, second_local)
        usable_bytes, rank, model, depth = trained
        sequence = self.mean_sequence(client)
        key = (batches, second, sequence, usable_bytes, rank, model.name, depth)
        if key not in self._works:
            plan = self.training_plan(*trained)
            work = self._alone(batches, sequence, plan)
            if second is not None:
                work = personal.charged(work, self._alone(second, sequence, plan), plan.memory.shape)
            self._works[key] = work
        return self._works[key]

    def _alone(self, batches: Batches, sequence: float | None, plan: TrainingPlan) -> Work:
        shape, passes = plan.memory.shape, plan.passes(batches)
        updates = batches.updates(self.shape.sequence, self.shape.batch)
        copied = self._experiment.compute.dequantisation == "copy"
        return Work(
            down_bytes=0,
            up_bytes=0,
            flops=plan.flops(batches, sequence),
            memory_bytes=plan.memory.memory_bytes,
            tokens=batches.tokens,
            serialized_down_bytes=0,
            serialized_up_bytes=0,
            steps=passes,
            moved_bytes=moved_bytes(shape, passes, updates, copied=copied),
            layer_passes=passes * layer_passes(shape),
            expanded_bytes=passes * expanded_bytes(shape),
            memory_plan=plan.memory.words,
        )

    def payload_bytes(self, payload: Payload, direction: Direction) -> tuple[int, int]:
        """Return a payload's bytes as charged and as serialised."""
        key = (payload, direction)
        if key not in self._payload_bytes:
            wire, layout = self._experiment.wire, self._task.layout
            real = bytes_of(wire, layout, payload, direction)
            charged = charged_bytes(wire, layout, payload, direction, self.adapter_bytes // 4)
            self._payload_bytes[key] = (charged if self.charged else real, real)
        return self._payload_bytes[key]

    def coding_bytes(self, payload: Payload, direction: Direction) -> float:
        """Return the bytes through a client's memory that (de)coding a payload takes, if `compute.codecs` charges it."""
        if not self._experiment.compute.codecs:
            return 0.0
        wire, layout = self._experiment.wire, self._task.layout
        return coding_bytes(wire, layout, payload, direction, self.adapter_bytes // 4)

    # what a rule would send ---------------------------------------------------------------------

    def first_offer(self, client: int, rank: int, depth: int | None = None) -> Offer:
        """Return what the rule would offer a client of this rank and depth at version 0; no values in it."""
        model, state = self._blank
        rule, scale = self._parts.aggregator, self._experiment.lora.scale_of(max(rank, 1))
        invitation = Invitation(client, 0, rank, scale, None, depth=depth)
        return offered(rule, state, model, invitation)

    @cached_property
    def _blank(self) -> tuple[ServerModel, object]:
        """A model with no values in it, and the rule's first state."""
        model = ServerModel(Adapter(self._task.layout, self.zeros))
        return model, self._parts.aggregator.init(model)

    @cached_property
    def zeros(self) -> Vector:
        """A vector of the layout's size with no values in it, (size,) float32."""
        return np.zeros(self._task.layout.size, np.float32)


@lru_cache(maxsize=4096)
def _sending(work: Work, down: int, serialized_down: int, up: int, serialized_up: int, coded: float) -> Work:
    """Return the work with other bytes each way, as charged and as serialised: one object for equal visits."""
    return replace(
        work,
        down_bytes=down,
        up_bytes=up,
        serialized_down_bytes=serialized_down,
        serialized_up_bytes=serialized_up,
        coded_bytes=coded,
    )
