"""The kernel distance: unbiased squared maximum mean discrepancy (KID, arXiv 1801.01401).

Unbiased means that equal distributions give 0 on average at any size, so single values may be negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEGREE = 3
"""k(x, y) = (x . y / d + 1)^3, as the paper chose."""


ROWS = 1024
"""Vectors of a side whose kernels lie in memory at once."""


def kernel_distance(first: NDArray[Any], other: NDArray[Any], other_within: float | None = None) -> float:
    """Return the unbiased estimate of MMD^2 between features (n, d) and (m, d); NaN below 2 vectors a side.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    Args:
        first: features (n, d).
        other: features (m, d).
        other_within: `within(other)`, where many sets are compared to one: it costs m^2 d.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if min(len(x), len(y)) < 2:
        return float("nan")
    return within(x) + (within(y) if other_within is None else other_within) - 2 * between(x, y)


def between(first: NDArray[Any], other: NDArray[Any]) -> float:
    """Return mean_{i, j} k(x_i, y_j) of features (n, d) and (m, d); in memory for `ROWS`^2 numbers."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return sum(_summed(part, others) for part in _parts(x) for others in _parts(y)) / (len(x) * len(y))


def within(features: NDArray[Any]) -> float:
    """Return mean_{i != j} k(x_i, x_j) of features (n, d), NaN below 2; in memory for `ROWS`^2 numbers."""
    x = np.asarray(features, dtype=np.float64)
    if len(x) < 2:
        return float("nan")
    parts, total = _parts(x), 0.0
    for i, part in enumerate(parts):
        squares = np.einsum("nd,nd->n", part, part)
        total += _summed(part, part) - float(_kernel(squares, x.shape[1]).sum())
        total += 2 * sum(_summed(part, later) for later in parts[i + 1 :])
    return total / (len(x) * (len(x) - 1))


def within_strata(rows: NDArray[Any], own: float, most: int = 2048) -> float:
    """Return an unbiased mean kernel of two independent draws of a mixture, of features that every part of it drew its share of.

    The mean over pairs has too few of one part: it leaves out each vector with itself, and that pair was of one part. So the diagonal
    is there, with the parts' own mean kernel in its place. Beyond `most` vectors it is the mean over subsets that have
    some of every part, which costs n `most` d.

    Args:
        rows: features (n, d), part after part.
        own: mean over the vectors of `within` of their part.
        most: vectors that are compared with each other.
    """
    sets = -(-len(rows) // most)
    dealt = [rows[at::sets] for at in range(sets)]
    means = [((len(x) - 1) * within(x) + own) / len(x) for x in dealt]
    return float(np.average(means, weights=[len(x) for x in dealt]))


def _parts(x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [x[at : at + ROWS] for at in range(0, len(x), ROWS)]


def _summed(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(_kernel(x @ y.T, x.shape[1]).sum())


def _kernel(products: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = (products / width + 1.0) ** DEGREE
    return values
