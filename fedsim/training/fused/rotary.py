"""Angles of rotary positions (RoPE, arXiv 2104.09864), as transformers computes them, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fedsim.training.fused.program import Rotation

Angles = Callable[[int], Rotation]
"""Tokens -> cosine and sine of RoPE's angles, (tokens, head_dim / 2) each."""
STATIC = ("default", "linear", "llama3", "yarn")
"""RoPE variants whose angles depend on the position alone, not on how long a sequence is."""
Stretch = tuple[float, float, float, float]
"""Llama 3's: factor, low and high frequency factor, and the positions that the model was first trained for."""


def angles_of(rotary: Callable[..., Rotation], words: Tensor, *kind: str) -> Angles:
    """Return the angles that a model's own module computes; `kind` is that of the layers, where it tells them apart."""

    def angles(length: int) -> Rotation:
        cos, sin = rotary(words, torch.arange(length, device=words.device)[None], *kind)
        return _halves(cos, sin)

    return angles


def plain_angles(words: Tensor, head_dim: int, theta: float, stretch: Stretch | None = None) -> Angles:
    """Return RoPE's `default` angles, or those of `llama3`.

    Args:
        words: the embedding, of whose device and dtype they are.
        head_dim: numbers of a head.
        theta: the base.
        stretch: of `llama3`: low frequencies are divided by the factor, high ones stay, those between go over.
    """
    steps = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
    frequencies = 1.0 / (theta**steps)
    if stretch is not None:
        frequencies = _stretched(frequencies, *stretch)
    frequencies = frequencies.to(words.device)

    def angles(length: int) -> Rotation:
        places = torch.arange(length, device=words.device)[None, :, None].float()
        half = places * frequencies
        whole = torch.cat((half, half), dim=-1)
        return _halves(whole.cos().to(words.dtype), whole.sin().to(words.dtype))

    return angles


def _stretched(frequencies: Tensor, factor: float, low: float, high: float, positions: float) -> Tensor:
    """Return Llama 3's frequencies (arXiv 2407.21783): those of wavelengths beyond positions / low are divided by the factor."""
    wavelengths = 2 * math.pi / frequencies
    slow = torch.where(wavelengths > positions / low, frequencies / factor, frequencies)
    share = (positions / wavelengths - low) / (high - low)
    between = (1 - share) * slow / factor + share * slow
    medium = ~(wavelengths < positions / high) * ~(wavelengths > positions / low)
    return torch.where(medium, between, slow)


def _halves(cos: Tensor, sin: Tensor) -> Rotation:
    """Return the first halves of (1, tokens, head_dim), which are the second ones."""
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
