"""An adapter folded into a base, so that another trains over both; a base folded into an adapter, as stock PEFT loads it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.moved_base import dense_shape, dense_size, split
from fedsim.adapters.products import Pair, one_thread, pairs, scales, vector_of

EXACT = float(np.finfo(np.float32).eps)
"""Singular values below this share of the largest are rounding of float32 and are left out."""


def adapter_into_base(layout: Layout, vector: Vector, scale: float, base: Vector | None = None) -> Vector:
    """Return the change of the frozen weights that has the effect of an adapter: base + scale B A.

    Args:
        layout: adapted modules only.
        vector: the adapter, (layout.size,).
        scale: what B A is multiplied with in every module.
        base: the change there is already, as `fedsim.adapters.moved_base.Base.vector`; None: none.

    Returns:
        As `Base.vector`: float32, each module's (out, in kh kw) after the other, read-only; summed in float64.
    """
    moved_base = np.zeros(dense_size(layout), np.float32)
    arrays = layout.arrays(vector)
    before = None if base is None else split(layout, base)
    for module, change in split(layout, moved_base):
        out, width = dense_shape(module)
        b = arrays[f"{module.name}.lora_B"].reshape(out, module.rank).astype(np.float64)
        a = arrays[f"{module.name}.lora_A"].reshape(module.rank, width).astype(np.float64)
        total = scale * (b @ a)
        if before is not None:
            total += next(before)[1]
        change[...] = total
    moved_base.flags.writeable = False
    return moved_base


def base_into_adapter(layout: Layout, vector: Vector, base: Vector) -> tuple[Layout, Vector]:
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
        pairs_of_sums = [_decomposed(change + s * (pair.b @ pair.a)) for pair, s, (_, change) in factors]
    rank = max(1, *(pair.width for pair in pairs_of_sums))
    wide = Layout(tuple(m.at_rank(rank, 1.0) for m in layout.modules))
    return wide, vector_of(wide, pairs_of_sums)


def _decomposed(total: NDArray[np.float64]) -> Pair:
    u, s, vt = np.linalg.svd(total, full_matrices=False)
    needed = int(np.count_nonzero(s > EXACT * s[0])) if s.size else 0
    root = np.sqrt(s[:needed])
    return Pair(u[:, :needed] * root, root[:, None] * vt[:needed])
