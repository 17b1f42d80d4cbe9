"""A moved base and an adapter as one adapter over the pretrained weights: what stock PEFT can load."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.moved_base import split
from fedsim.adapters.products import Pair, one_thread, pairs, scales, vector_of

EXACT = float(np.finfo(np.float32).eps)
"""Singular values below this share of the largest are rounding of float32 and are left out."""


def folded(layout: Layout, vector: Vector, base: Vector) -> tuple[Layout, Vector]:
    """Return a layout and a vector of which B A is change + s B A of what was given, with scale 1.

    The sum of each module is decomposed, U S V^T, and split evenly: B = U S^1/2, A = S^1/2 V^T. All modules get
    the rank that the neediest one needs (at least 1); slots that a module does not need are zero.

    Args:
        layout: of adapted modules.
        vector: the adapter (layout.size,).
        base: the dense change (`Base.vector`).
    """
    factors = zip(pairs(layout, vector), scales(layout), split(layout, base), strict=True)
    with one_thread():
        found = [_decomposed(change + s * (pair.b @ pair.a)) for pair, s, (_, change) in factors]
    rank = max(1, *(pair.width for pair in found))
    wide = Layout(tuple(m.at_rank(rank, 1.0) for m in layout.modules))
    return wide, vector_of(wide, found)


def _decomposed(total: NDArray[np.float64]) -> Pair:
    u, s, vt = np.linalg.svd(total, full_matrices=False)
    needed = int(np.count_nonzero(s > EXACT * s[0])) if s.size else 0
    root = np.sqrt(s[:needed])
    return Pair(u[:, :needed] * root, root[:, None] * vt[:needed])
