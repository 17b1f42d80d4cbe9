"""Optimisers on the stacked factors of k clients: one step moves all, each by its own settings.

The arithmetic is torch's: AdamW (arXiv 1711.05101; betas 0.9 and 0.999, eps 1e-8) with its fused
kernel, called with one row a client so that a row's last bits do not depend on its neighbours; SGD
with momentum (no dampening) and weight decay added to the gradient.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from fedsim.adapters.adapter import Layout
from fedsim.config.learning import LocalConfig


class Optimiser(Protocol):
    """What moves the factors of k clients."""

    def step(self, gradients: Tensor, shares: Sequence[float] | None = None) -> None:
        """Move the first len(gradients) clients against `gradients`; `shares`: of each one's learning rate."""
        ...


def optimiser(
    factors: Tensor,
    local: Sequence[LocalConfig],
    free: Tensor | None,
    ratios: Sequence[float],
    layout: Layout,
) -> Optimiser:
    """Return a fresh optimiser of the clients' kind.

    Args:
        factors: (k, layout.size), changed in place.
        local: of the clients, all of one kind of optimiser.
        free: (k, layout.size), 0 where nothing may move; None: everything may.
        ratios: learning rate of each array of the layout in units of the client's.
        layout: of the factors.
    """
    kind = Sgd if local[0].optimizer == "sgd" else AdamW
    if set(ratios) <= {1.0}:
        return kind(factors, local, free)
    return _Parts(kind, factors, local, free, ratios, layout)


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers, one a client, as (k, 1) in the dtype and on the device of `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _alike(rates: Sequence[float]) -> dict[float, list[int]]:
    """Return who has each rate, ascending."""
    clients: dict[float, list[int]] = {}
    for i, rate in enumerate(rates):
        clients.setdefault(rate, []).append(i)
    return clients


class AdamW:
    """Adaptive moments and decoupled weight decay; no client's state outlives the call it is made for."""

    def __init__(self, factors: Tensor, local: Sequence[LocalConfig], free: Tensor | None) -> None:
        """Start afresh for `factors` (k, size), changed in place; `free` is 0 where nothing may move."""
        self._rates = [settings.lr for settings in local]
        self._alike = _alike(self._rates)
        self._factors = factors
        self._rows = factors.unbind()
        self._first = torch.zeros_like(factors).unbind()
        self._second = torch.zeros_like(factors).unbind()
        self._steps = torch.zeros(len(factors), dtype=torch.float32, device=factors.device).unbind()
        decay = column([settings.lr * settings.weight_decay for settings in local], factors)
        self._keep = None
        if any(settings.weight_decay for settings in local):
            self._keep = 1 - (decay if free is None else decay * free)

    def step(self, gradients: Tensor, shares: Sequence[float] | None = None) -> None:
        """Move the first len(gradients) clients against `gradients` (which may be changed).

        `shares` is what each takes of its learning rate; None: all of it.
        """
        k = len(gradients)
        if self._keep is not None:
            keep = self._keep[:k]
            self._factors[:k].mul_(keep if shares is None else 1 - (1 - keep) * column(shares, self._factors))
        rows = gradients.unbind()
        now_alike = self._alike
        if shares is not None:
            now_alike = _alike([rate * share for rate, share in zip(self._rates, shares, strict=False)])
        for rate, alike in now_alike.items():
            clients = alike[: bisect_left(alike, k)]
            if not clients:
                continue
            now, by, first, second, count = (
                [of[i] for i in clients] for of in (self._rows, rows, self._first, self._second, self._steps)
            )
            adamw(
                now, by, first, second, [], count, fused=True, amsgrad=False, beta1=0.9, beta2=0.999,
                lr=rate, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip


class Sgd:
    """Gradient descent with momentum."""

    def __init__(self, factors: Tensor, local: Sequence[LocalConfig], free: Tensor | None) -> None:
        """Start afresh for `factors` (k, size), changed in place; `free` is 0 where nothing may move."""
        self._factors = factors
        self._down = column([-settings.lr for settings in local], factors)
        self._momentum = column([settings.momentum for settings in local], factors)
        self._decay = self._velocity = None
        if any(settings.weight_decay for settings in local):
            decay = column([settings.weight_decay for settings in local], factors)
            self._decay = decay if free is None else decay * free
        if any(settings.momentum for settings in local):
            self._velocity = torch.zeros_like(factors)

    def step(self, gradients: Tensor, shares: Sequence[float] | None = None) -> None:
        """Move the first len(gradients) clients against `gradients`, as `AdamW.step` does."""
        k = len(gradients)
        factors = self._factors[:k]
        if self._decay is not None:
            gradients.addcmul_(factors, self._decay[:k])
        if self._velocity is not None:
            gradients = self._velocity[:k].mul_(self._momentum[:k]).add_(gradients)
        down = self._down[:k]
        factors.addcmul_(gradients, down if shares is None else down * column(shares, factors))


class _Parts:
    """Arrays of unequal learning rates, each rate's moved by an optimiser of its own on a copy of its columns."""

    def __init__(
        self,
        kind: type[AdamW | Sgd],
        factors: Tensor,
        local: Sequence[LocalConfig],
        free: Tensor | None,
        ratios: Sequence[float],
        layout: Layout,
    ) -> None:
        of_number = np.empty(layout.size)
        for ratio, (place, _) in zip(ratios, layout.slices.values(), strict=True):
            of_number[place] = ratio
        self._factors = factors
        self._parts: list[tuple[Tensor, Tensor, AdamW | Sgd]] = []
        for ratio in sorted(set(ratios)):
            columns = torch.from_numpy(np.flatnonzero(of_number == ratio)).to(factors.device)
            copies = factors[:, columns]
            faster = [settings.model_copy(update={"lr": settings.lr * ratio}) for settings in local]
            part = kind(copies, faster, None if free is None else free[:, columns])
            self._parts.append((columns, copies, part))

    def step(self, gradients: Tensor, shares: Sequence[float] | None = None) -> None:
        """Move the first len(gradients) clients against `gradients`, as `AdamW.step` does."""
        k = len(gradients)
        for columns, copies, part in self._parts:
            part.step(gradients[:, columns], shares)
            self._factors[:k].index_copy_(1, columns, copies[:k])
