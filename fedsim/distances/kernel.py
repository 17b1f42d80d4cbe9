"""The kernel distance: unbiased squared maximum mean discrepancy (KID, arXiv 1801.01401).

Unbiased means that equal distributions give 0 on average at any size, so single values may be negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEGREE = 3
"""k(x, y) = (x . y / d + 1)^3, as the paper chose."""


def kernel_distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the unbiased estimate of MMD^2 between features (n, d) and (m, d); NaN below 2 vectors a side.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)
    """
    x, y = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if min(len(x), len(y)) < 2:
        return float("nan")
    return _within(x) + _within(y) - 2 * float(_kernel(x, y).mean())


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = (x @ y.T / x.shape[1] + 1.0) ** DEGREE
    return values


def _within(x: NDArray[np.float64]) -> float:
    values, n = _kernel(x, x), len(x)
    return float((values.sum() - np.trace(values)) / (n * (n - 1)))
