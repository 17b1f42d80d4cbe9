"""What crosses the seam between the clock and the workers: jobs in, updates and sums out.

No torch, ray or simpy here: a `Task` is a picklable value; its backbone is loaded by the worker that first needs it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Trains, Vector
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.cost.shape import ModelShape

CALL_BYTES = 4 * 2**20
"""Most bytes of results in one call: several calls lie in memory at a time."""
FileKind = Literal["model", "data"]
"""What a file is to a task."""
SPLIT = "gallery"
"""The split of a probe that a task answers with `images`, or with texts: rows are numbers of samples."""


@dataclass(frozen=True)
class Job:
    """One visit's training.

    Attributes:
        client: whose data.
        visit: k-th visit of this client, from 0; with `purpose` it addresses all randomness.
        start: the vector to start from, or the executor's handle to it.
        local: optimiser, learning rate, epochs or steps.
        seed: of training.
        purpose: first word of the random address (`train`, `personal`).
        rank: slots of each module that this client trains; None: the layout's. Those from `rank` on stay zero.
        trains: which factors move (`A` or `B`: the other one is frozen).
        scale: what B A is multiplied with, in every module; None: alpha / rank.
        base: change of the frozen weights (a `Base.vector`), or the executor's handle to it; None: none.
        anchor: centre of the proximal term, or the executor's handle to it; None: the start.
        slot_penalty: (lambda, s): the objective has lambda sum_m |B_m[:, s:]| |A_m[s:]| besides (`fedsim.training.slot_penalty`).
        upto: most steps that are made: the first ones of the visit as `local` describes it; None: all.
        depth: layers, counted from the output, whose adapters this client has (`Layout.below`); None: all. Others stay zero.
    """

    client: int
    visit: int
    start: Any
    local: LocalConfig
    seed: int
    purpose: str = "train"
    rank: int | None = None
    trains: Trains = "AB"
    scale: float | None = None
    base: Any = None
    anchor: Any = None
    slot_penalty: tuple[float, int] | None = None
    upto: int | None = None
    depth: int | None = None

    @property
    def vectors(self) -> tuple[Any, Any, Any]:
        """Start, base and anchor: vectors, handles or None."""
        return self.start, self.base, self.anchor


@dataclass(frozen=True)
class Update:
    """What training gives back: the vector where it ended, and what it took.

    Attributes:
        end: float32 vector, same layout as the start.
        examples: different examples that its steps went through, at most those of the shard.
        tokens, steps: what was really used, repeats counted.
        loss: mean training loss per token (nats), NaN if no step was made.
        square: mean over tokens of the squared mean loss of the batch each was in (nats^2), NaN if unknown.
    """

    end: Vector
    examples: int
    tokens: int
    steps: int
    loss: float
    square: float = math.nan

    def fault(self, size: int) -> str | None:
        """Return what is wrong with this update for a layout of `size` floats, in words; None if nothing is."""
        end = np.asarray(self.end)
        if end.shape != (size,):
            return f"it has shape {end.shape}, the layout needs ({size},)"
        if end.dtype != np.float32:
            return f"its numbers are {end.dtype}, not float32"
        finite = np.isfinite(end)
        if not finite.all():
            return f"{size - int(np.count_nonzero(finite))} of its {size} numbers are not finite"
        if not (math.isfinite(self.examples) and self.examples >= 0):
            return f"it counts {self.examples} examples"
        return None


@dataclass(frozen=True)
class Probe:
    """A fixed piece of an evaluation: rows [start, stop) of a split (of one client for `client`)."""

    split: str
    start: int
    stop: int
    client: int | None = None


@dataclass(frozen=True)
class ScoreJob:
    """Score `vector` on one probe, over the frozen weights changed by `base`; either may be a handle."""

    vector: Any
    probe: Probe
    base: Any = None

    @property
    def vectors(self) -> tuple[Any, Any]:
        """Vector and base: vectors, handles or None."""
        return self.vector, self.base


Sums = dict[str, Any]
"""Additive parts of a metric (`nll`, `tokens`, `words`, `bytes`), float64 numbers or arrays; summed in probe order. `fedsim.metrics.sums.Stacked` arrays are put one after the other."""


class Task(ABC):
    """Data, model and loss; the runtime side of a task component. Picklable without the backbone.

    What is not abstract has a default that suits a task which needs no more.
    """

    if TYPE_CHECKING:  # at run time these are a task's own: fields of a dataclass, say

        @property
        def clients(self) -> int:
            """Number of clients that have a shard."""

        @property
        def layout(self) -> Layout:
            """What an update holds; known without loading weights."""

        @property
        def shape(self) -> ModelShape:
            """Size of the model that really trains, for the cost model."""

    @abstractmethod
    def examples(self, client: int) -> int:
        """Training examples in the client's shard (>= 1)."""

    @abstractmethod
    def tokens(self, client: int, local: LocalConfig) -> int:
        """Tokens that one visit of this client trains on; known without training."""

    @abstractmethod
    def initial(self) -> Vector:
        """Return version 0: LoRA's own initialisation (B = 0), or the pre-trained weights if full."""

    @abstractmethod
    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train each job from its start, on its base; results do not depend on how jobs are grouped."""

    @abstractmethod
    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return fixed pieces that together evaluate a split.

        `test`, `valid`, `clients` (what all clients keep apart), `client` (what one keeps apart), `shard` (what
        one trains on).
        """

    @abstractmethod
    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return the additive sums of one piece; `base` changes the frozen weights (`Base.vector`)."""

    def score_together(self, jobs: Sequence[ScoreJob]) -> list[Sums]:
        """Return the sums of several pieces, of one vector or many, in their order; by default one after the other."""
        bases = [() if job.base is None else (job.base,) for job in jobs]  # a task need not know of bases
        return [self.score(job.vector, job.probe, *base) for job, base in zip(jobs, bases, strict=True)]

    @abstractmethod
    def metrics(self, sums: Sums) -> dict[str, float]:
        """Turn summed parts into metrics by name; the first is the headline."""

    def metric_names(self, split: str) -> tuple[str, ...] | None:
        """Return the names of a split's metrics, the headline first; None: they are known once it is scored."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return plain facts for run.json and the report (model, parameters, corpus hash, ...)."""

    @abstractmethod
    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the final adapter so that stock PEFT (or transformers, if full) loads it; returns its rank.

        With a `base`, change and adapter become one adapter of the rank they need together.
        """

    def warm(self) -> None:  # noqa: B027  # a task without anything to load is complete
        """Load what is loaded lazily, before the clock starts."""

    def suggested_client_batch(self) -> int | None:
        """Return what `numerics.client_batch: auto` stands for; None: what the round alone says."""
        return None

    def suggested_training(self) -> Literal["fused", "swapped", "sequential"] | None:
        """Return what `numerics.training: auto` stands for; None: there is no choice."""
        return None

    def mean_sequence(self, client: int) -> float | None:
        """Return how long the sequence is, on average, that a token of a client's data is in; None: `shape.sequence`."""
        return None

    def suggested_windows(self, visits: float, local: LocalConfig, splits: Sequence[str]) -> int | None:
        """Return how many examples of a split to score, with so many `visits` between two evaluations; None: all."""
        return None


class DrawingTask(Task):
    """A task whose model draws pictures: `score` answers a probe of the split `SPLIT` with `images`."""

    @abstractmethod
    def real(self, n: int) -> NDArray[np.uint8]:
        """Return n of the clients' images, (n, C, H, W)."""

    @abstractmethod
    def classes_of(self, client: int) -> str:
        """Return the names of a client's classes, for a caption."""


class FileTask(Task):
    """A task whose workers read files: a cluster's nodes may have them elsewhere, or be sent them (`runtime.ship`)."""

    @abstractmethod
    def files(self, kinds: Collection[FileKind]) -> Mapping[str, Path]:
        """Return name -> where it lies on this machine, of the files and folders of these kinds that workers read.

        Args:
            kinds: `model`: weights; `data`: what `train` and `score` read besides. What a task holds as arrays is not named.
        """

    @abstractmethod
    def moved(self, place: Callable[[str], str]) -> Self:
        """Return the task with every such name replaced by `place(name)`."""


ATTRIBUTES = ("clients", "layout", "shape")


def missing(task: object) -> list[str]:
    """Return what an object lacks to be a `Task`, by name.

    >>> missing(object())[:4]
    ['clients', 'layout', 'shape', 'examples']
    """
    methods = [name for name, member in vars(Task).items() if callable(member) and not name.startswith("_")]
    return [name for name in (*ATTRIBUTES, *methods) if not hasattr(task, name)]


@dataclass(frozen=True)
class TaskContext:
    """What a task component needs from the rest of the experiment to build its `Task`.

    Attributes:
        clients, lora, local, numerics: of the experiment.
        seed: of the data: the address of the split, of held-out parts and of what is scored.
        cache_bytes: room in each worker for what is computed once and comes again.
        gpus_per_worker: share of a GPU that a worker reserves.
        training_seed: the address of version 0; None: `seed`. That of all other training comes with the jobs.
    """

    clients: int
    seed: int
    lora: LoraConfig
    local: LocalConfig
    numerics: NumericsConfig = field(default_factory=NumericsConfig)
    cache_bytes: float = 0.0
    gpus_per_worker: float = 0.0
    training_seed: int | None = None

    @property
    def first_seed(self) -> int:
        """Address of version 0."""
        return self.seed if self.training_seed is None else self.training_seed
