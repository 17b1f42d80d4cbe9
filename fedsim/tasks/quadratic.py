"""A task with a known answer: every client minimises half the squared distance to its own optimum.

Client k's objective is f_k(x) = 1/2 |x - c_k|^2. Gradient descent with learning rate eta from x
ends after s steps at c_k + (1 - eta)^s (x - c_k), so what every protocol and rule must give can
be written down. It costs microseconds, which makes it the task of tests and of scheduling studies.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Module, Tensor, Vector
from fedsim.adapters.moved_base import split
from fedsim.config.fields import Count, NonNegative
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import Charge, charge_of
from fedsim.cost.shape import ModelShape
from fedsim.errors import DataError, WorkerError, message
from fedsim.jobs import Job, Probe, Sums, Task, TaskContext, Update
from fedsim.rng import stream
from fedsim.tasks._base import TaskComponent
from fedsim.tasks._descent import Optima, descend, refuse_other_training

PROBE_CLIENTS = 256
"""Clients whose objectives one probe of a split adds up."""


class Quadratic(TaskComponent):
    """`task: {kind: quadratic}`.

    Attributes:
        dimension: length of the vector (`whole`), or inputs and outputs of the one matrix (`lora`).
        spread: root mean square distance between two clients' optima.
        distance: distance from version 0 to the middle of the optima.
        examples: training examples of every client, or `unequal`: lognormal, median 32, sigma 1.
        tokens_per_example: what the cost model charges for one example.
        layout: `whole` sends one tensor; `lora` the factors of one matrix at `lora.r` (the
            objective is over the factors' entries, so the algebra is the same).
        layers: matrices of `lora`, one a layer.
        delay_s: each training really sleeps for up to this long, drawn from the operating
            system; changes wall time only.
        charge_as: the model that the clock charges instead of this one.
    """

    over_factors: ClassVar[bool] = True
    kind: Literal["quadratic"] = "quadratic"
    dimension: Count = 8
    spread: NonNegative = 1.0
    distance: NonNegative = 4.0
    examples: Count | Literal["unequal"] = 32
    tokens_per_example: Count = 16
    layout: Literal["whole", "lora"] = "whole"
    layers: Count = 1
    delay_s: NonNegative = 0.0
    charge_as: ChargeAs | None = None

    def build(self, context: TaskContext) -> QuadraticTask:
        """Return the task.

        Raises:
            ExperimentError: `local` asks for more than plain SGD, which has no closed form.
        """
        refuse_other_training(context.local)
        seeds = context.seed, context.first_seed
        return QuadraticTask(self, context.clients, seeds, context.lora, context.local.batch)

    def charge(self, *, full: bool) -> Charge | None:
        """Return what `charge_as` declares."""
        return charge_of(self.charge_as, full=full)

    def whole(self) -> bool:
        """Return whether the vector is one tensor."""
        return self.layout == "whole"


@dataclass(frozen=True)
class QuadraticTask(Task):
    """The runtime side: implements `fedsim.jobs.Task` in NumPy.

    Attributes:
        config, clients, lora, batch: of the experiment.
        seeds: of the data, and of version 0.
    """

    config: Quadratic
    clients: int
    seeds: tuple[int, int]
    lora: LoraConfig
    batch: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings only; optima are derived again where they are needed."""
        return type(self), (self.config, self.clients, self.seeds, self.lora, self.batch)

    @cached_property
    def layout(self) -> Layout:
        """One tensor `x` of shape (dimension,), or one adapted matrix `w`, or `h.0.w`, `h.1.w`, ... of several layers."""
        d, r, layers = self.config.dimension, self.lora.r, self.config.layers
        if self.config.layout == "whole":
            return Layout(tensors=(Tensor("x", (d,)),))
        names = [f"h.{at}.w" for at in range(layers)] if layers > 1 else ["w"]
        return Layout(modules=tuple(Module(n, r, (r, d), (d, r), self.lora.scale_of(r)) for n in names))

    @property
    def shape(self) -> ModelShape:
        """`dimension` weights (`whole`), or dimension x dimension under an adapter in every layer."""
        d, full, layers = self.config.dimension, self.layout.full, self.config.layers
        weights = d if full else d * d * layers
        return ModelShape(
            name="quadratic",
            layers=layers,
            width=d,
            vocab=1,
            params=weights,
            matmul_params=weights,
            adapter_params=self.layout.size,
            sequence=self.config.tokens_per_example,
            batch=self.batch,
            full=full,
        )

    @cached_property
    def _optima(self) -> Optima:
        seed = self.seeds[0]
        direction = stream(seed, "optimum").standard_normal(self.layout.size)
        middle = self._drawn(seed).astype(np.float64) + self.config.distance * direction / _norm(direction)
        return Optima(seed, self.clients, middle, self.config.spread)

    @property
    def optima(self) -> NDArray[np.float64]:
        """The clients' optima c_k, shape (clients, layout.size), float64."""
        return self._optima.all

    def examples(self, client: int) -> int:
        """Training examples of the client, at least 1."""
        if self.config.examples != "unequal":
            return self.config.examples
        drawn = stream(self.seeds[0], "examples", client).lognormal(math.log(32.0), 1.0)
        return max(1, round(drawn))

    def steps(self, client: int, local: LocalConfig) -> int:
        """Optimiser steps of one visit."""
        return local.steps_over(self.examples(client))

    def used(self, client: int, local: LocalConfig, upto: int | None = None) -> int:
        """Examples that one visit, or its first `upto` steps, trains on, repeats counted."""
        n, steps = self.examples(client), self.steps(client, local)
        made = steps if upto is None else min(steps, upto)
        if local.steps is not None:
            return made * min(local.batch, n)
        epochs, rest = divmod(made, math.ceil(n / local.batch))
        return epochs * n + rest * local.batch

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Tokens that one visit trains on."""
        return self.used(client, local) * self.config.tokens_per_example

    def initial(self) -> Vector:
        """Return zeros (`whole`), or A drawn by address and B = 0 (`lora`)."""
        return self._drawn(self.seeds[1])

    def _drawn(self, seed: int) -> Vector:
        """Return a version 0; the optima lie around that of the data's seed, whatever the training begins with."""
        vector = np.zeros(self.layout.size, dtype=np.float32)
        for m in self.layout.modules:
            bound = 1.0 / math.sqrt(self.config.dimension)  # PEFT's kaiming_uniform_(a=sqrt(5))
            drawn = stream(seed, "init", m.name).uniform(-bound, bound, m.a_shape)
            self.layout.arrays(vector)[f"{m.name}.lora_A"][:] = drawn
        return vector

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Return where plain SGD ends, in closed form; slots above a job's rank are 0, frozen factors stay."""
        return [self._train(job) for job in jobs]

    def _train(self, job: Job) -> Update:
        if self.config.delay_s:
            time.sleep(random.SystemRandom().uniform(0.0, self.config.delay_s))
        if not 0 <= job.client < self.clients:
            raise WorkerError(message(f"client {job.client}", f"the task has {self.clients} clients"))
        refuse_other_training(job.local)
        steps = self.steps(job.client, job.local)
        if job.upto is not None:
            steps = min(steps, job.upto)
        used = self.used(job.client, job.local, job.upto)
        start = np.asarray(job.start, dtype=np.float64)
        optimum = self._optima.of(job.client, job.client + 1)[0]
        centre = None if job.anchor is None else np.asarray(job.anchor, dtype=np.float64)
        if job.rank is None and job.trains == "AB" and not self.layout.below(job.depth):
            end, loss, square = descend(start, optimum, job.local, steps, centre=centre)
        else:
            end = np.where(self.layout.slots(job.rank, depth=job.depth), start, 0.0)
            free = self.layout.slots(job.rank, job.trains, job.depth)
            still = 0.5 * float(np.sum(((end - optimum)[~free]) ** 2))
            around = None if centre is None else centre[free]
            end[free], loss, square = descend(
                end[free], optimum[free], job.local, steps, centre=around, still=still
            )
        return Update(
            end=end.astype(np.float32),
            examples=min(self.examples(job.client), used),
            tokens=used * self.config.tokens_per_example,
            steps=steps,
            loss=loss,
            square=square,
        )

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return pieces of a split: `test` and `valid` are the objectives of all clients.

        `windows` keeps the first so many clients; `clients` has one probe a client; `client` and `shard`
        are the one named.

        Raises:
            DataError: it is a split of what a model generates.
        """
        if split in ("samples", "answers"):
            raise DataError(message("evaluate.splits", "is of another task", got=split, fix="leave it out"))
        if split in ("client", "shard"):
            assert client is not None
            return [Probe(split, 0, 1, client)]
        rows = self.clients if windows is None else min(windows, self.clients)
        if split == "clients":
            return [Probe(split, 0, 1, k) for k in range(rows)]
        return [Probe(split, at, min(at + PROBE_CLIENTS, rows)) for at in range(0, rows, PROBE_CLIENTS)]

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return the summed objectives (`nll`) and their number (`tokens`); no frozen weight enters them."""
        own = probe.client
        optima = self._optima.of(*((probe.start, probe.stop) if own is None else (own, own + 1)))
        gap = np.asarray(vector, dtype=np.float64) - optima
        return {"nll": 0.5 * float(np.sum(gap * gap)), "tokens": float(len(gap))}

    def metric_names(self, split: str) -> tuple[str, ...]:
        """Return the names of `metrics`."""
        return "loss", "perplexity"

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return `loss`, the mean objective, and `perplexity`, its exponential."""
        loss = sums["nll"] / sums["tokens"]
        return {"loss": loss, "perplexity": math.exp(loss) if loss < 700.0 else math.inf}

    def describe(self) -> dict[str, Any]:
        """Return the settings and the least loss any single vector can reach."""
        return {
            "model": "quadratic",
            "parameters": self.layout.size,
            "trainable": self.layout.size,
            "dimension": self.config.dimension,
            "spread": self.config.spread,
            "least_loss": self._optima.least_loss,
        }

    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the arrays by name to `adapter_model.safetensors` (`model.safetensors` if whole), and the base's.

        Returns:
            The rank of the adapter.
        """
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        name = "model.safetensors" if self.layout.full else "adapter_model.safetensors"
        arrays = self.layout.arrays(np.asarray(vector, dtype=np.float32))
        if base is not None:
            arrays |= {f"{m.name}.change": change for m, change in split(self.layout, np.asarray(base))}
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / name)
        return self.layout.rank


def _norm(vector: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.sum(vector * vector)))
