"""Adapters by device: who trains how many slots of each factor, in how many layers (`lora.rank_by`, `lora.depth_by`).

`fixed`: everybody r, everybody all layers. `tier`: by class of device. `memory`: the largest choice that fits.
`deadline`: the largest choice that fits and whose visit, alone on its link on a cool device, ends within the
protocol's deadline. Where no choice will do, the smallest: the visit then refuses or is late, and that is
seen. Who may choose both gets as much of `lora.first` as will do, and then of the other. All of it is known before
the run and stands in `clients.parquet`: a rank in its column, a depth below all layers in `memory_plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout
from fedsim.clock.estimate import estimate
from fedsim.clock.sizing import Sizing
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LoraConfig
from fedsim.cost.memory.model import MemoryModel
from fedsim.cost.shape import ModelShape
from fedsim.devices.population import Population
from fedsim.errors import ExperimentError, message
from fedsim.instants import in_time
from fedsim.personal._base import Personal

Numbers = NDArray[np.int64]
Choices = tuple[int, ...]
Resources = ("memory", "deadline")
"""What a client may choose by."""


@dataclass(frozen=True)
class Adapters:
    """What every client is asked to train.

    Attributes:
        ranks: slots of each factor, (clients,); 0 for whole models.
        depths: layers with adapters, counted from the output, (clients,); 0 for whole models.
    """

    ranks: Numbers
    depths: Numbers


def adapters_of(
    experiment: Experiment, population: Population, sizing: Sizing, layout: Layout, deadline_s: float | None
) -> Adapters:
    """Return the rank and the depth that every client is asked for.

    Args:
        experiment: with `lora.rank_by` and `lora.depth_by`.
        population: whose devices.
        sizing: what a training needs.
        layout: the server's adapter, or a whole model.
        deadline_s: how long a round of the protocol waits at most [virtual s].

    Raises:
        ExperimentError: a tier of the population has no rank or no depth, or the protocol has no deadline.
    """
    lora, layers = experiment.lora, len(layout.blocks)
    if not layout.rank:
        nothing = np.zeros(len(population), dtype=np.int64)
        return Adapters(nothing, nothing)
    for name, by in (("rank_by", lora.rank_by), ("depth_by", lora.depth_by)):
        if by == "deadline" and deadline_s is None:
            fix = f"give protocol.deadline_s, or set lora.{name}: memory"
            raise ExperimentError(message(f"lora.{name}", "needs a deadline", got="deadline", fix=fix))
    known = Adapters(
        _known(population, "rank", lora.rank_by, lora.ranks, layout.rank),
        _known(population, "depth", lora.depth_by, lora.depths, lora.depth_choices(layers)[-1]),
    )
    ways = {lora.rank_by, lora.depth_by}
    if ways.isdisjoint(Resources):
        return known
    search = _Search(experiment, population, sizing, layers, deadline_s if "deadline" in ways else None)
    return search.by_client(known) if "deadline" in ways else search.by_room(known)


def largest(choices: Choices, will_do: Callable[[int], bool]) -> int:
    """Return the largest of the ascending choices that will do, else the smallest.

    >>> largest((2, 4, 8), lambda rank: rank <= 5), largest((2, 4), lambda rank: False)
    (4, 2)
    """
    return next((choice for choice in reversed(choices) if will_do(choice)), choices[0])


def largest_pair(
    ranks: Choices, depths: Choices, will_do: Callable[[int, int], bool], *, first: str
) -> tuple[int, int]:
    """Return the rank and the depth that will do: as much of `first` as the smallest other allows, then of the other.

    >>> largest_pair((2, 4, 8), (1, 2, 3), lambda rank, depth: rank * depth <= 8, first="depth")
    (2, 3)
    >>> largest_pair((2, 4, 8), (1, 2, 3), lambda rank, depth: rank * depth <= 8, first="rank")
    (8, 1)
    """
    if first == "depth":
        depth = largest(depths, lambda depth: will_do(ranks[0], depth))
        return largest(ranks, lambda rank: will_do(rank, depth)), depth
    rank = largest(ranks, lambda rank: will_do(rank, depths[0]))
    return rank, largest(depths, lambda depth: will_do(rank, depth))


def _known(population: Population, noun: str, by: str, of_tiers: object, most: int) -> Numbers:
    """Return what each client has by its tier, and the most anybody may have where that is not what decides."""
    if by != "tier":
        return np.broadcast_to(np.int64(most), len(population))  # one number, however many read it
    assert isinstance(of_tiers, Mapping)
    tiers = population.columns()["tier"]
    missing = sorted(set(tiers.tolist()) - of_tiers.keys())
    if missing:
        what = f"has no {noun} for {', '.join(missing)}, which this population has"
        fix = f"add {missing[0]}: {noun.upper()}"
        raise ExperimentError(message(f"lora.{noun}s", what, got=dict(of_tiers), fix=fix))
    return np.array([of_tiers[tier] for tier in tiers], dtype=np.int64)


class _Search:
    """Looks for what clients choose by memory, and by a deadline if there is one."""

    def __init__(
        self,
        experiment: Experiment,
        population: Population,
        sizing: Sizing,
        layers: int,
        deadline_s: float | None,
    ) -> None:
        self._experiment, self._population, self._sizing = experiment, population, sizing
        self._lora: LoraConfig = experiment.lora
        self._layers, self._deadline_s = layers, deadline_s

    def by_room(self, known: Adapters) -> Adapters:
        """Return what fits each client's memory: devices of one row and one program are alike."""
        rooms, place = self._population.rooms
        asked, of = kinds(place, known)
        chosen = [self._chosen(rank, depth, partial(self._fits, *rooms[room])) for room, rank, depth in asked]
        return _adapters(np.array(chosen, dtype=np.int64)[of])

    def by_client(self, known: Adapters) -> Adapters:
        """Return what fits each client's memory and lands in time."""
        pairs = zip(known.ranks.tolist(), known.depths.tolist(), strict=True)
        chosen = [self._chosen(*pair, partial(self._lands, client)) for client, pair in enumerate(pairs)]
        return _adapters(np.array(chosen, dtype=np.int64))

    def _chosen(self, rank: int, depth: int, will_do: Callable[[int, int], bool]) -> tuple[int, int]:
        """Return what will do; `rank` and `depth` are those of a client that may not choose them."""
        lora = self._lora
        ranks = lora.choices if lora.rank_by in Resources else (rank,)
        depths = lora.depth_choices(self._layers) if lora.depth_by in Resources else (depth,)
        return largest_pair(ranks, depths, will_do, first=lora.first)

    def _fits(self, usable_bytes: float, model: MemoryModel, rank: int, depth: int) -> bool:
        return self._sizing.fits(usable_bytes, rank, model, self._part(depth))

    def _lands(self, client: int, rank: int, depth: int) -> bool:
        """Return whether it fits and a visit ends within the deadline.

        The rule's first offer says what travels: later catch-ups with a moved base are not foreseen.
        """
        population, experiment, part = self._population, self._experiment, self._part(depth)
        profile, model = population.profile(client), population.memory_model(client)
        room = profile.usable_memory_bytes
        if not self._fits(room, model, rank, depth):
            return False
        offer = self._sizing.first_offer(client, rank, part)
        work = self._sizing.work(client, experiment.local, room, rank, offer, model, part)
        alone = estimate(
            profile,
            work,
            0.0,
            compute=experiment.compute,
            tail=experiment.energy.tail,
            network=experiment.network,
        )
        assert self._deadline_s is not None
        return in_time(alone.total_s, self._deadline_s)

    def _part(self, depth: int) -> int | None:
        return depth if depth < self._layers else None


def kinds(place: Numbers, adapters: Adapters) -> tuple[list[tuple[int, int, int]], Numbers]:
    """Return the different (place, rank, depth) of clients, ascending, and which of them is each client's, (clients,)."""
    slots, layers = (int(numbers.max(initial=0)) + 1 for numbers in (adapters.ranks, adapters.depths))
    codes, of = np.unique((place * slots + adapters.ranks) * layers + adapters.depths, return_inverse=True)
    found = [(code // layers // slots, code // layers % slots, code % layers) for code in codes.tolist()]
    return found, of.astype(np.int64)


def refuse_depths(experiment: Experiment, personal: Personal, layout: Layout, shape: ModelShape) -> None:
    """Refuse depths that this model does not have, or of which nothing would be left to share.

    Raises:
        ExperimentError: as said.
    """
    lora, layers = experiment.lora, len(layout.blocks)
    if not lora.unequal or not layers:
        return
    if shape.operations is not None:
        what = f"needs layers in a row, and the cost of {shape.name} is counted over all of them"
        fix = "remove depth, depth_by and depths: depth by device is for language models"
        raise ExperimentError(message("lora.depth_by", what, got=lora.depth_by, fix=fix))
    depths = lora.depth_choices(layers)
    if depths[-1] > layers:
        name = "depth" if lora.depth is not None else "depths"
        what = f"is more than the layers of this model that carry adapters ({layers})"
        raise ExperimentError(
            message(f"lora.{name}", what, got=depths[-1], fix=f"set it to at most {layers}")
        )
    private = personal.private(layout)
    if private and set(layout.slices) <= layout.below(depths[0]).union(private):
        what = f"leaves a client of depth {depths[0]} nothing to share: all that it trains is private"
        fix = "make lora.depths larger than that, or lower it"
        raise ExperimentError(message("personal.layers", what, fix=fix))


def _adapters(pairs: Numbers) -> Adapters:
    return Adapters(pairs[:, 0], pairs[:, 1])
