"""The Frechet distance between two Gaussians, and the sums from which their moments follow.

With Inception-v3's pool features it is FID (arXiv 1706.08500). It is biased upward by about 1 / N and the more the
wider the features (arXiv 1801.01401), and by an amount that depends on the model that draws (arXiv 1911.07023): equal N
makes two distances comparable, and does not make their difference free of bias. Conclude from the kernel distance
(`fedsim.metrics.kernel`), and never across extractors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Floats


@dataclass(frozen=True, eq=False)
class Moments:
    """Additive sums of feature vectors.

    Attributes:
        n: how many.
        total: their sum (d,).
        outer: the sum of their outer products (d, d).
    """

    n: float
    total: Floats
    outer: Floats

    @classmethod
    def of(cls, features: NDArray[Any]) -> Moments:
        """Return the sums of features (n, d), in float64."""
        wide = np.asarray(features, dtype=np.float64)
        return cls(float(len(wide)), wide.sum(axis=0), wide.T @ wide)

    @property
    def mean(self) -> Floats:
        """Mean vector (d,)."""
        return self.total / self.n

    @property
    def covariance(self) -> Floats:
        """Unbiased covariance (d, d)."""
        mean = self.mean
        covariance: Floats = (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1)
        return covariance


def frechet(first: Moments, other: Moments) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982, J. Multivariate Analysis 12).

    The trace of (C1 C2)^(1/2) is that of the symmetric (C1^(1/2) C2 C1^(1/2))^(1/2), whose eigenvalues are real;
    those below 0 are rounding. NaN if a side has fewer than 2 vectors.
    """
    if min(first.n, other.n) < 2:
        return float("nan")
    gap = first.mean - other.mean
    root = _root(first.covariance)
    product = root @ other.covariance @ root
    values = np.linalg.eigvalsh((product + product.T) / 2)
    mixed = np.sqrt(np.clip(values, 0.0, None)).sum()
    distance = gap @ gap + np.trace(first.covariance) + np.trace(other.covariance) - 2 * mixed
    return float(distance)


def _root(matrix: Floats) -> Floats:
    """Return the symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: Floats = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root
