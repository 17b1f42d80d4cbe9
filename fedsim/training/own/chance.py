"""Torch's generator at an address, for code that draws from it: put back as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawing(seed: int, device: str = "cpu") -> Iterator[None]:
    """Let what draws from torch's generators inside draw as from this seed, whatever was drawn before.

    Args:
        seed: of an address (`fedsim.rng.seed_of`).
        device: whose generator, besides the CPU's.
    """
    on_gpu = torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[torch.device(device)] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield
