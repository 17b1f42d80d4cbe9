"""Sums over many adapters: float64, in the order given, one vector at a time.

Nothing here depends on the number of threads: NumPy adds element by element, and BLAS is not asked.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedsim.adapter import Vector

ROWS = 8
"""Vectors that a sum takes in one go, so that each piece of its accumulator is read and written once for all."""
PIECE = 65_536
"""Longest piece: 512 KiB of float64, so that accumulator and product stay in the second-level cache."""


class WeightedSum:
    """The sum of w_i (v_i - u_i) in float64, one term after the other in the given order.

    For a run of terms with the same origin u it is sum w_i v_i - u sum w_i. Every element is summed by
    itself, so neither `ROWS` nor `PIECE` changes a bit; memory is that of a few vectors.
    """

    def __init__(self, size: int) -> None:
        """Start at zero, for vectors of `size` floats."""
        self._sum = np.zeros(size)
        step = -(-size // max(1, -(-size // PIECE)))
        self._pieces = [slice(at, min(at + step, size)) for at in range(0, size, max(1, step))]
        self._product = np.empty(step)
        self._rows: list[tuple[float, Vector]] = []
        self._origin: Vector | None = None
        self._origin_weight = 0.0

    def add(self, weight: float, vector: Vector, origin: Vector) -> None:
        """Add weight * (vector - origin)."""
        if origin is not self._origin:
            self._leave_origin()
            self._origin = origin
        self._origin_weight += weight
        self._rows.append((weight, vector))
        if len(self._rows) == ROWS:
            self._take()

    def value(self) -> NDArray[np.float64]:
        """Return the sum so far."""
        self._leave_origin()
        self._take()
        return self._sum.copy()

    def _leave_origin(self) -> None:
        if self._origin is not None and self._origin_weight:
            self._rows.append((-self._origin_weight, self._origin))
        self._origin, self._origin_weight = None, 0.0

    def _take(self) -> None:
        for piece in self._pieces:
            total, product = self._sum[piece], self._product[: piece.stop - piece.start]
            for weight, vector in self._rows:
                np.copyto(product, vector[piece])  # to float64 first: twice as fast as a mixed product
                np.multiply(product, weight, out=product)
                np.add(total, product, out=total)
        self._rows.clear()


class Moves:
    """What a commit's moves D_i = end_i - start_i have in common, in one pass over them.

    The mean cosine of the moves to their mean m is u . m / (n |m|) with u = sum_i D_i / |D_i|.
    """

    def __init__(self, size: int) -> None:
        """Start with no move, for vectors of `size` floats."""
        self._sum, self._units = np.zeros(size), np.zeros(size)
        self._move, self._from = np.empty(size), np.empty(size)
        self._start: Vector | None = None
        self._still = False
        self.count = 0

    def add(self, start: Vector, end: Vector) -> bool:
        """Take a move; returns False, and leaves it out, if it is not finite."""
        if start is not self._start:
            np.copyto(self._from, start)
            self._start = start
        move = self._move
        np.copyto(move, end)
        np.subtract(move, self._from, out=move)
        norm = length(move)
        if not math.isfinite(norm):
            return False
        np.add(self._sum, move, out=self._sum)
        if norm > 0:
            np.multiply(move, 1.0 / norm, out=move)
            np.add(self._units, move, out=self._units)
        self._still |= norm == 0
        self.count += 1
        return True

    def mean_cosine(self) -> float:
        """Return the mean cosine of the moves to their mean; NaN if one of them, or the mean, is zero."""
        mean_norm = length(self._sum)
        if self._still or mean_norm == 0:
            return math.nan
        return float(np.sum(self._units * self._sum)) / (self.count * mean_norm)


def length(move: NDArray[np.float64]) -> float:
    """Return the Euclidean norm; NumPy's own loop, since the last bit of BLAS depends on its threads."""
    return math.sqrt(float(np.einsum("i,i->", move, move)))
