"""From an experiment to a plan: tables read, data split, ranks resolved, every visit's work known.

Whatever can be refused is refused here; no weights are loaded and nothing has started.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.largest_rank import refuse_larger_ranks
from fedsim.adapters.payload import NOTHING, Payload
from fedsim.aggregators._base import Offer
from fedsim.clock.auto import context_of, keys_filled, with_auto_filled
from fedsim.clock.components import Parts, parts_of
from fedsim.clock.online.build import refuse_devices
from fedsim.clock.ranks import Adapters, adapters_of, kinds, refuse_depths
from fedsim.clock.reach import Candidates, refuse_what_cannot_land
from fedsim.clock.sizing import MOST_SENT, Sizing, TrainingPlan
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig
from fedsim.config.target import not_scored
from fedsim.cost.shape import ModelShape, with_magnitudes
from fedsim.cost.work import Work
from fedsim.devices.population import Population, draw
from fedsim.devices.stacks.measured_speeds import with_speeds
from fedsim.errors import ExperimentError, message
from fedsim.jobs import Task
from fedsim.tasks._base import built

GROUND = ("population", "task", "lora", "local", "compute", "numerics", "runtime")
"""Blocks that population, data and layout depend on, beside the seeds."""


@dataclass(frozen=True)
class Plan:
    """An experiment with everything that can be refused already built: nothing has started.

    Attributes:
        experiment: `auto` settings filled in.
        population, task: as drawn and split.
        shape: the model that the clock charges (the declared one under `charge_as`), at the server's rank.
        filled: keys whose `auto` was filled in.
    """

    experiment: Experiment
    population: Population
    task: Task
    shape: ModelShape
    filled: tuple[str, ...] = ()

    @cached_property
    def parts(self) -> Parts:
        """The experiment's components."""
        return parts_of(self.experiment)

    @cached_property
    def sizing(self) -> Sizing:
        """What a visit computes, holds and sends."""
        return Sizing(self.experiment, self.parts, self.task, self.shape)

    def alike(self, experiment: Experiment) -> Plan:
        """Return the plan of an experiment with the same seeds, population, task, `lora`, `local`, `compute`."""
        filled = with_auto_filled(experiment, self.task)
        return replace(self, experiment=filled, filled=keys_filled(experiment, filled))

    # a visit ------------------------------------------------------------------------------------

    def steps(self, client: int) -> int:
        """Return the optimiser steps of a whole visit of a client."""
        return self.experiment.local.steps_over(self.task.examples(client))

    def local(self, client: int, steps: int | None = None) -> LocalConfig:
        """Return what a client does in a visit of `steps` optimiser steps, fewer or more than a whole one (None)."""
        local = self.experiment.local
        return local if steps is None or steps == self.steps(client) else local.partial(max(1, steps))

    def tokens(self, client: int, steps: int | None = None) -> int:
        """Return the tokens charged for a visit of a client; `charge_as` may declare those of a whole one."""
        return self.sizing.tokens(client, self.local(client, steps))

    def work(
        self,
        client: int,
        offer: Offer | None = None,
        *,
        steps: int | None = None,
        rank: int | None = None,
    ) -> Work:
        """Return what a visit of a client computes, holds and sends.

        Args:
            client: who.
            offer: what travels; None: what the rule offers first.
            steps: optimiser steps, if not those of a whole visit.
            rank: slots of each factor, if fewer than the client's.
        """
        if offer is not None and steps is None and (rank is None or rank >= self.ranks.item(client)):
            return self._whole_work(client, offer)
        usable_bytes, slots = self._memory_and_rank(client, rank)
        if offer is None:
            offer = self.sizing.first_offer(client, slots, self.depth(client))
        model, local = self.population.memory_model(client), self.local(client, steps)
        return self.sizing.work(client, local, usable_bytes, slots, offer, model, self.depth(client))

    def _whole_work(self, client: int, offer: Offer) -> Work:
        """Return the work of a whole visit; clients that train alike on as much and send the same share one look-up."""
        sizing, local = self.sizing, self.experiment.local
        of_data = self.task.examples(client), sizing.tokens(client, local), sizing.mean_sequence(client)
        key = (self.training_plans[1].item(client), *of_data, id(offer.down), id(offer.up))
        known = self._whole_works.get(key)
        if known is not None and known[0] is offer.down and known[1] is offer.up:
            return known[2]
        model, depth = self.population.memory_model(client), self.depth(client)
        work = sizing.work(client, local, *self._memory_and_rank(client, None), offer, model, depth)
        if (
            self.parts.personal.alongside(local) is None
        ):  # else it also depends on the tokens of the second training
            if len(self._whole_works) >= MOST_SENT:
                self._whole_works.clear()
            self._whole_works[key] = offer.down, offer.up, work
        return work

    @cached_property
    def _whole_works(
        self,
    ) -> dict[tuple[int, int, int, float | None, int, int], tuple[Payload, Payload, Work]]:
        return {}

    def training_plan(self, client: int, rank: int | None = None) -> TrainingPlan:
        """Return how a client trains, at its own rank or at a smaller one."""
        model = self.population.memory_model(client)
        return self.sizing.training_plan(*self._memory_and_rank(client, rank), model, self.depth(client))

    def _memory_and_rank(self, client: int, rank: int | None) -> tuple[float, int]:
        """Return a client's usable memory [bytes], and the rank that it is asked for: its own or a smaller one."""
        smaller = rank is not None and rank < self.ranks[client]
        asked_for = max(1, int(rank or 1)) if smaller else self.own_rank(client)
        return float(self._usable_bytes.item(client)), asked_for

    @cached_property
    def training_plans(self) -> tuple[list[TrainingPlan], NDArray[np.int64]]:
        """How clients train at their own rank and depth, each plan once, and which of them is each client's, (clients,)."""
        rooms, room_of = self.population.rooms
        asked, of = kinds(room_of, self._adapters)
        plans = []
        for room, rank, depth in asked:
            usable, model = rooms[room]
            plans.append(self.sizing.training_plan(usable, rank, model, self._part(depth)))
        return plans, of

    @cached_property
    def _usable_bytes(self) -> NDArray[np.float64]:
        """What each client's device may give to a training, (clients,)."""
        usable: NDArray[np.float64] = self.population.columns()["usable_memory_bytes"]
        return usable

    @cached_property
    def whole_tokens(self) -> NDArray[np.int64]:
        """Tokens charged for a whole visit of every client, (clients,)."""
        n, local = len(self.population), self.experiment.local
        return np.fromiter((self.sizing.tokens(c, local) for c in range(n)), dtype=np.int64, count=n)

    # ranks --------------------------------------------------------------------------------------

    def rank(self, client: int, most: int | None = None) -> int:
        """Return the slots of each factor that a client trains: its own, or `most` if that is fewer."""
        whole = self.ranks.item(client)
        return whole if most is None or not whole else max(1, min(most, whole))

    def own_rank(self, client: int) -> int:
        """Return the slots that are a client's own, by `lora.rank_by`, whatever its memory leaves of them."""
        return self._adapters.ranks.item(client)

    def depth(self, client: int) -> int | None:
        """Return the layers, counted from the output, whose adapters a client has and trains; None: all."""
        return self._part(self._adapters.depths.item(client))

    @property
    def depths(self) -> NDArray[np.int64]:
        """Layers, counted from the output, whose adapters every client has and trains, (clients,); 0 for whole models."""
        return self._adapters.depths

    @cached_property
    def _layers(self) -> int:
        """Layers that carry adapters."""
        return len(self.task.layout.blocks)

    def _part(self, depth: int) -> int | None:
        return depth if depth < self._layers else None

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Every client's rank, (clients,): by `lora.rank_by`, and smaller where `memory.when_short` says so."""
        ranks = self._adapters.ranks
        if "rank" not in self.experiment.memory.measures:
            return ranks
        plans, of = self.training_plans
        return np.array([plan.rank for plan in plans], dtype=np.int64)[of]

    @cached_property
    def _adapters(self) -> Adapters:
        deadline_s = self.parts.protocol.round_deadline_s
        return adapters_of(self.experiment, self.population, self.sizing, self.task.layout, deadline_s)


def ground(experiment: Experiment) -> str:
    """Return what population and data are made of, as text: experiments with equal ground have them in common."""
    plain = experiment.plain()
    seeds = [experiment.population_seed, experiment.data_seed, experiment.training_seed]
    return json.dumps([seeds, *(plain[name] for name in GROUND)], sort_keys=True)


def prepare(experiment: Experiment, like: Plan | None = None) -> Plan:
    """Read tables and data, split, and size the work; loads no weights, starts nothing.

    Args:
        experiment: the configuration.
        like: a plan of equal `ground`, whose population and data are taken over instead of made again.

    Raises:
        ProfileError, DataError, ExperimentError: whatever is wrong with the input.
    """
    components = parts_of(experiment)
    if like is None:
        population = draw(experiment.population, experiment.population_seed)
        task = built(components.task, context_of(experiment))
    else:
        population, task = like.population, like.task
    asked, experiment = experiment, with_auto_filled(experiment, task)
    charge = components.task.charge(full=experiment.lora.full)
    shape = task.shape if charge is None else charge.shape
    if charge is not None and experiment.lora.dora:
        shape = with_magnitudes(shape)
    if like is None:
        population = with_speeds(population, experiment.compute, shape.name, experiment.population_seed)
    plan = Plan(experiment, population, task, shape, keys_filled(asked, experiment))
    refuse(plan)
    return plan


def refuse(plan: Plan) -> None:
    """Refuse what the model's layers, the data and the work of a visit say of an experiment; the settings are checked already.

    Raises:
        DataError, ExperimentError: as said.
    """
    experiment, task = plan.experiment, plan.task
    refuse_larger_ranks(task.layout)
    _refuse_unknown_layers(experiment, plan.shape)
    plan.parts.personal.private(task.layout)  # refuses more layers than there are
    _refuse_an_endless_budget(plan)
    for split in experiment.evaluate.splits:
        task.probes(split, experiment.evaluate.most_windows)  # refuses a split that the data do not have
    _refuse_unknown_metrics(experiment, task)
    refuse_devices(experiment, plan.population)
    refuse_depths(experiment, plan.parts.personal, task.layout, plan.shape)
    plan.ranks.view()  # refuses a tier without a rank or a depth
    sends_nothing = Offer(plan.sizing.zeros, NOTHING, NOTHING)
    refuse_what_cannot_land(Candidates(experiment, plan.parts, plan.population, plan.work, sends_nothing))


def _refuse_unknown_metrics(experiment: Experiment, task: Task) -> None:
    """Refuse a metric that a setting names and the task does not score; where it cannot say, the first score does."""
    evaluate, target = experiment.evaluate, experiment.budget.target
    named = [("evaluate.keep_best", evaluate.keep_best, evaluate.best_split)]
    if target is not None:
        named.append(("budget.target.metric", target.metric, target.split))
    for key, metric, split in named:
        names = None if metric is None or not _names_its_metrics(task) else task.metric_names(split)
        if metric is not None and names is not None and metric not in names:
            raise ExperimentError(not_scored(key, metric, split, names))


def _names_its_metrics(task: Task) -> bool:
    """Tell whether `metric_names` is of the class that makes the metrics, or of one below: else it knows only older ones."""
    of = [cls for cls in type(task).__mro__ if {"metrics", "metric_names"} & set(vars(cls))]
    return not of or "metric_names" in vars(of[0])


def _refuse_unknown_layers(experiment: Experiment, shape: ModelShape) -> None:
    if experiment.compute.flops == "layers" and not shape.blocks and shape.operations is None:
        fix = "set compute.flops: parameters, or charge_as without params and matmul_params"
        what = f"the layers of {shape.name} are not known"
        raise ExperimentError(message("compute.flops", what, got="layers", fix=fix))


def _refuse_an_endless_budget(plan: Plan) -> None:
    budget, layout = plan.experiment.budget, plan.task.layout
    if budget.time_s is not None or budget.commits is not None:
        return
    if plan.sizing.first_offer(0, layout.rank).up.floats(layout) == 0:
        what = f"is never reached: the aggregator {plan.parts.aggregator.kind} uploads nothing"
        fix = "give budget.time_s or budget.commits"
        raise ExperimentError(message("budget.up_bytes", what, got=budget.up_bytes, fix=fix))
