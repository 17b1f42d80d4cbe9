"""A user's model with the adapters of many clients at once: target layers swapped, losses example by example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.adapters.adapter import Layout, Vector
from fedsim.jobs import Job
from fedsim.training.backbone import Backbone, Stack
from fedsim.training.feeds import Feed
from fedsim.training.own.examples import Examples, joined
from fedsim.training.own.losses import loss_of, spread
from fedsim.training.own.source import Source
from fedsim.training.stacked.swapped import Swap


class Rows(Feed):
    """The examples of k clients on the device."""

    def __init__(self, data: Sequence[Examples], device: torch.device | str, tokens: int) -> None:
        self.tokens = tokens
        self._examples = joined(data).to(device)
        starts = np.cumsum([0, *map(len, data[:-1])])
        self._from = torch.from_numpy(starts).to(device)

    def batch(
        self, step: int, clients: slice, rows: slice, picked: Tensor, lengths: Sequence[int]
    ) -> Examples:
        """Return some rows of a step of some clients, client after client."""
        return self._examples[(picked + self._from[clients, None]).flatten()]


class Together(Backbone):
    """A frozen model whose target layers add each client's own adapter."""

    def __init__(self, source: Source, model: nn.Module, layout: Layout, tokens: int = 1) -> None:
        """Share the weights of a user's model, one example of which counts as so many tokens.

        Raises:
            ExperimentError: a layer is of a kind that cannot be swapped.
        """
        self.swap = Swap(model, layout)
        self.source, self.layout, self.device, self.tokens = source, layout, self.swap.device, tokens
        weight = model.get_submodule(layout.modules[0].name).weight
        self.dtype = torch.promote_types(weight.dtype, torch.float32)

    def feed(self, data: Sequence[Examples], jobs: Sequence[Job]) -> Rows:
        """Return what cuts batches from the clients' examples."""
        return Rows(data, self.device, self.tokens)

    def length(self, examples: Examples) -> int:
        """Return a number that is equal for examples of one kind, within a process."""
        return hash(examples.kind)

    def gradients(
        self, stack: Stack, tokens: Examples, weights: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return losses (k,) and gradients (k, size) of batches (k * rows, ...); see `Backbone.gradients`."""
        assert hidden is None, "a swapped model has no prefix"

        def losses(model: nn.Module) -> Tensor:
            return (self._each(model, tokens).view(weights.shape) * weights).sum(-1)

        return self.swap.gradients(stack, losses)

    def losses(self, stack: Stack, tokens: Examples) -> Tensor:
        """Return each example's loss, (k, rows), no gradient."""
        with torch.no_grad(), self.swap.set(stack):
            return self._each(self.swap.model, tokens).view(len(stack.factors), -1)

    def rebase(self, base: Vector | None) -> None:
        """Change the frozen weights; see `Backbone.rebase`."""
        self.swap.rebase(base)

    def stack(self, vectors: Sequence[Vector]) -> Stack:
        """Return the adapters of some vectors, at the layout's own scale."""
        factors = torch.from_numpy(np.stack(vectors)).to(self.device, self.dtype)
        scales = factors.new_tensor([m.scale for m in self.layout.modules]).expand(len(vectors), -1)
        return Stack(factors, scales)

    def _each(self, model: nn.Module, examples: Examples) -> Tensor:
        return spread(loss_of(self.source, model, examples), len(examples))
