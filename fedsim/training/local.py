"""What every local training shares: how long it is, the order of its data, its optimiser."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Module
from fedsim.config.learning import LocalConfig
from fedsim.errors import ExperimentError, message
from fedsim.jobs import Job
from fedsim.rng import stream

if TYPE_CHECKING:
    from torch import Tensor

Rows = NDArray[np.intp]
Windows = NDArray[Any]
"""Token ids (n, T + 1): the first column is context, the others are predicted."""


def steps(n: int, local: LocalConfig) -> int:
    """Return the optimiser steps of one visit over `n` examples."""
    return local.steps_over(n)


def made(n: int, job: Job) -> int:
    """Return the optimiser steps that a job makes over `n` examples."""
    whole = steps(n, job.local)
    return whole if job.upto is None else min(whole, job.upto)


def batches(n: int, job: Job) -> Iterator[Rows]:
    """Yield the rows of each step that the job makes, addressed by (seed, purpose, client, visit).

    With `epochs`, each epoch is a new permutation in batches of `batch`, the last one shorter. With
    `steps`, every batch is full: permutations follow one another without a break.
    """
    yield from islice(_all_batches(n, job), job.upto)


def _all_batches(n: int, job: Job) -> Iterator[Rows]:
    rng = stream(job.seed, job.purpose, job.client, job.visit)
    size = job.local.batch
    if job.local.steps is None:
        for _ in range(job.local.epochs or 1):
            order = rng.permutation(n)
            yield from (order[at : at + size] for at in range(0, n, size))
        return
    rest: Rows = np.empty(0, dtype=np.intp)
    for _ in range(job.local.steps):
        while rest.size < size:
            rest = np.concatenate([rest, rng.permutation(n)])
        yield rest[:size]
        rest = rest[size:]


def optimizer(parameters: Sequence[Tensor], local: LocalConfig, ratios: Sequence[float] | None = None) -> Any:
    """Return a fresh torch optimiser: AdamW (betas 0.9, 0.999, eps 1e-8) or SGD with momentum.

    Each group of its parameters has an `lr_ratio`: what its learning rate is in units of `local.lr`, from `ratios`, one
    a parameter; None: 1.
    """
    import torch

    of_each = [1.0] * len(parameters) if ratios is None else ratios
    groups = [
        {
            "params": [p for p, of in zip(parameters, of_each, strict=True) if of == ratio],
            "lr": local.lr * ratio,
            "lr_ratio": ratio,
        }
        for ratio in dict.fromkeys(of_each)
    ]
    decay = local.weight_decay
    if local.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=local.momentum, weight_decay=decay, foreach=False)
    return torch.optim.AdamW(groups, weight_decay=decay, fused=True)


def lr_ratios(layout: Layout, ratio: float) -> list[float]:
    """Return the learning rate of each array of a layout, in its order, where that of A is 1 (LoRA+, arXiv 2402.12354).

    `ratio` is that of B and, as PEFT has it, of all that has one dimension.
    """
    arrays = layout.slices.items()
    return [
        ratio if layout.slot_axes[name] == 1 or (layout.slot_axes[name] is None and len(shape) == 1) else 1.0
        for name, (_, shape) in arrays
    ]


def slots(
    layout: Layout, rank: int | None, factors: str = "AB", depth: int | None = None
) -> NDArray[np.bool_]:
    """Return which numbers of a vector belong to slots below `rank` (None: all) of the named factors in the last `depth` layers.

    Whole tensors of those layers always do.

    Raises:
        ExperimentError: the rank is not one of the layout's.
    """
    for m in layout.modules:
        _rank(m, rank)
    return layout.slots(rank, factors, depth)


def scales(layout: Layout, rank: int | None, scale: float | None = None) -> list[float]:
    """Return what a client of this rank (None: the layout's) multiplies each module's B A with.

    `scale` if it is given, else alpha / rank.
    """
    if scale is not None:
        return [scale] * len(layout.modules)
    return [m.scale * m.rank / _rank(m, rank) for m in layout.modules]


def _rank(module: Module, rank: int | None) -> int:
    slots_used = module.rank if rank is None else rank
    if not 1 <= slots_used <= module.rank:
        what = f"{module.name} has {module.rank} slots"
        raise ExperimentError(
            message("rank", what, got=slots_used, fix=f"give ranks from 1 to {module.rank}")
        )
    return slots_used


def device() -> str:
    """Return where models of this process live: `FEDSIM_DEVICE` (set by who gives it a GPU), else cpu."""
    return os.environ.get("FEDSIM_DEVICE", "cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread (two differ in the last bit) and restore the caller's setting."""
    import torch

    before = torch.get_num_threads()
    if before != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before != 1:
            torch.set_num_threads(before)
