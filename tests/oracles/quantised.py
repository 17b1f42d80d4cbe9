"""Quantised weights in plain numbers, one weight at a time: blocks of int8 and nf4 (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

import numpy as np

PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip
"""The values of nf4: appendix E."""


def by_hand(weights, how):
    """Values of a matrix (outputs, inputs) in float64, and the scales of its blocks."""
    flat = weights.ravel().astype(np.float64)
    values, scales = [], []
    for at in range(0, flat.size, how.block):
        block = flat[at : at + how.block]
        scale = max(abs(block))
        scales.append(scale)
        for w in block:
            share = w / scale if scale else 0.0
            if how.kind == "nf4":
                values.append(scale * min(PUBLISHED, key=lambda v: (abs(v - share), v)))
            else:
                values.append(scale * round(share * 127) / 127)
    return np.array(values).reshape(weights.shape), scales
