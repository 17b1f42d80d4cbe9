"""Ranks by device: who trains how many slots of each factor (`lora.rank_by`).

`fixed`: everybody r. `tier`: by class of device. `memory`: the largest choice that fits. `deadline`: the
largest choice that fits and whose visit, alone on its link on a cool device, ends within the
protocol's deadline. Where no choice will do, the smallest: the visit then refuses or is late, and that is
seen. All of it is known before the run and stands in `clients.parquet`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedsim.clock.estimate import estimate
from fedsim.clock.sizing import Sizing
from fedsim.config.experiment import Experiment
from fedsim.devices.population import Population
from fedsim.errors import ExperimentError, message
from fedsim.instants import in_time

Ranks = NDArray[np.int64]


def ranks_of(
    experiment: Experiment, population: Population, sizing: Sizing, whole: int, deadline_s: float | None
) -> Ranks:
    """Return the rank that every client is asked for, (clients,); 0 for whole models.

    Args:
        experiment: with `lora.rank_by`.
        population: whose devices.
        sizing: what a training needs.
        whole: the server's rank, 0 for whole models.
        deadline_s: how long a round of the protocol waits at most [virtual s].

    Raises:
        ExperimentError: a tier of the population has no rank, or the protocol has no deadline.
    """
    by = experiment.lora.rank_by
    if by == "fixed" or not whole:
        return np.full(len(population), whole, dtype=np.int64)
    if by == "tier":
        return by_tier(experiment, population)
    if by == "memory":
        return by_memory(experiment, population, sizing)
    if deadline_s is None:
        fix = "give protocol.deadline_s, or set lora.rank_by: memory"
        raise ExperimentError(message("lora.rank_by", "needs a deadline", got="deadline", fix=fix))
    return by_deadline(experiment, population, sizing, deadline_s)


def largest(choices: tuple[int, ...], will_do: Callable[[int], bool]) -> int:
    """Return the largest of the ascending choices that will do, else the smallest.

    >>> largest((2, 4, 8), lambda rank: rank <= 5), largest((2, 4), lambda rank: False)
    (4, 2)
    """
    return next((rank for rank in reversed(choices) if will_do(rank)), choices[0])


def by_tier(experiment: Experiment, population: Population) -> Ranks:
    """Return `lora.ranks` of each client's tier."""
    rank_of = experiment.lora.ranks
    assert isinstance(rank_of, dict)
    tiers = population.columns()["tier"]
    missing = sorted(set(tiers.tolist()) - rank_of.keys())
    if missing:
        what = f"has no rank for {', '.join(missing)}, which this population has"
        raise ExperimentError(message("lora.ranks", what, got=rank_of, fix=f"add {missing[0]}: RANK"))
    return np.array([rank_of[tier] for tier in tiers], dtype=np.int64)


def by_memory(experiment: Experiment, population: Population, sizing: Sizing) -> Ranks:
    """Return the largest choice whose training fits each client's usable memory."""
    choices = experiment.lora.choices
    rooms, place = population.rooms  # devices of one row and one program are alike
    largest_of = [largest(choices, partial(sizing.fits, usable, model=model)) for usable, model in rooms]
    return np.array(largest_of, dtype=np.int64)[place]


def by_deadline(experiment: Experiment, population: Population, sizing: Sizing, deadline_s: float) -> Ranks:
    """Return the largest choice that fits and whose visit ends within the deadline.

    The rule's first offer says what travels: later catch-ups with a moved base are not foreseen.
    """

    def lands(client: int, rank: int) -> bool:
        profile = population.profile(client)
        room, offer = profile.usable_memory_bytes, sizing.first_offer(client, rank)
        model = population.memory_model(client)
        work = sizing.work(client, experiment.local, room, rank, offer, model)
        alone = estimate(
            profile,
            work,
            0.0,
            compute=experiment.compute,
            tail=experiment.energy.tail,
            network=experiment.network,
        )
        return sizing.fits(room, rank, model) and in_time(alone.total_s, deadline_s)

    choices = experiment.lora.choices
    ranks = [largest(choices, partial(lands, client)) for client in range(len(population))]
    return np.array(ranks, dtype=np.int64)
