"""Number formats of the wire: float32 to 16, 8 and 4 bits and back, rounded to nearest or by chance.

Rounding by chance takes each number to one of its two neighbours with the probabilities that make it
right on average: E[Q(x)] = x (QSGD, Alistarh et al., arXiv 1610.02132, section 3.1). Pure NumPy; values
are finite; all bytes little-endian.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector

Dtype = Literal["float32", "bfloat16", "int8", "int4"]

BITS: dict[str, int] = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4}
"""Bits of one number."""
LEVELS: dict[str, int] = {"int8": 127, "int4": 7}
"""Largest integer L of the formats with a scale: numbers are q * scale with q in [-L, L], so 0 is exact."""
SMALLEST_SCALE = float(np.finfo(np.float32).smallest_normal)
"""Scales below would lose digits themselves."""


def scales(largest: Vector, dtype: Dtype) -> Vector:
    """Return the float32 scale of each array from its largest magnitude: largest / L, 0 for an array of zeros.

    >>> scales(np.array([2.54, 0.0], np.float32), "int8").tolist() == [np.float32(0.02), 0.0]
    True
    """
    scale = np.maximum(largest.astype(np.float64) / LEVELS[dtype], SMALLEST_SCALE)
    return np.where(largest > 0, scale, 0.0).astype(np.float32)


def pack(values: Vector, scale: Vector | None, dtype: Dtype, rng: np.random.Generator | None) -> bytes:
    """Return the numbers as bytes: `BITS` each, the last byte filled up.

    Args:
        values: finite float32 (n,).
        scale: scale of each number (n,) for int8 and int4, else None.
        dtype: the format.
        rng: source of chance; None rounds to nearest (to even where two are equally near).
    """
    if dtype == "float32":
        return values.astype("<f4").tobytes()
    if dtype == "bfloat16":
        return _bfloat16(values, rng).astype("<u2").tobytes()
    assert scale is not None
    codes = _integers(values, scale, LEVELS[dtype], rng)
    return codes.tobytes() if dtype == "int8" else _nibbles(codes).tobytes()


def unpack(data: bytes, count: int, scale: Vector | None, dtype: Dtype) -> Vector:
    """Return the float32 numbers (count,) that `pack` has made bytes of."""
    if dtype == "float32":
        return np.frombuffer(data, "<f4", count).astype(np.float32, copy=False)
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2", count).astype(np.uint32) << 16).view(np.float32)
    assert scale is not None
    if dtype == "int8":
        codes = np.frombuffer(data, np.int8, count)
    else:
        pairs = np.frombuffer(data, np.uint8, -(-count // 2))
        codes = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()[:count].astype(np.int8) - np.int8(8)
    return codes.astype(np.float32) * scale


def _bfloat16(values: Vector, rng: np.random.Generator | None) -> NDArray[np.uint16]:
    """Return the upper 16 bits; sign and magnitude are apart, so adding to the bits rounds away from zero."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = (np.uint32(0x7FFF) + ((bits >> 16) & 1)).astype(np.uint32)
    add = half if rng is None else rng.integers(0, 1 << 16, len(bits), dtype=np.uint32)
    upper: NDArray[np.uint16] = np.right_shift(bits + add, 16).astype(np.uint16)
    return upper


def _integers(
    values: Vector, scale: Vector, levels: int, rng: np.random.Generator | None
) -> NDArray[np.int8]:
    """Return q = round(x / scale), or floor(x / scale + u) with u uniform in [0, 1); 0 where the scale is 0."""
    steps = values.astype(np.float64) / np.where(scale > 0, scale, 1.0).astype(np.float64)
    rounded = np.rint(steps) if rng is None else np.floor(steps + rng.random(len(steps)))
    return np.clip(rounded, -levels, levels).astype(np.int8)  # the scale itself was rounded: at most one step


def _nibbles(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return two codes a byte, the first in the lower half, each as code + 8 in [1, 15]."""
    halves = (codes + np.int8(8)).astype(np.uint8)
    if len(halves) % 2:
        halves = np.append(halves, np.uint8(0))
    return np.bitwise_or(halves[0::2], np.left_shift(halves[1::2], 4), dtype=np.uint8)
