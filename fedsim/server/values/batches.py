"""How pending jobs are cut into the client batches of single calls."""

from __future__ import annotations

import math

import numpy as np


def batches(n: int, size: int) -> list[slice]:
    """Cut n jobs into ceil(n / size) runs whose lengths differ by at most one.

    >>> [(s.start, s.stop) for s in batches(10, 4)]
    [(0, 4), (4, 7), (7, 10)]
    """
    count = math.ceil(n / size) if n else 0
    lengths = [n // count + (i < n % count) for i in range(count)]
    stops = np.cumsum(lengths).tolist() if lengths else []
    return [slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]
