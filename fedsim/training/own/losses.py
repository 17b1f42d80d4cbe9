"""The user's loss and metrics, called and held against what they must give."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedsim.errors import ExperimentError, message
from fedsim.jobs import Job
from fedsim.rng import seed_of
from fedsim.training.lora import Trainee
from fedsim.training.own.chance import drawing
from fedsim.training.own.examples import Examples
from fedsim.training.own.source import WHERE, Source

COUNT, LOSS = "examples", "loss"
"""What the sums of a score count, and its first metric."""


def loss_of(source: Source, model: nn.Module, examples: Examples) -> Tensor:
    """Return the loss of each example (n,), or their mean (), as the user's `loss` gives it, in at least float32.

    Raises:
        ExperimentError: it gives something else.
    """
    value = source.task.loss(model, examples.batch)
    n = len(examples)
    if not isinstance(value, Tensor):
        what = f"`{source.name}.loss` returns a {type(value).__name__}, which is no tensor"
    elif value.shape not in ((), (n,)):
        what = f"`{source.name}.loss` returns a tensor of shape {tuple(value.shape)} for {n} examples"
    elif not value.is_floating_point():
        what = f"`{source.name}.loss` returns numbers of {str(value.dtype).removeprefix('torch.')}"
    else:
        return value.to(torch.promote_types(value.dtype, torch.float32))
    fix = "return one loss an example, (n,), or their mean, ()"
    raise ExperimentError(message(WHERE, what, fix=fix))


def spread(value: Tensor, n: int) -> Tensor:
    """Return one number an example, (n,): a mean stands for each of them."""
    return value.expand(n) if value.dim() == 0 else value


def metrics_of(source: Source, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Return the loss and the user's metrics of each example, (n,) each, in float64; the loss first.

    Raises:
        ExperimentError: they are not numbers of examples by name.
    """
    n = len(examples)
    values = {LOSS: spread(loss_of(source, model, examples), n).double()}
    further: object = source.task.metrics(model, examples.batch)
    if not isinstance(further, Mapping):
        what = f"`{source.name}.metrics` returns a {type(further).__name__}"
        raise ExperimentError(message(WHERE, what, fix='return a dict, as {"accuracy": hits}'))
    for name, value in further.items():
        if name in (LOSS, COUNT):
            what = f"`{source.name}.metrics` calls a metric {name!r}, which fedsim has itself"
            raise ExperimentError(message(WHERE, what, fix="give it another name"))
        number = torch.as_tensor(value)
        if number.shape not in ((), (n,)) or number.is_complex():
            shape = tuple(number.shape)
            what = f"`{source.name}.metrics` gives {name!r} the shape {shape} for {n} examples"
            fix = "give one value an example, (n,), or their mean, ()"
            raise ExperimentError(message(WHERE, what, fix=fix))
        values[str(name)] = spread(number, n).double()
    return values


def bare(trainee: Trainee) -> nn.Module:
    """Return the user's own model: under the layers of PEFT, where there are any."""
    return trainee.model if trainee.layout.full else trainee.model.base_model.model


class Alone:
    """One client's losses at one step, (n * tokens,), for `sequential.train`: what the user's code draws is addressed by visit and step."""

    def __init__(self, source: Source, device: str, tokens: int) -> None:
        self._source, self._device, self._tokens = source, device, tokens

    def __call__(self, trainee: Trainee, examples: Examples, job: Job, step: int) -> Tensor:
        """Return one loss a token: each example's, or the mean where the user gives that, as often as it has tokens."""
        seed = seed_of(job.seed, job.purpose, job.client, job.visit, "step", step)
        with drawing(seed, self._device):
            value = loss_of(self._source, bare(trainee), examples.to(self._device))
        each = spread(value, len(examples))
        return each if self._tokens == 1 else each.repeat_interleave(self._tokens)
