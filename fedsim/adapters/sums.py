"""Sums over many adapters: float64, in the order given, one vector at a time.

Nothing here depends on the number of threads: NumPy adds element by element, and BLAS is not asked.
"""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector

ALONE = 65_536
"""Longest vector whose sum is made by the caller alone, while the vectors are still in its cache."""
ROWS, HELD_BYTES = 8, 32 * 2**20
"""Vectors that a sum takes in one go, so that each piece of its accumulator is read and written once for
all: so many alone, so many bytes with several threads."""
LONGEST_PIECE, SHORTEST_PIECE = 38_400, 4_800
"""Of a vector, in numbers: longer ones gain nothing, shorter ones cost more calls than they save."""
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2")
"""What Linux says of the second-level cache."""


def piece_for(cache_bytes: int) -> int:
    """Return the longest piece whose accumulator, product (float64) and vector (float32) leave a quarter of a cache free.

    >>> piece_for(2**19), piece_for(2**21)
    (19648, 38400)
    """
    fitting = int(0.75 * cache_bytes / (8 + 8 + 4)) // 64 * 64
    return min(LONGEST_PIECE, max(SHORTEST_PIECE, fitting))


def second_cache_bytes(folder: Path = CACHE) -> int:
    """Return the second-level cache that one thread has for itself [bytes]; 1 MiB where nobody says."""
    try:
        size, shared = ((folder / name).read_text().strip() for name in ("size", "shared_cpu_list"))
        return int(size.removesuffix("K")) * 1024 // _count(shared)
    except (OSError, ValueError):
        return 2**20


def _count(cpus: str) -> int:
    """Return how many processors a list of Linux names: `0-1,4` are 3."""
    ends = [part.partition("-") for part in cpus.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


PIECE = piece_for(second_cache_bytes())
"""Longest piece: accumulator and product stay in the second-level cache; no bit depends on it."""
THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Threads that share the pieces of a large sum; NumPy lets go of the interpreter in loops of this length."""

LANE = 256
"""Squares that are added up in float32 before they go on in float64."""
SMALLEST, LARGEST = 1e-20, 1e30
"""Sums of squares between which float32 has neither lost small terms nor overflowed."""


class WeightedSum:
    """The sum of w_i (v_i - u_i) in float64, one term after the other in the given order.

    For a run of terms with the same origin u it is sum w_i v_i - u sum w_i. Every element is summed by
    itself and in the order of the terms, so neither `PIECE` nor the number of threads changes a bit;
    memory is that of `ROWS` vectors, or `HELD_BYTES` if that is more.
    """

    def __init__(self, size: int) -> None:
        """Start at zero, for vectors of `size` floats."""
        self._sum = np.zeros(size)
        self._pieces = _pieces(size)
        self._alone = size <= ALONE
        self._most = ROWS if self._alone else max(ROWS, HELD_BYTES // (4 * size))
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
        if len(self._rows) >= self._most:
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
        if self._alone or len(self._rows) < 2:
            for piece in self._pieces:
                self._take_piece(piece)
        else:
            deque(_threads().map(self._take_piece, self._pieces), maxlen=0)
        self._rows.clear()

    def _take_piece(self, piece: slice) -> None:
        total = self._sum[piece]
        product = np.empty_like(total)
        for weight, vector in self._rows:
            np.copyto(product, vector[piece])  # to float64 first: twice as fast as a mixed product
            np.multiply(product, weight, out=product)
            np.add(total, product, out=total)


def _pieces(size: int) -> list[slice]:
    """Cut a vector into pieces of nearly equal length, as many as its threads can share evenly."""
    count = -(-size // PIECE)
    if count > 1:
        count = THREADS * -(-count // THREADS)
    step = -(-size // max(1, count))
    return [slice(at, min(at + step, size)) for at in range(0, size, max(1, step))]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="fedsim-sums")


class Moves:
    """What a commit's moves D_i = end_i - start_i have in common, in one pass over them.

    The mean cosine of the moves to their mean m is u . m / (n |m|) with u = sum_i D_i / |D_i|. Moves are
    float32 differences; `ROWS` of them are added up in float32 and their sums in float64, so the
    relative error is that of a few float32 roundings, however many there are.
    """

    def __init__(self, size: int) -> None:
        """Start with no move, for vectors of `size` floats."""
        self._sum, self._units = np.zeros(size), np.zeros(size)
        self._few, self._few_units = np.zeros((2, size), dtype=np.float32)
        self._move = np.empty(-(-size // LANE) * LANE, dtype=np.float32)
        self._move[size:] = 0.0
        self._still = False
        self.count = 0

    def add(self, start: Vector, end: Vector) -> bool:
        """Take a move; returns False, and leaves it out, if it is not finite."""
        move = self._move[: len(end)]
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(end, start, out=move)
            norm = self._norm(start, end)
            if not math.isfinite(norm):
                return False
            np.add(self._few, move, out=self._few)
            if norm > 0:
                np.multiply(move, np.float32(1.0 / norm), out=move)
                np.add(self._few_units, move, out=self._few_units)
        self._still |= norm == 0
        self.count += 1
        if self.count % ROWS == 0:
            self._fold()
        return True

    def _norm(self, start: Vector, end: Vector) -> float:
        """Return the length of the move at hand: squares in float32 where these neither vanish nor overflow."""
        rows = self._move.reshape(-1, LANE)
        squares = float(np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64))
        if SMALLEST < squares < LARGEST:
            return math.sqrt(squares)
        return length(end.astype(np.float64) - start)

    def _fold(self) -> None:
        for total, few in ((self._sum, self._few), (self._units, self._few_units)):
            np.add(total, few, out=total)
            few.fill(0.0)

    def mean_cosine(self) -> float:
        """Return the mean cosine of the moves to their mean; NaN if one of them, or the mean, is zero."""
        self._fold()
        mean_norm = length(self._sum)
        if self._still or mean_norm == 0:
            return math.nan
        return float(np.einsum("i,i->", self._units, self._sum)) / (self.count * mean_norm)


def length(move: NDArray[np.float64]) -> float:
    """Return the Euclidean norm; NumPy's own loop, since the last bit of BLAS depends on its threads."""
    return math.sqrt(float(np.einsum("i,i->", move, move)))
