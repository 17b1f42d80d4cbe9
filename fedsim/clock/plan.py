"""From an experiment to a plan: tables read, data split, ranks resolved, every visit's work known.

Whatever can be refused is refused here; no weights are loaded and nothing has started.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Adapter
from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Ask, Offer, ServerModel
from fedsim.clock import ranks
from fedsim.clock.auto import context_of, resolved
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig
from fedsim.cost.declared import Charge
from fedsim.cost.formulas import moved_bytes, train_flops
from fedsim.cost.memory_plan import MemoryPlan, plan_memory
from fedsim.cost.shape import ModelShape, adapter_bytes, with_rank_share
from fedsim.cost.work import Work
from fedsim.devices.measured_speeds import with_speeds
from fedsim.devices.population import Population, draw
from fedsim.errors import ExperimentError, message
from fedsim.jobs import Task
from fedsim.network.base import Direction
from fedsim.network.messages import bytes_of, charged_bytes
from fedsim.tasks._base import built

GROUND = ("seed", "population", "task", "lora", "local", "compute", "numerics", "runtime")
"""Blocks that population, data and layout depend on."""


@dataclass(frozen=True)
class Way:
    """How a device trains the model, the FLOPs of a token then, and its adapters' rank."""

    memory: MemoryPlan
    flops_per_token: float
    rank: int

    def flops(self, tokens: int) -> float:
        """Return the FLOPs of training on so many tokens."""
        return float(tokens) * self.flops_per_token


@dataclass(frozen=True)
class Plan:
    """An experiment with everything that can be refused already built: nothing has started.

    Attributes:
        experiment: `auto` settings resolved.
        population, task: as drawn and split.
        shape: the model that the clock charges (the declared one under `charge_as`), at the server's rank.
    """

    experiment: Experiment
    population: Population
    task: Task
    shape: ModelShape

    def alike(self, experiment: Experiment) -> Plan:
        """Return the plan of an experiment with the same seed, population, task, `lora`, `local`, `compute`."""
        return replace(self, experiment=resolved(experiment, self.task))

    # what a visit costs -------------------------------------------------------------------------

    def local(self, client: int, steps: int | None = None) -> LocalConfig:
        """Return what a client does in a visit of `steps` optimiser steps, fewer or more than a whole one (None)."""
        local = self.experiment.local
        return local if steps is None or steps == self.steps(client) else local.partial(max(1, steps))

    def steps(self, client: int) -> int:
        """Return the optimiser steps of a whole visit of a client."""
        return self.experiment.local.steps_over(self.task.examples(client))

    def tokens(self, client: int, steps: int | None = None) -> int:
        """Return the tokens charged for a visit of a client; `charge_as` may declare those of a whole one."""
        return self._tokens(client, self.local(client, steps))

    def _tokens(self, client: int, local: LocalConfig) -> int:
        trained, whole = self.task.tokens(client, local), self._tokens_charged
        if whole is None:
            return trained
        if local is self.experiment.local:
            return whole
        return max(1, round(whole * trained / self.task.tokens(client, self.experiment.local)))

    @cached_property
    def _tokens_charged(self) -> int | None:
        """Tokens of a whole visit, if `charge_as` declares them."""
        return None if self._charge is None else self._charge.visit_tokens

    def work(self, client: int, steps: int | None = None, rank: int | None = None) -> Work:
        """Return what a visit of a client computes and holds; a whole adapter goes both ways, until `sent`.

        Args:
            client: who.
            steps: optimiser steps, if not those of a whole visit.
            rank: slots of each factor, if fewer than the client's.
        """
        return self._work(client, self.local(client, steps), *self._room_and_rank(client, rank))

    def at_rank(self, client: int, rank: int) -> Work:
        """Return what a whole visit would be if the client had this rank; asks no client's resolved rank."""
        return self._work(
            client, self.experiment.local, self.population.profile(client).usable_memory_bytes, rank
        )

    def _work(self, client: int, local: LocalConfig, usable_bytes: float, rank: int) -> Work:
        """Return a training's work, with what the client trains beside it (`personal`)."""
        personal: Any = self.experiment.personal
        beside = personal.alongside(local)
        tokens = self._tokens(client, local)
        second = None if beside is None else self._tokens(client, beside)
        key = (tokens, second, usable_bytes, rank)
        if key not in self._works:
            way = self.way(usable_bytes, rank)
            work = self._alone(tokens, way)
            if second is not None:
                work = personal.charged(work, self._alone(second, way), way.memory.shape)
            self._works[key] = work
        return self._works[key]

    @cached_property
    def _works(self) -> dict[tuple[int, int | None, float, int], Work]:
        """Work by tokens, those of the second training, usable memory and rank."""
        return {}

    def _alone(self, tokens: int, way: Way) -> Work:
        shape = way.memory.shape
        passes = math.ceil(tokens / (shape.sequence * shape.batch))
        updates = math.ceil(tokens / (self.shape.sequence * self.shape.batch))
        copied = self.experiment.compute.dequantisation == "copy"
        return Work(
            down_bytes=self.adapter_bytes,
            up_bytes=self.adapter_bytes,
            flops=way.flops(tokens),
            memory_bytes=way.memory.memory_bytes,
            tokens=tokens,
            serialized_down_bytes=4 * self.task.layout.size,
            serialized_up_bytes=4 * self.task.layout.size,
            steps=passes,
            moved_bytes=moved_bytes(shape, passes, updates, copied=copied),
            memory_plan=way.memory.words,
        )

    def sent(self, work: Work, offer: Offer) -> Work:
        """Return the work with what an offer really sends both ways.

        Under `charge_as` a payload's numbers are charged as many times as the declared adapter has more numbers.
        """
        return _sending(work, *self._travels(offer.down, "down"), *self._travels(offer.up, "up"))

    def _travels(self, payload: Payload, direction: Direction) -> tuple[int, int]:
        """Return a payload's bytes as charged and as serialised."""
        found = self._payloads.get((payload, direction))
        if found is None:
            wire, layout = self.experiment.wire, self.task.layout
            real = bytes_of(wire, layout, payload, direction)
            charged = charged_bytes(wire, layout, payload, direction, self.adapter_bytes // 4)
            found = self._payloads[payload, direction] = (charged if self.charged else real, real)
        return found

    @cached_property
    def _payloads(self) -> dict[tuple[Payload, Direction], tuple[int, int]]:
        """Bytes by payload: most visits send the same."""
        return {}

    def way(self, usable_bytes: float, rank: int | None = None) -> Way:
        """Return how a device with so much memory trains adapters of a rank (None: the server's).

        As asked; else by `memory.when_short`, which may make the rank smaller still; else not at all.
        """
        whole = self.task.layout.rank
        asked = whole if rank is None else rank
        key = (usable_bytes, asked)
        if key not in self._ways:
            personal: Any = self.experiment.personal
            shape = personal.held(with_rank_share(self.shape, asked, whole) if whole else self.shape)
            memory = plan_memory(shape, usable_bytes, self.experiment.memory.measures)
            layered = self.experiment.compute.flops == "layers"
            kept = max(1, asked * memory.shape.rank // shape.rank) if asked and shape.rank else asked
            self._ways[key] = Way(memory, train_flops(memory.shape, 1, layered=layered), kept)
        return self._ways[key]

    def way_of(self, client: int, rank: int | None = None) -> Way:
        """Return how a client trains, at its own rank or at a smaller one."""
        return self.way(*self._room_and_rank(client, rank))

    def _room_and_rank(self, client: int, rank: int | None) -> tuple[float, int]:
        """Return a client's usable memory [bytes], and the rank that it is asked for: its own or a smaller one."""
        smaller = rank is not None and rank < self.ranks[client]
        asked = max(1, int(rank or 1)) if smaller else int(self._asked[client])
        return self.population.profile(client).usable_memory_bytes, asked

    @cached_property
    def _ways(self) -> dict[tuple[float, int], Way]:
        """Ways by usable memory and rank: devices of one row share theirs."""
        return {}

    # ranks --------------------------------------------------------------------------------------

    def rank(self, client: int, most: int | None = None) -> int:
        """Return the slots of each factor that a client trains: its own, or `most` if that is fewer."""
        own = int(self.ranks[client])
        return own if most is None or not own else max(1, min(most, own))

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Every client's rank, (clients,): by `lora.rank_by`, and smaller where `memory.when_short` says so."""
        asked = self._asked
        if "rank" not in self.experiment.memory.measures:
            return asked
        usable = self.population.columns()["usable_memory_bytes"].tolist()
        kept = [self.way(u, r).rank for u, r in zip(usable, asked.tolist(), strict=True)]
        return np.array(kept, dtype=np.int64)

    @cached_property
    def _asked(self) -> NDArray[np.int64]:
        return ranks.resolve(self)

    def first_offer(self, client: int, rank: int) -> Offer:
        """Return what the rule would offer a client of this rank at version 0; no values in it."""
        model = ServerModel(Adapter(self.task.layout, self._zeros))
        rule: Any = self.experiment.aggregator
        offer: Offer = rule.offer(
            rule.init(model), model, Ask(client, 0, rank, self.experiment.lora.scale_of(max(rank, 1)), None)
        )
        return offer

    @cached_property
    def _zeros(self) -> NDArray[np.float32]:
        return np.zeros(self.task.layout.size, np.float32)

    # the charged model --------------------------------------------------------------------------

    @cached_property
    def _charge(self) -> Charge | None:
        """What the task's `charge_as` declares; None where the clock charges the model that trains."""
        component: Any = self.experiment.task
        charge: Charge | None = component.charge(full=self.experiment.lora.full)
        return charge

    @property
    def charged(self) -> bool:
        """Whether the clock charges a declared model instead of the one that trains."""
        return self._charge is not None

    @cached_property
    def adapter_bytes(self) -> int:
        """Bytes of one whole adapter as charged, in float32."""
        return adapter_bytes(self.shape) if self.charged else 4 * self.task.layout.size


@lru_cache(maxsize=4096)
def _sending(work: Work, down: int, serialized_down: int, up: int, serialized_up: int) -> Work:
    """Return the work with other bytes each way, as charged and as serialised: one object for equal visits."""
    return replace(
        work,
        down_bytes=down,
        up_bytes=up,
        serialized_down_bytes=serialized_down,
        serialized_up_bytes=serialized_up,
    )


def ground(experiment: Experiment) -> str:
    """Return what population and data are made of, as text: experiments with equal ground have them in common."""
    plain = experiment.plain()
    return json.dumps([plain[name] for name in GROUND], sort_keys=True)


def prepare(experiment: Experiment, like: Plan | None = None) -> Plan:
    """Read tables and data, split, and size the work; loads no weights, starts nothing.

    Args:
        experiment: the configuration.
        like: a plan of equal `ground`, whose population and data are taken over instead of made again.

    Raises:
        ProfileError, DataError, ExperimentError: whatever is wrong with the input.
    """
    component: Any = experiment.task
    if like is None:
        population = draw(experiment.population, experiment.seed)
        task = built(component, context_of(experiment))
    else:
        population, task = like.population, like.task
    experiment = resolved(experiment, task)
    charge: Charge | None = component.charge(full=experiment.lora.full)
    shape = task.shape if charge is None else charge.shape
    if experiment.compute.flops == "layers" and not shape.blocks and shape.operations is None:
        fix = "set compute.flops: parameters, or charge_as without params and matmul_params"
        what = f"the layers of {shape.name} are not known"
        raise ExperimentError(message("compute.flops", what, got="layers", fix=fix))
    personal: Any = experiment.personal
    personal.private(task.layout)  # refuses more layers than there are
    if like is None:
        population = with_speeds(population, experiment.compute, shape.name, experiment.seed)
    plan = Plan(experiment, population, task, shape)
    _refuse_an_endless_budget(plan)
    for split in experiment.evaluate.splits:
        task.probes(split, experiment.evaluate.windows)  # refuses a split that the data do not have
    _ = plan.ranks  # refuses a tier without a rank
    return plan


def _refuse_an_endless_budget(plan: Plan) -> None:
    budget, layout = plan.experiment.budget, plan.task.layout
    if budget.time_s is not None or budget.commits is not None:
        return
    if plan.first_offer(0, layout.rank).up.floats(layout) == 0:
        rule: Any = plan.experiment.aggregator
        what = f"is never reached: the aggregator {rule.kind} uploads nothing"
        fix = "give budget.time_s or budget.commits"
        raise ExperimentError(message("budget.up_bytes", what, got=budget.up_bytes, fix=fix))
