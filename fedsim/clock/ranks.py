"""Ranks by device: who trains how many slots of each factor (`lora.rank_by`).

`fixed`: everybody r. `tier`: by class of device. `memory`: the largest choice that fits. `deadline`: the
largest choice that fits and whose visit, alone on its link on a cool device, ends within the
protocol's deadline. Where no choice will do, the smallest: the visit then refuses or is late, and that is
seen. All of it is known before the run and stands in `clients.parquet`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsim.clock.estimate import estimate
from fedsim.errors import ExperimentError, message

if TYPE_CHECKING:
    from fedsim.clock.plan import Plan

Ranks = NDArray[np.int64]


def resolve(plan: Plan) -> Ranks:
    """Return every client's rank, (clients,); 0 for whole models.

    Raises:
        ExperimentError: a tier of the population has no rank, or the protocol has no deadline.
    """
    n, whole, by = len(plan.population), plan.task.layout.rank, plan.experiment.lora.rank_by
    if by == "fixed" or not whole:
        return np.full(n, whole, dtype=np.int64)
    if by == "tier":
        return by_tier(plan)
    if by == "memory":
        return by_memory(plan)
    return by_deadline(plan)


def largest(choices: tuple[int, ...], will_do: Callable[[int], bool]) -> int:
    """Return the largest of the ascending choices that will do, else the smallest.

    >>> largest((2, 4, 8), lambda rank: rank <= 5), largest((2, 4), lambda rank: False)
    (4, 2)
    """
    return next((rank for rank in reversed(choices) if will_do(rank)), choices[0])


def by_tier(plan: Plan) -> Ranks:
    """Return `lora.ranks` of each client's tier."""
    given = plan.experiment.lora.ranks
    assert isinstance(given, dict)
    tiers = plan.population.columns()["tier"]
    missing = sorted(set(tiers.tolist()) - given.keys())
    if missing:
        what = f"has no rank for {', '.join(missing)}, which this population has"
        raise ExperimentError(message("lora.ranks", what, got=given, fix=f"add {missing[0]}: RANK"))
    return np.array([given[tier] for tier in tiers], dtype=np.int64)


def by_memory(plan: Plan) -> Ranks:
    """Return the largest choice whose training fits each client's usable memory."""
    choices = plan.experiment.lora.choices
    usable = plan.population.columns()["usable_memory_bytes"]
    amounts, of = np.unique(usable, return_inverse=True)  # devices of one row are alike
    chosen = [largest(choices, partial(fits, plan, room)) for room in amounts.tolist()]
    return np.array(chosen, dtype=np.int64)[of]


def fits(plan: Plan, usable_bytes: float, rank: int) -> bool:
    """Return whether training at this rank fits, with the measures of `memory.when_short` but not a smaller rank."""
    way = plan.way(usable_bytes, rank)
    return way.memory.fits and way.rank == rank


def by_deadline(plan: Plan) -> Ranks:
    """Return the largest choice that fits and whose visit ends within `protocol.deadline_s`.

    The rule's first offer says what travels: later catch-ups with a moved base are not foreseen.
    """
    protocol: Any = plan.experiment.protocol
    deadline_s = getattr(protocol, "deadline_s", None)
    if deadline_s is None:
        fix = "give protocol.deadline_s, or set lora.rank_by: memory"
        raise ExperimentError(message("lora.rank_by", "needs a deadline", got="deadline", fix=fix))
    choices, clients = plan.experiment.lora.choices, range(len(plan.population))
    return np.array(
        [largest(choices, partial(lands, plan, deadline_s, client)) for client in clients],
        dtype=np.int64,
    )


def lands(plan: Plan, within_s: float, client: int, rank: int) -> bool:
    """Return whether a whole visit at this rank fits the device and ends within so many seconds."""
    profile, experiment = plan.population.profile(client), plan.experiment
    work = plan.sent(plan.at_rank(client, rank), plan.first_offer(client, rank))
    alone = estimate(profile, work, 0.0, compute=experiment.compute, tail=experiment.energy.tail)
    return fits(plan, profile.usable_memory_bytes, rank) and alone.total_s <= within_s
