"""LoRA dropout by address: what a client drops depends on nothing but who, which visit, step and layer.

The masks are drawn on the CPU for a client's real rows, so they are the same alone or in a batch,
on every device and however the batch is split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedsim.jobs import Job
from fedsim.rng import seed_of


def survivors(p: float, job: Job, step: int, module: int, count: int) -> Tensor:
    """Return which of `count` numbers survive dropout with probability 1 - p, bool (count,)."""
    seed = seed_of(job.seed, "dropout", job.purpose, job.client, job.visit, step, module)
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) >= p


def dropout(
    p: float, jobs: Sequence[Job], lengths: Sequence[int], step: int, rows: slice, like: Tensor
) -> Callable[[int, tuple[int, ...]], Tensor]:
    """Return the `Noise` of one step of some clients, or of some of their rows.

    Args:
        p: probability that a number of the adapter's input is set to 0; the others are divided by 1 - p.
        jobs: the clients' jobs.
        lengths: real rows of each client in this step.
        step: which step of the visit, from 0.
        rows: which rows of the batch are asked for.
        like: a tensor of the right dtype and device.
    """

    def noise(module: int, shape: tuple[int, ...]) -> Tensor:
        per_row = shape[1] // (rows.stop - rows.start)  # more than 1 if a layer sees tokens as rows
        inner = (per_row, *shape[2:])
        mask = torch.zeros(shape, dtype=torch.bool)
        each = mask.view(len(jobs), -1, *inner)
        for into, job, real in zip(each, jobs, lengths, strict=True):
            there = survivors(p, job, step, module, real * math.prod(inner)).view(real, *inner)[rows]
            into[: len(there)] = there
        return mask.to(like.device).to(like.dtype).mul_(1 / (1 - p))

    return noise
