"""One client batch in this process, on one thread: fedsim's training path beside a stock PEFT loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import CACHE, Results, interleaved
from benchmarks.w1 import recipe
from benchmarks.w1.world import World, made

Vector = NDArray[np.float32]


class Bench:
    """A world loaded twice in this process: by fedsim, and as a stock PEFT model.

    Args:
        world: the workload.
        k: clients of a fedsim batch.
        training: `numerics.training`.
        dtype: of fedsim's frozen backbone.
        device: `cpu` (one thread) or `cuda`.
        stock: whether to load the stock model too.
    """

    def __init__(
        self,
        world: World,
        k: int,
        *,
        training: str = "auto",
        dtype: str = "float32",
        device: str = "cpu",
        stock: bool = True,
    ) -> None:
        import torch

        from fedsim.runs import simulation

        torch.set_num_threads(1)
        os.environ["FEDSIM_DEVICE"] = device
        self.world, self.k, self.device = world, k, device
        self.folder = made(world, CACHE, 1).resolve()
        at_once = k * world.batch * world.sequence
        numerics = {"client_batch": k, "training": training, "dtype": dtype, "tokens_at_once": at_once}
        self.experiment = world.experiment(self.folder, numerics=numerics, runtime={"executor": "inline"})
        self.task: Any = simulation.prepared(self.experiment).task
        self.schedule = recipe.Schedule(self.folder)
        if stock:
            self.model = recipe.build(self.folder).to(device)
            self.parameters = recipe.trainable(self.model, self.schedule.names)

    def batched(self, repeats: int = 1) -> float:
        """Train `repeats` batches of K clients in fedsim; returns seconds per client update."""
        from fedsim.jobs import Job

        started = time.perf_counter()
        for _ in range(repeats):
            jobs = [
                Job(c, 0, self.schedule.initial, self.experiment.local, self.experiment.seed)
                for c in range(self.k)
            ]
            self.last = self.task.train(jobs)
        self._finish()
        return (time.perf_counter() - started) / (repeats * self.k)

    def stock(self, clients: int) -> float:
        """Train clients one by one with stock PEFT; returns seconds per client update."""
        started = time.perf_counter()
        for client in range(clients):
            recipe.write(self.parameters, self.schedule.initial)
            self.stock_loss = recipe.train(self.model, self.parameters, self.batches(client))
            self.stock_end = recipe.read(self.parameters)
        self._finish()
        return (time.perf_counter() - started) / clients

    def batches(self, client: int) -> NDArray[Any]:
        """Return the token ids (steps, batch, sequence + 1) that fedsim gives this client at its first visit."""
        from fedsim.jobs import Job
        from fedsim.training import local

        job = Job(client, 0, None, self.experiment.local, self.experiment.seed)
        windows = self.task.windows.tokens[self.task.splits.training[client]]
        rows: NDArray[Any] = windows[np.array(list(local.batches(len(windows), job)))]
        return rows

    def apart(self) -> tuple[float, float]:
        """Return how far fedsim's first client ends from stock PEFT's: of the largest move, and in loss [nats]."""
        self.stock(1)
        self.batched()
        move = np.abs(self.stock_end - self.schedule.initial).max()
        gap = np.abs(self.last[0].end - self.stock_end).max()
        return float(gap / move), abs(self.last[0].loss - self.stock_loss)

    def _finish(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()


def per_update(seconds: Sequence[float]) -> list[float]:
    """Return milliseconds."""
    return [1e3 * s for s in seconds]


def enough(run: Callable[[], float], updates: int, least_s: float) -> int:
    """Return how often to repeat a run of `updates` updates so that it takes at least `least_s`."""
    return max(1, int(np.ceil(least_s / (run() * updates))))


def stock_and_batches(
    results: Results, reference: Bench, ks: Sequence[int], least_s: float
) -> dict[str, list[float]]:
    """Time stock PEFT and every K of fedsim in turns; returns seconds per client update of `stock`, `k1`, ...

    Args:
        results: whose options say how often.
        reference: the world, with the stock model.
        ks: clients in a batch.
        least_s: length of one timed run; a quick trial runs once.
    """
    least_s = 0.0 if results.options.quick else least_s
    runs = {"stock": partial(reference.stock, enough(partial(reference.stock, 1), 1, least_s))}
    for k in ks:
        bench = Bench(reference.world, k, stock=False)
        runs[f"k{k}"] = partial(bench.batched, enough(bench.batched, k, least_s))
    return interleaved(runs, results.options.counted, results.listen)
