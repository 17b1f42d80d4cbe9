"""Bounds on the mean error of a class of measurements, from the spread of the rows that were known when they were set.

The mean of n new rows of a class with mean m and standard deviation s over k known rows lies below
m + 2 s sqrt(1/k + 1/n) in about 97 of 100 cases if rows are independent: few new rows have a wide bound. Flows of one
scenario are not quite independent, so for them the bound is a little too strict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """Absolute errors of the rows of `results/check.json`, in percent: how many, mean, standard deviation."""

    n: int
    mean: float
    deviation: float

    def bound(self, n: int) -> float:
        """Return the most that the mean of n rows may be [%]."""
        return self.mean + 2 * self.deviation * math.sqrt(1 / self.n + 1 / n)


KNOWN = {
    "single upload, delayed link": Known(19, 2.11, 3.6),
}
