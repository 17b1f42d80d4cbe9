"""A matrix as codes and scales, and back: 8-bit whole numbers or 4-bit NormalFloat, in blocks of consecutive weights.

    scale = max |w| of a block        code = the nearest value of the table to w / scale        w' = table[code] scale

The table of int8 is k / 127, k from -127 to 127. That of nf4 has the 16 values of QLoRA (Dettmers et al., arXiv 2305.14314,
appendix E): the quantiles of a normal distribution, a zero among them, brought to [-1, 1]. Between two values the
border is their middle, which belongs to the lower one, as in bitsandbytes. All in float32.

With `double` the scales are codes as well: their mean is taken off, and what is left is int8 in blocks of 256 scales.
QLoRA has an 8-bit float there; whole numbers need as many bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.cost.quantised import SCALES_BLOCK, Quantise

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The values of a 4-bit NormalFloat, code 0 first."""
LARGEST = 127
"""Largest code of int8."""


@dataclass(frozen=True)
class DoubledScales:
    """Scales in 8 bits.

    Attributes:
        codes: int8 (blocks,).
        steps: float32 (blocks / 256,), the largest absolute value of 256 scales without the mean.
        mean: float32 (), of all scales.
    """

    codes: Tensor
    steps: Tensor
    mean: Tensor

    @classmethod
    def of(cls, scales: Tensor) -> DoubledScales:
        """Return scales (blocks,) in 8 bits."""
        mean = scales.double().mean().to(scales.dtype)
        codes, steps = _whole(_blocks(scales - mean, SCALES_BLOCK))
        return cls(codes.flatten()[: scales.numel()].to(torch.int8), steps, mean)

    def values(self) -> Tensor:
        """Return the scales that the codes stand for, (blocks,), none below 0."""
        count = self.codes.numel()
        left = _scaled(_blocks(self.codes.float() / LARGEST, SCALES_BLOCK), self.steps, count)
        return (left + self.mean).clamp_(min=0.0)

    @property
    def n_bytes(self) -> int:
        """Bytes that they take."""
        return int(self.codes.nbytes + self.steps.nbytes + self.mean.nbytes)


@dataclass(frozen=True)
class Coded:
    """A weight in codes.

    Attributes:
        how: kind and block.
        shape: of the weight.
        codes: int8 (n,); of nf4 uint8 (n / 2,), the first of two weights in the upper half of a byte.
        scales: float32 (blocks,), or in 8 bits.
    """

    how: Quantise
    shape: tuple[int, ...]
    codes: Tensor
    scales: Tensor | DoubledScales

    @property
    def n_bytes(self) -> int:
        """Bytes that codes and scales take: `Quantise.bytes_of` of this many weights."""
        scales = self.scales
        rest = scales.n_bytes if isinstance(scales, DoubledScales) else scales.nbytes
        return int(self.codes.nbytes + rest)

    def values(self) -> Tensor:
        """Return the weight that the codes stand for, float32, in its shape."""
        scales = self.scales.values() if isinstance(self.scales, DoubledScales) else self.scales
        count = math.prod(self.shape)
        if self.how.kind == "nf4":
            halves = torch.stack([self.codes >> 4, self.codes & 15], dim=1).flatten()[:count]
            table = torch.tensor(NF4, device=self.codes.device)
            shares = table[halves.int()]
        else:
            shares = self.codes.float() / LARGEST
        return _scaled(_blocks(shares, self.how.block), scales, count).view(self.shape)


def coded(weight: Tensor, how: Quantise) -> Coded:
    """Return a weight in codes; blocks run along its last axis, and on into the next row.

    Args:
        weight: of numbers that are finite.
        how: kind, block, and whether scales are quantised.
    """
    flat = weight.detach().to(torch.float32).flatten()
    blocks = _blocks(flat, how.block)
    if how.kind == "nf4":
        table = torch.tensor(NF4, device=flat.device)
        shares, scales = _shares(blocks)
        halves = torch.bucketize(shares, (table[1:] + table[:-1]) / 2, out_int32=True)
        halves = _blocks(halves.flatten()[: flat.numel()].to(torch.uint8), 2)
        codes = (halves[:, 0] << 4) | halves[:, 1]
    else:
        whole, scales = _whole(blocks)
        codes = whole.flatten()[: flat.numel()].to(torch.int8)
    kept = DoubledScales.of(scales) if how.double else scales
    return Coded(how, tuple(weight.shape), codes, kept)


def _blocks(flat: Tensor, size: int) -> Tensor:
    """Return a vector (n,) as rows of a block each; the last one is filled up with 0."""
    missing = -flat.numel() % size
    return torch.nn.functional.pad(flat, (0, missing)).view(-1, size)


def _shares(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers as shares of their blocks' scales, and the scales; a block of 0 is one of 0."""
    scales = blocks.abs().amax(dim=1)
    return blocks / torch.where(scales > 0, scales, torch.ones_like(scales))[:, None], scales


def _whole(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes of int8, as floats, and the scales; a half goes to the even number."""
    shares, scales = _shares(blocks)
    return (shares * LARGEST).round(), scales


def _scaled(shares: Tensor, scales: Tensor, count: int) -> Tensor:
    """Return the first `count` numbers of blocks that are shares of their scales."""
    return (shares * scales[:, None]).flatten()[:count]
