"""What the pieces of a score have in common: sums that add up, and rows that are put one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Stacked(tuple[NDArray[np.floating], ...]):
    """Arrays of a score that do not add up: those of several pieces are put one after the other."""

    __slots__ = ()


def add_sums(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add sums in the given order, in float64; `Stacked` are put one after the other.

    Raises:
        TypeError: some pieces have rows where others have numbers.
    """
    total: dict[str, Any] = {}
    rows: dict[str, list[NDArray[np.floating]]] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, Stacked):
                rows.setdefault(key, []).extend(value)
            else:
                total[key] = total.get(key, np.float64(0.0)) + np.asarray(value, np.float64)
    if both := rows.keys() & total.keys():
        raise TypeError(f"{', '.join(sorted(both))}: some pieces of a score have rows, others numbers")
    numbers = {key: float(value) if np.ndim(value) == 0 else value for key, value in total.items()}
    return numbers | {key: Stacked(of_all) for key, of_all in rows.items()}
