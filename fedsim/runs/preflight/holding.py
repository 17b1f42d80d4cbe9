"""Who can hold the training: shares of clients by class of device, as the experiment is, and at 16, 8 and 4 bits a frozen weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedsim.clock.plan import Plan
from fedsim.config.classes import CLASSES
from fedsim.cost.quantised import NOT_HELD, Held, Quantise
from fedsim.cost.shape import ModelShape
from fedsim.records.quantities import percent, said

AS_SET, HALF = "as set", "16 bits"
HALF_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class Holding:
    """How many clients of a class have the memory that the training takes.

    Attributes:
        tier: the class; `all` of everybody.
        clients: how many there are.
        able: precision -> how many can hold it there: `as set`, `16 bits`, `int8`, `nf4`.
        needed_bytes: precision -> the most that a client of the class would need.
    """

    tier: str
    clients: int
    able: Mapping[str, int]
    needed_bytes: Mapping[str, float]

    def shown(self) -> dict[str, str]:
        """Return it as a row of a table."""
        shares = {name: percent(count / self.clients) for name, count in self.able.items()}
        return {"can hold it": self.tier, **shares, "needs at most": said("bytes", self.needed_bytes[AS_SET])}


def holding(plan: Plan) -> list[Holding]:
    """Return who can hold the training, a row a class of devices, and of all in the last one.

    What `memory.when_short` allows is tried for every client. Other precisions than the experiment's are those of all
    linear layers, the rest in 16 bits.
    """
    fits, needed = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for name, shape in _precisions(plan.shape):
        plans, of = replace(plan, shape=shape).training_plans
        fits[name] = np.array([p.memory.fits for p in plans])[of]
        needed[name] = np.array([p.memory.memory_bytes for p in plans])[of]
    tiers = plan.population.columns()["tier"]
    classes = [tier for tier in CLASSES if (tiers == tier).any()]
    classes += sorted(set(tiers.tolist()) - set(classes))
    groups = [(tier, tiers == tier) for tier in classes]
    if len(groups) > 1:
        groups.append(("all", np.ones(len(tiers), dtype=bool)))
    return [
        Holding(
            tier,
            int(mine.sum()),
            {name: int(fits[name][mine].sum()) for name in fits},
            {name: float(needed[name][mine].max()) for name in needed},
        )
        for tier, mine in groups
    ]


def _precisions(shape: ModelShape) -> Iterator[tuple[str, ModelShape]]:
    """Yield the charged model as it is and, where adapters train on known layers, with frozen weights of 16, 8 and 4 bits."""
    yield AS_SET, shape
    if shape.full or shape.operations is not None:
        return
    yield HALF, _with(shape, NOT_HELD)
    layers = max(shape.matmul_params - shape.head_params, 0)
    for how in (Quantise(kind="int8"), Quantise(kind="nf4")):
        yield how.kind, _with(shape, how.held([layers]))


def _with(shape: ModelShape, held: Held) -> ModelShape:
    return replace(shape, weight_bytes=HALF_BYTES, quantised_params=held[0], quantised_bytes=held[1])
