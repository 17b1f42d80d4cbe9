"""What crosses the seam between the clock and the workers: jobs in, updates and sums out.

No torch, no ray, no simpy here. A `Task` is a picklable value: plain arrays and settings; the
backbone is loaded by the worker that first needs it and never pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from fedsim.adapter import Layout, Vector
from fedsim.cost import ModelShape
from fedsim.experiment import LocalConfig, LoraConfig, NumericsConfig


@dataclass(frozen=True)
class Job:
    """One visit's training.

    Attributes:
        client: whose data.
        visit: k-th visit of this client, from 0; with `purpose` it addresses all randomness.
        start: the vector to start from, or the executor's handle to it.
        local: optimiser, learning rate, epochs or steps.
        seed: the experiment's seed.
        purpose: first word of the random address (`train`, `personal`).
        rank: slots of each module that this client trains (scale alpha / rank); None: the layout's.
            The vector keeps the layout's shape: slots from `rank` on are zero and stay zero.
        trains: which factors move (`A` or `B`: the other one is frozen).
    """

    client: int
    visit: int
    start: Any
    local: LocalConfig
    seed: int
    purpose: str = "train"
    rank: int | None = None
    trains: Literal["AB", "A", "B"] = "AB"


@dataclass(frozen=True)
class Update:
    """What training gives back: the vector where it ended, and what it took.

    Attributes:
        end: float32 vector, same layout as the start.
        examples, tokens, steps: what was really used.
        loss: mean training loss per token (nats), NaN if no step was made.
        state: what a stateful algorithm keeps for this client's next visit.
    """

    end: Vector
    examples: int
    tokens: int
    steps: int
    loss: float
    state: Any = None


@dataclass(frozen=True)
class Probe:
    """A fixed piece of an evaluation: rows [start, stop) of a split (of one client for `client`)."""

    split: str
    start: int
    stop: int
    client: int | None = None


@dataclass(frozen=True)
class ScoreJob:
    """Score `vector` (or a handle to it) on one probe."""

    vector: Any
    probe: Probe


Sums = dict[str, Any]
"""Additive parts of a metric (`nll`, `tokens`, `words`, `bytes`), float64 numbers or arrays; summed in probe order."""


class Task(Protocol):
    """Data, model and loss; the runtime side of a task component. Picklable without the backbone."""

    @property
    def clients(self) -> int:
        """Number of clients that have a shard."""
        ...

    @property
    def layout(self) -> Layout:
        """What an update holds; known without loading weights."""
        ...

    @property
    def shape(self) -> ModelShape:
        """Size of the model that really trains, for the cost model."""
        ...

    def examples(self, client: int) -> int:
        """Training examples in the client's shard (>= 1)."""
        ...

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Tokens that one visit of this client trains on; known without training."""
        ...

    # A task may also have `warm()`: load what is loaded lazily, before the clock starts; and what
    # `auto` in `numerics` stands for: `suggested_client_batch() -> int`, `suggested_training() -> str`.

    def initial(self) -> Vector:
        """Return version 0: LoRA's own initialisation (B = 0), or the pre-trained weights if full."""
        ...

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train each job from its start; results do not depend on how jobs are grouped."""
        ...

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return fixed pieces that together evaluate a split (`test`, `valid`, `clients`, `client`)."""
        ...

    def score(self, vector: Vector, probe: Probe) -> Sums:
        """Return the additive sums of one piece."""
        ...

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Turn summed parts into metrics by name; the first is the headline."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return plain facts for run.json and the report (model, parameters, corpus hash, ...)."""
        ...

    def save_adapter(self, vector: Vector, folder: Path) -> None:
        """Write the final adapter so that stock PEFT (or transformers, if full) loads it."""
        ...


@dataclass(frozen=True)
class TaskContext:
    """What a task component needs from the rest of the experiment to build its `Task`.

    Attributes:
        clients, seed, lora, local, numerics: of the experiment.
        cache_bytes: room in each worker for what is computed once and comes again.
        gpus_per_worker: share of a GPU that a worker reserves.
    """

    clients: int
    seed: int
    lora: LoraConfig
    local: LocalConfig
    numerics: NumericsConfig = field(default_factory=NumericsConfig)
    cache_bytes: float = 0.0
    gpus_per_worker: float = 0.0


def add_sums(parts: Sequence[Mapping[str, Any]]) -> Sums:
    """Add sums in the given order, in float64."""
    total: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, np.float64(0.0)) + np.asarray(value, np.float64)
    return {key: float(value) if np.ndim(value) == 0 else value for key, value in total.items()}
