"""How many clients a GPU holds at once."""

from __future__ import annotations

from fedsim.adapters.adapter import Layout
from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.shape import ModelShape
from fedsim.errors import ExperimentError, message
from fedsim.training.local import device

MOST = 128
"""Clients of a batch on a GPU: beyond that its arithmetic units are full (and a round has few more)."""
COPIES = 5
"""Float32 vectors of a client in training: factors, start, gradient and two moments."""
SPARED = 0.2
"""Share of the free memory that is left to the allocator and to kernels' own scratch space."""


def on_gpu(gpus_per_worker: float) -> bool:
    """Tell whether workers train on a GPU: because they reserve one, or because this process does."""
    return gpus_per_worker > 0 or device().startswith("cuda")


def free_bytes(gpus_per_worker: float) -> float:
    """Return the memory that is free for one worker on the GPU that this process uses, or else on the first.

    Raises:
        ExperimentError: this process sees no GPU, so it cannot ask.
    """
    import torch

    if not torch.cuda.is_available():
        why = "auto asks a GPU for its memory, and this process sees none"
        raise ExperimentError(message("numerics.client_batch", why, fix="give a number, 32 say"))
    here = device()
    free, _total = torch.cuda.mem_get_info(here if here.startswith("cuda") else None)
    return float(free) * min(1.0, gpus_per_worker or 1.0)


def clients_that_fit(shape: ModelShape, layout: Layout, tokens_at_once: int, free: float) -> int:
    """Return how many clients fit into `free` bytes, at least 1 and at most `MOST`.

    Weights and the activations of `tokens_at_once` tokens are there once (a larger step is split); what
    grows with the clients is their vectors.
    """
    one_visit = train_memory_bytes(shape)
    weights = float(shape.params * shape.weight_bytes)
    activations = max(0.0, one_visit - weights) * tokens_at_once / shape.held_tokens
    left = (1.0 - SPARED) * free - weights - activations
    return max(1, min(MOST, int(left // (4 * COPIES * layout.size))))
