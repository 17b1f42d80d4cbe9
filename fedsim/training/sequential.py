"""The reference path: stock PEFT, one client after the other, plain torch optimisers.

A visit starts from its job's vector with a fresh optimiser. The loss is the mean negative log
likelihood [nats] of the batch's tokens. The model stays in evaluation mode, so dropout (GPT-2's
configuration asks for 0.1) is off: a visit then depends on nothing but its address.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.jobs import Job, Update
from fedsim.training import noise, slot_penalty
from fedsim.training.beside.tensors import ADAPTER
from fedsim.training.chats.sequences import Sequences
from fedsim.training.chats.stock import answer_losses
from fedsim.training.local import Windows, batches, one_thread, optimizer, scales, slots
from fedsim.training.lora import Trainee

if TYPE_CHECKING:
    from torch import Tensor

Losses = Callable[[Trainee, Any, Job, int], "Tensor"]
"""(trainee, a batch of examples, job, step) -> the losses of all their tokens."""


def train(
    trainee: Trainee,
    data: Sequence[Any],
    jobs: Sequence[Job],
    *,
    dropout: float = 0.0,
    losses: Losses | None = None,
) -> list[Update]:
    """Train each job on its own examples (windows of text without `losses`) and base; grouping changes nothing."""
    with one_thread():
        return [
            visit(trainee, examples, job, dropout, losses) for examples, job in zip(data, jobs, strict=True)
        ]


def visit(
    trainee: Trainee, windows: Any, job: Job, dropout: float = 0.0, losses: Losses | None = None
) -> Update:
    """Train one client's visit and return where it ended.

    FedProx (arXiv 1812.06127) adds mu/2 |x - c|^2 to the objective, over what is trained: mu (x - c) to the
    gradient, before clipping; c is the start, or the job's `anchor`. The loss reported is without it.
    """
    trainee.rebase(job.base)
    whole = job.rank is None and not trainee.layout.below(job.depth)
    trainee.write(job.start if whole else job.start * slots(trainee.layout, job.rank, depth=job.depth))
    with adapted(trainee, job, dropout) as at_step:
        return _steps(trainee, windows, job, at_step, losses or _of_text)


@contextmanager
def adapted(trainee: Trainee, job: Job, dropout: float) -> Iterator[Callable[[int], None]]:
    """Give the stock PEFT layers the job's rank, frozen factors, depth and addressed LoRA dropout for a while.

    Slots above the rank need no mask: where A and B are both 0, so are their gradients. Layers below the depth are frozen
    at 0, so nothing goes backward through them; modules are numbered from the lowest that trains.

    Yields:
        What must be told the number of each step.
    """
    layers = [trainee.model.get_submodule(f"base_model.model.{m.name}") for m in trainee.layout.modules]
    factors = scales(trainee.layout, job.rank, job.scale)
    now = 0

    def at_step(step: int) -> None:
        nonlocal now
        now = step

    def dropping(module: int) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            survivors = noise.survivors(dropout, job, now, module, x.numel()).view(x.shape)
            return x * survivors.to(x.device).to(x.dtype).mul_(1 / (1 - dropout))

        return forward

    below, at = trainee.layout.below(job.depth), 0
    for m, layer, scale in zip(trainee.layout.modules, layers, factors, strict=True):
        there = f"{m.name}.lora_A" not in below
        layer.scaling[ADAPTER] = scale
        layer.lora_A.requires_grad_(there and "A" in job.trains)
        layer.lora_B.requires_grad_(there and "B" in job.trains)
        if dropout and there:
            layer.lora_dropout[ADAPTER].forward = dropping(at)
        at += there
    try:
        yield at_step
    finally:
        for layer, m in zip(layers, trainee.layout.modules, strict=True):
            layer.scaling[ADAPTER] = m.scale
            layer.lora_A.requires_grad_(requires_grad=True)
            layer.lora_B.requires_grad_(requires_grad=True)
            layer.lora_dropout[ADAPTER].__dict__.pop("forward", None)


def _of_text(trainee: Trainee, windows: Windows | Sequences, job: Job, step: int) -> Tensor:
    if isinstance(windows, Sequences):
        return answer_losses(trainee.model, windows, trainee.device)
    return token_losses(trainee, windows)


def _steps(
    trainee: Trainee, windows: Any, job: Job, at_step: Callable[[int], None], losses: Losses
) -> Update:
    import torch

    local = job.local
    moving = [
        pair for pair in zip(trainee.parameters, trainee.lr_ratios, strict=True) if pair[0].requires_grad
    ]
    parameters = [p for p, _ in moving]
    centre = _centre(trainee, job) if local.prox_mu else []
    optimise = optimizer(parameters, local, [ratio for _, ratio in moving])
    nll, squares, learned, tokens, examples, made = 0.0, 0.0, 0, 0, 0, 0
    whole = local.steps_over(len(windows))
    for rows in batches(len(windows), job):
        at_step(made)
        for group in optimise.param_groups:
            group["lr"] = local.lr * group["lr_ratio"] * local.lr_share(made, whole)
        optimise.zero_grad(set_to_none=True)
        batch = windows[rows]
        each = losses(trainee, batch, job, made)
        loss = each.mean()
        loss.backward()
        for p, c in zip(parameters, centre, strict=bool(centre)):
            if p.grad is not None:
                p.grad.add_(p.detach() - c, alpha=local.prox_mu)
        if job.slot_penalty is not None:
            _add_slot_penalty(trainee, job.slot_penalty)
        if local.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, local.clip_norm, foreach=False)
        optimise.step()
        count = each.numel()
        nll += loss.item() * count
        squares += loss.item() ** 2 * count
        learned += count
        tokens += int(batch.counts.sum()) if isinstance(batch, Sequences) else count
        examples += rows.size
        made += 1
    optimise.zero_grad(set_to_none=True)
    seen = min(len(windows), examples)
    mean, square = (total / learned if learned else math.nan for total in (nll, squares))
    return Update(trainee.read(), examples=seen, tokens=tokens, steps=made, loss=mean, square=square)


def _add_slot_penalty(trainee: Trainee, penalty: tuple[float, int]) -> None:
    """Add the gradient of HetLoRA's regulariser to those of the parameters that move."""
    import torch

    with torch.no_grad():
        flat = torch.cat([p.detach().reshape(-1) for p in trainee.parameters])[None]
        gradient = slot_penalty.gradient(trainee.layout, flat, flat.new_tensor([[penalty[0]]]), [penalty[1]])[
            0
        ]
        for p, part in zip(trainee.parameters, trainee.split(gradient), strict=True):
            if p.grad is not None:
                p.grad.add_(part)


def _centre(trainee: Trainee, job: Job) -> list[Tensor]:
    """Return the centre of the proximal term, a tensor for each parameter that moves."""
    import torch

    if job.anchor is None:
        return [p.detach().clone() for p in trainee.parameters if p.requires_grad]
    anchor = np.where(slots(trainee.layout, job.rank), job.anchor, np.float32(0.0))
    parts = zip(trainee.parameters, trainee.split(torch.from_numpy(anchor)), strict=True)
    return [part.to(p.dtype) for p, part in parts if p.requires_grad]


def token_losses(trainee: Trainee, windows: Windows) -> Tensor:
    """Return the negative log likelihood of every predicted token, (windows * sequence,).

    In float32, or in float64 if the model computes in it.
    """
    import torch

    ids = torch.from_numpy(windows.astype(np.int64)).to(trainee.parameters[0].device)
    logits = trainee.model(input_ids=ids[:, :-1], use_cache=False).logits
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(wide.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")


def score(
    trainee: Trainee,
    vector: Vector,
    windows: Windows,
    counts: NDArray[Any],
    rows: int,
    base: Vector | None = None,
) -> float:
    """Return the summed NLL [nats] in float64 of the first `counts[i]` tokens of each window.

    Args:
        trainee: the model; `vector` is written into it.
        vector: what to score.
        windows: token ids (n, sequence + 1).
        counts: real tokens of each window; the rest is padding.
        rows: windows in one forward pass, part of the result's last bits.
        base: change of the frozen weights, or None.
    """
    import torch

    trainee.rebase(base)
    trainee.write(vector)
    total = 0.0
    with one_thread(), torch.no_grad():
        for at in range(0, len(windows), rows):
            part = windows[at : at + rows]
            losses = token_losses(trainee, part).view(len(part), -1).double().cpu().numpy()
            real = np.arange(losses.shape[1]) < counts[at : at + rows, None]
            total += float(losses[real].sum())
    return total
