"""One step of a user's model: made, counted, and held against what a step must be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsim.cost.operations import Operations
from fedsim.errors import ExperimentError, message
from fedsim.rng import seed_of
from fedsim.training.own import work
from fedsim.training.own.chance import drawing
from fedsim.training.own.examples import Examples
from fedsim.training.own.losses import loss_of
from fedsim.training.own.source import WHERE, Source, asking


@dataclass
class Bench:
    """A model on trial, and the examples of one step.

    Attributes:
        source: the user's class.
        model: what `loss` is called with.
        examples: of the step.
        draws: whether the user's loss has drawn random numbers.
    """

    source: Source
    model: nn.Module
    examples: Examples
    draws: bool = False

    def losses(self) -> Tensor:
        """Return the losses of the step, (n,) or (); what the user's code draws is the same each time.

        Raises:
            ExperimentError: they are none, or have no gradient.
        """
        with asking(self.source.task, "loss"), drawing(seed_of(self.source.seed, "trial")):
            before = torch.default_generator.get_state()
            values = loss_of(self.source, self.model, self.examples)
            self.draws |= not torch.equal(before, torch.default_generator.get_state())
        if values.requires_grad:
            return values
        what = f"`{self.source.name}.loss` has no gradient: it does not depend on what is trained"
        fix = "compute it of the model's output, without detach, item or no_grad"
        raise ExperimentError(message(WHERE, what, fix=fix))

    def step(self) -> Operations:
        """Make the step forward and backward, and return what it costs, an example; gradients stay on the parameters.

        Raises:
            ExperimentError: the loss has no gradient, or is not finite.
        """
        with asking(self.source.task, "loss"):
            costs, values = work.counted(self.model, self.losses, len(self.examples))
        if not torch.isfinite(values).all():
            what = f"`{self.source.name}.loss` of the first batch is not finite before any training"
            fix = "scale the data, or the model's first weights"
            raise ExperimentError(message(WHERE, what, got=float(values.mean()), fix=fix))
        return work.at_least_once(costs, sum(p.numel() for p in self.model.parameters()))
