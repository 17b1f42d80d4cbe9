"""Runs in which nobody learns: a learning rate of 1e-12, from a version 0 whose A and B are both filled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from fedsim.adapters.adapter import Adapter, Layout, Module
from fedsim.aggregators._base import ServerModel
from fedsim.config.devices import MemoryConfig
from fedsim.cost.operations import Operations
from fedsim.executors.inline import Inline
from fedsim.records.writer import Writer
from fedsim.rng import stream
from fedsim.runs.course import run_to_the_end, world
from fedsim.tasks.quadratic import Quadratic, QuadraticTask
from fedsim.testing.factors import effect
from worlds import World, plan

RANK = 4
WORK_S = [0.7, 1.3, 2.1, 2.9, 3.7, 5.3]


class Still(Quadratic):
    """The quadratic task over three blocks; its objective does not matter, because nobody moves."""

    over_factors: ClassVar[bool] = False
    kind: Literal["worlds.still:Still"] = "worlds.still:Still"
    layout: Literal["lora"] = "lora"

    def build(self, context):
        seeds = context.seed, context.first_seed
        return StillTask(self, context.clients, seeds, context.lora, context.local.batch)


@dataclass(frozen=True)
class StillTask(QuadraticTask):
    """Version 0 has B, too: what a rule takes from the model is seen at once."""

    @cached_property
    def layout(self):
        d, r, scale = self.config.dimension, self.lora.r, self.lora.alpha / self.lora.r
        return Layout(tuple(Module(f"h.{i}.w", r, (r, d + i), (d, r), scale) for i in range(3)))

    @property
    def shape(self):
        counted = Operations(1000, 2000, 400, 0, 0, rank=self.lora.r, slot=Operations(10, 20, 4, 0, 0))
        return replace(QuadraticTask.shape.fget(self), operations=counted)

    def initial(self):
        return stream(self.seeds[0], "init").standard_normal(self.layout.size).astype(np.float32)


def still_plan(protocol, ranks="fixed", *, commits=12, scale="common", **blocks):
    """A plan in which nobody learns.

    Args:
        protocol: its block.
        ranks: `fixed`; `tier` and `memory`: half of the clients have two slots of their own; `short`: they have four,
            and memory for two.
        commits: how many.
        scale: `lora.scale`.
        blocks: of the experiment.
    """
    of_ranks = {
        "fixed": {},
        "short": {},
        "tier": {"rank_by": "tier", "ranks": {"phone-low": 2, "laptop": RANK}},
        "memory": {"rank_by": "memory", "ranks": (2, RANK)},
    }[ranks]
    made = plan(
        protocol,
        WORK_S,
        rate=2e4,
        rtt_s=0.01,
        seed=5,
        task={"kind": "worlds.still:Still", "dimension": 5, "examples": "unequal"},
        lora={"r": RANK, "alpha": 8.0, "scale": scale, **of_ranks},
        local={"optimizer": "sgd", "lr": 1e-12, "steps": 4, "batch": 4},
        budget={"commits": commits},
        **blocks,
    )
    tiers = [replace(p, tier=("phone-low", "laptop")[p.client % 2]) for p in made.population.profiles]
    if ranks in ("memory", "short"):
        room = made.sizing.training_plan(1e12, 2).memory.memory_bytes
        tiers = [p if p.client % 2 else replace(p, usable_memory_bytes=room) for p in tiers]
    short = MemoryConfig(when_short="rank") if ranks == "short" else MemoryConfig()
    asked = made.experiment.model_copy(update={"memory": short})
    made = replace(made, experiment=asked, population=World(tiers, made.population.availability))
    expected = [2, RANK] * 3 if ranks != "fixed" else [RANK] * 6
    assert made.ranks.tolist() == expected
    return made


def at_the_end(made):
    """Run a plan; return its server at the end of its budget, and the visits' ranks."""
    executor, ranks = Inline(), []
    try:
        server = world(
            made,
            executor,
            Writer(None, made.experiment),
            lambda *_: None,
            on_dispatch=lambda _, dispatched: ranks.append(dispatched.invitation.rank),
        )
        run_to_the_end(server, lambda *_: None)
        server.private_parts.finish()
    finally:
        executor.close()
    return server, ranks


def product(vector, layout, base=None):
    """The change of every weight that an adapter makes, over a moved base or not."""
    return effect(ServerModel(Adapter(layout, vector), base))
