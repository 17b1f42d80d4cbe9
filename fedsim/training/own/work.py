"""What a step of a user's model costs: its operations and what it keeps, counted as it is really made.

Operations are those of torch's own `FlopCounterMode`: matrix products, convolutions and attention, forward and backward,
as autograd makes them for what trains. Activations are counted as autograd keeps them, each memory once, weights not.
Attention is computed by plain products and convolutions without a library of the processor's, so that every machine
counts the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fedsim.cost.operations import Operations
from fedsim.training.kept import Kept, storage

COUNTED = ("forward", "backward", "kept_bytes", "boundary_bytes", "block_bytes")


def counted(model: nn.Module, losses: Callable[[], Tensor], n: int) -> tuple[Operations, Tensor]:
    """Return what a step costs, an example, and its losses; the model's gradients are those of their mean.

    Args:
        model: what is run, with what trains having `requires_grad`.
        losses: runs it on a batch.
        n: examples of the batch.
    """
    memory = Kept({storage(t) for t in [*model.parameters(), *model.buffers()]})
    parts = list(blocks(model))
    with (
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
        _plain_kernels(),
        FlopCounterMode(display=False) as counter,
    ):
        with memory.watching(parts):
            values = losses()
        forward = counter.get_total_flops()
        if values.requires_grad:
            values.mean().backward()
        backward = counter.get_total_flops() - forward
    boundary, block = (memory.boundaries, memory.largest) if parts else (memory.total, 0)
    totals = dict(zip(COUNTED, (forward, backward, memory.total, boundary, block), strict=True))
    return Operations(**{name: -(-total // n) for name, total in totals.items()}), values.detach()


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Keep torch from oneDNN's own operations, which nobody counts (torch's own context warns of Intel GPUs)."""
    before = torch._C._get_mkldnn_enabled()  # noqa: SLF001
    torch._C._set_mkldnn_enabled(False)  # noqa: SLF001
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)  # noqa: SLF001


def with_slot(operations: Operations, more: Operations, rank: int) -> Operations:
    """Return the costs with those of one slot of rank: the difference to a model with one slot more."""
    slot = Operations(**{name: getattr(more, name) - getattr(operations, name) for name in COUNTED})
    return replace(operations, rank=rank, slot=slot)


def at_least_once(operations: Operations, params: int) -> Operations:
    """Return the costs of a model without matrix products: two operations a parameter forward, four backward."""
    if operations.forward:
        return operations
    return replace(operations, forward=2 * params, backward=4 * params)


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what checkpointing computes again, one at a time: the members of the outermost lists of modules."""
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from child.children()
        else:
            yield from blocks(child)
