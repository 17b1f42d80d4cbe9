"""What is done to the gradients of k clients beside the loss: proximal terms, penalties, masks, clipping.

Each term knows its own tensors, one row a client, and changes the gradients of the first k clients in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.jobs import Job
from fedsim.training import slot_penalty
from fedsim.training.stacked.optimizers import column


class Term(Protocol):
    """A change of gradients."""

    def apply(self, factors: Tensor, gradients: Tensor) -> None:
        """Change `gradients` (k, size) of clients at `factors` (k, size)."""
        ...


@dataclass(frozen=True)
class Prox:
    """FedProx (arXiv 1812.06127): mu (x - centre)."""

    mu: Tensor
    centre: Tensor

    def apply(self, factors: Tensor, gradients: Tensor) -> None:
        """Add the gradient of mu/2 |x - centre|^2."""
        k = len(gradients)
        gradients.addcmul_(factors - self.centre[:k], self.mu[:k])


@dataclass(frozen=True)
class SlotPenalty:
    """HetLoRA's regulariser of each client's last slots; see `fedsim.training.slot_penalty`."""

    layout: Layout
    strength: Tensor
    first: Sequence[int]

    def apply(self, factors: Tensor, gradients: Tensor) -> None:
        """Add the regulariser's gradient."""
        k = len(gradients)
        gradients.add_(slot_penalty.gradient(self.layout, factors, self.strength[:k], self.first[:k]))


@dataclass(frozen=True)
class Mask:
    """Numbers that a client does not train: slots above its rank, frozen factors."""

    free: Tensor

    def apply(self, factors: Tensor, gradients: Tensor) -> None:
        """Make their gradients 0."""
        gradients.mul_(self.free[: len(gradients)])


@dataclass(frozen=True)
class Clip:
    """Gradients no longer than a norm, over all that a client trains."""

    norm: Tensor

    def apply(self, factors: Tensor, gradients: Tensor) -> None:
        """Shorten longer ones."""
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        gradients.mul_((self.norm[: len(gradients)] / (norms + 1e-6)).clamp_(max=1.0))


def terms(layout: Layout, jobs: Sequence[Job], factors: Tensor, free: Tensor | None) -> list[Term]:
    """Return what the jobs ask for, in the order in which it is applied.

    Args:
        layout: of the factors.
        jobs: of the clients.
        factors: where they start, (k, size).
        free: 1 where a client's numbers may move, else 0; None: everywhere.
    """
    chosen: list[Term] = []
    local = [job.local for job in jobs]
    if any(settings.prox_mu for settings in local):
        chosen.append(Prox(column([settings.prox_mu for settings in local], factors), _centre(jobs, factors)))
    if any(job.slot_penalty is not None for job in jobs):
        strength = column([job.slot_penalty[0] if job.slot_penalty else 0.0 for job in jobs], factors)
        chosen.append(
            SlotPenalty(layout, strength, [job.slot_penalty[1] if job.slot_penalty else 0 for job in jobs])
        )
    if free is not None:
        chosen.append(Mask(free))
    if any(settings.clip_norm is not None for settings in local):
        chosen.append(Clip(column([settings.clip_norm or math.inf for settings in local], factors)))
    return chosen


def _centre(jobs: Sequence[Job], factors: Tensor) -> Tensor:
    """Return the centres of the proximal terms: each client's start, or its job's anchor."""
    centre = factors.clone()
    for row, job in zip(centre, jobs, strict=True):
        if job.anchor is not None:
            row.copy_(torch.from_numpy(np.array(job.anchor)).to(factors.device, factors.dtype))
    return centre
