"""What does not fit the device: a smaller micro-batch, checkpointing, a smaller rank, or no training.

Measures are tried in the order of `memory.when_short`: the first alone, then with the second, and so
on, each as mildly as will do. The virtual clock pays for them; what is learned stays the same (a batch in
parts adds up to the same gradient, recomputed activations are the same).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.memory.model import PLAIN, MemoryModel
from fedsim.cost.shape import ModelShape, with_rank

Measure = Literal["micro-batch", "checkpoint", "rank"]

FITS, REFUSED = "fits", "refused"


@dataclass(frozen=True)
class MemoryPlan:
    """How a device trains a model.

    Attributes:
        shape: the model as it is trained there: `batch` is the micro-batch.
        memory_bytes: peak memory of that.
        words: `fits`, `refused`, or what was done (`micro-batch 2, checkpoint`), after the depth of a device that has not all
            layers (`depth 4, checkpoint`).
    """

    shape: ModelShape
    memory_bytes: float
    words: str

    @property
    def fits(self) -> bool:
        """Whether the device trains at all."""
        return self.words != REFUSED


def plan_memory(
    shape: ModelShape, usable_bytes: float, measures: Sequence[Measure], model: MemoryModel = PLAIN
) -> MemoryPlan:
    """Return the mildest way to train in `usable_bytes`; refused as it was asked for if there is none.

    Of the measures allowed so far, checkpointing is taken whole; then the largest micro-batch, at the
    largest of the ranks r, r / 2, r / 4, ... that fits. `model` says what the device's program keeps.
    """
    whole_bytes = train_memory_bytes(shape, model)
    if whole_bytes <= usable_bytes:
        return MemoryPlan(shape, whole_bytes, FITS)
    for n in range(1, len(measures) + 1):
        for smaller in _smaller(shape, measures[:n]):
            needed_bytes = train_memory_bytes(smaller, model)
            if needed_bytes <= usable_bytes:
                return MemoryPlan(smaller, needed_bytes, _measures_taken(shape, smaller))
    return MemoryPlan(shape, whole_bytes, REFUSED)


def with_depth(words: str, depth: int) -> str:
    """Return the words of a plan that fits, of a device that has adapters in its last `depth` layers only.

    >>> with_depth("fits", 4), with_depth("micro-batch 2", 4)
    ('depth 4', 'depth 4, micro-batch 2')
    """
    return f"depth {depth}" if words == FITS else f"depth {depth}, {words}"


def depth_in(words: str) -> int | None:
    """Return the depth that the words of a plan name; None: all layers, or no training.

    >>> depth_in("depth 4, micro-batch 2"), depth_in("fits")
    (4, None)
    """
    name, _, number = words.partition(",")[0].partition(" ")
    return int(number) if name == "depth" else None


def _smaller(shape: ModelShape, measures: Sequence[Measure]) -> Iterator[ModelShape]:
    """Yield the model by what the measures make of it, the mildest first."""
    recomputing = replace(shape, checkpoint=shape.checkpoint or "checkpoint" in measures)
    ranked = "rank" in measures and shape.rank
    for rank in _halves(shape.rank) if ranked else (shape.rank,):
        sized = recomputing if rank == shape.rank else with_rank(recomputing, rank)
        for batch in range(shape.batch, 0, -1) if "micro-batch" in measures else (shape.batch,):
            yield replace(sized, batch=batch)


def _halves(rank: int) -> Iterator[int]:
    while rank:
        yield rank
        rank //= 2


def _measures_taken(whole: ModelShape, smaller: ModelShape) -> str:
    done = [
        (smaller.batch != whole.batch, f"micro-batch {smaller.batch}"),
        (smaller.checkpoint and not whole.checkpoint, "checkpoint"),
        (smaller.rank != whole.rank, f"rank {smaller.rank}"),
    ]
    return ", ".join(words for applies, words in done if applies)
