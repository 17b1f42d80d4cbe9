"""A task that only adds one to 24 arrays, 45,056 floats in all: what its run takes is the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Layout, Tensor, Vector
from fedsim.config.learning import LocalConfig
from fedsim.cost.shape import ModelShape
from fedsim.jobs import Job, Probe, Sums, Task, TaskContext, Update
from fedsim.tasks import TaskComponent

MATRICES = ((128, 384), (128, 128), (512, 128)) * 4
"""(in, out) of W1's adapted matrices; rank 8."""


class Trivial(TaskComponent):
    """`task: {kind: "benchmarks.trivial_task:Trivial"}`."""

    def build(self, context: TaskContext) -> TrivialTask:
        """Return the task."""
        return TrivialTask(context.clients)


@dataclass(frozen=True)
class TrivialTask(Task):
    """Implements `fedsim.jobs.Task`."""

    clients: int

    @cached_property
    def layout(self) -> Layout:
        """W1's 24 arrays as whole tensors."""
        shapes = [shape for wide, out in MATRICES for shape in ((8, wide), (out, 8))]
        return Layout(tensors=tuple(Tensor(f"array{i}", shape) for i, shape in enumerate(shapes)))

    @property
    def shape(self) -> ModelShape:
        """As small as the cost model allows: a visit takes a moment of virtual time."""
        size = self.layout.size
        return ModelShape("trivial", 1, 1, 1, size, size, size, 1, 1, full=True)

    def examples(self, client: int) -> int:
        """Return one."""
        return 1

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Return one."""
        return 1

    def initial(self) -> Vector:
        """Return zeros."""
        return np.zeros(self.layout.size, dtype=np.float32)

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Add one to every array."""
        return [self._train(job) for job in jobs]

    def _train(self, job: Job) -> Update:
        end = np.empty(self.layout.size, dtype=np.float32)
        start = self.layout.arrays(job.start)
        for name, array in self.layout.arrays(end).items():
            np.add(start[name], np.float32(1.0), out=array)
        return Update(end, examples=1, tokens=1, steps=1, loss=0.0)

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return one piece."""
        return [Probe(split, 0, 1)]

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return the mean of the vector: the number of rounds."""
        return {"nll": float(np.mean(vector)), "tokens": 1.0}

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return it as `loss`."""
        return {"loss": sums["nll"] / sums["tokens"]}

    def describe(self) -> dict[str, Any]:
        """Return its size."""
        return {"model": "trivial", "trainable_params": self.layout.size}

    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the vector, so that the end of a run costs what it costs elsewhere."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"vector": vector.copy()}, folder / "model.safetensors")
        return self.layout.rank
