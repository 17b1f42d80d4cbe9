"""A user's model that trains as a whole, in and out of a flat vector."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fedsim.adapters.adapter import Layout, Vector
from fedsim.training.lora import Trainee


class Whole(Trainee):
    """A model whose parameters all train, or those that its user has left trainable.

    Running statistics, and whatever other buffers training moves, are part of the vector: they go to the
    server and are averaged there as weights are. Counters that training moves begin anew at every visit. A server that
    steps further than the clients' mean, or a coarse message, can bring a variance below zero: it is then taken as zero.

    Attributes:
        lr_ratios: how many times the learning rate each parameter has.
    """

    def __init__(self, model: nn.Module, layout: Layout, counters: Sequence[str] = ()) -> None:
        """Take a model as it is.

        Args:
            model: newly built.
            layout: names of its parameters, then of buffers (`fedsim.training.own.layers.whole`).
            counters: buffers of whole numbers that training moves.
        """
        self.layout, self.model = layout, model
        named: dict[str, Tensor] = {**dict(model.named_buffers()), **dict(model.named_parameters())}
        self.parameters = [named[tensor.name] for tensor in layout.tensors]
        self.lr_ratios = [1.0] * len(self.parameters)
        self._variances = [
            buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] == "running_var"
        ]
        self._counters = [(named[name], named[name].clone()) for name in counters]

    def rebase(self, base: Vector | None) -> None:
        """Do nothing: a whole model has no frozen weights that a rule could change."""
        assert base is None, "a whole model has no base"

    def write(self, vector: Vector) -> None:
        """Copy a vector into the model."""
        super().write(vector)
        for variance in self._variances:
            variance.clamp_(min=0.0)
        for counter, first in self._counters:
            counter.copy_(first)
