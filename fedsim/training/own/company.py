"""Whether clients of a user's model can train together: tried with two of them, beside each of them alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.adapters.adapter import Layout, Vector
from fedsim.errors import ExperimentError, message
from fedsim.rng import stream
from fedsim.training.backbone import Path
from fedsim.training.lora import Trainee
from fedsim.training.own.bench import Bench
from fedsim.training.own.source import Source
from fedsim.training.own.together import Together
from fedsim.training.stacked import swapped

SAME = 1e-3
"""How far a client's gradient may be off in a client batch, as a share of its largest entry, for clients to train together."""


def together(
    source: Source, model: nn.Module, layout: Layout, path: Path
) -> tuple[Together | None, str | None]:
    """Return the model for clients together, or why there is none; neither where that is not asked for.

    Raises:
        ExperimentError: `numerics.training` is `fused`.
    """
    if path == "fused":
        fix = "set numerics.training: auto, swapped or sequential"
        what = "a model of one's own is not written out"
        raise ExperimentError(message("numerics.training", what, got=path, fix=fix))
    if path == "sequential":
        return None, None
    why = swapped.refusal(model, layout)
    if why is not None:
        return None, why
    try:
        return Together(source, model, layout), None
    except Exception as problem:  # whatever a module says that cannot be copied
        return None, f"the model cannot be copied ({type(problem).__name__})"


def apart(model: Together, trainee: Trainee, bench: Bench) -> str | None:
    """Return why two clients with adapters of their own must train one after the other; None if they need not.

    Args:
        model: the model for clients together.
        trainee: stock PEFT.
        bench: one step of it.
    """
    if bench.losses().dim() == 0:
        return "`loss` returns a mean and not one loss an example"
    if bench.draws:
        return "`loss` draws random numbers"
    n = len(bench.examples)
    vectors = [drawn(trainee.layout, client) for client in range(2)]
    parts = [bench.examples, bench.examples[np.arange(n)[::-1].copy()]]
    weights = torch.full((2, n), 1.0 / n, dtype=model.dtype)
    every = torch.arange(n).expand(2, n)
    both = model.feed(parts, []).batch(0, slice(0, 2), slice(0, n), every, [n, n])
    try:
        losses, gradients = model.gradients(model.stack(vectors), both, weights)
    except Exception as problem:  # of the user's model, which is run on a batch that it did not expect
        return f"the model does not take the examples of two clients at once ({type(problem).__name__})"
    for at, (vector, part) in enumerate(zip(vectors, parts, strict=True)):
        loss, gradient = _alone(trainee, vector, Bench(bench.source, bench.model, part))
        if not (_near(losses[at], loss) and _near(gradients[at], gradient)):
            return "in a batch with another client an example has another loss"
    return None


def drawn(layout: Layout, client: int) -> Vector:
    """Return adapters that are nowhere zero."""
    numbers: Vector = stream(0, "trial", client).standard_normal(layout.size, dtype=np.float32)
    return numbers * np.float32(0.02)


def _alone(trainee: Trainee, vector: Vector, bench: Bench) -> tuple[Tensor, Tensor]:
    """Return a client's mean loss () and its gradient (layout.size,) by stock PEFT."""
    trainee.write(vector)
    for parameter in trainee.parameters:
        parameter.grad = None
    loss = bench.losses().mean()
    loss.backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainee.parameters]
    return loss.detach(), torch.cat([gradient.reshape(-1) for gradient in gradients])


def _near(value: Tensor, wanted: Tensor) -> bool:
    """Tell whether numbers are those that are wanted, up to rounding; what is not a number is not."""
    return float((value - wanted).abs().max()) <= SAME * float(wanted.abs().max()) + 1e-6
