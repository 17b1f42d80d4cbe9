"""Bounds on the mean error of a class of measurements, from the spread of the rows that were known when they were set.

The mean of n new rows of a class with mean m and standard deviation s over k known rows lies below
m + 2.5 s sqrt(1/k + 1/n) in about 99 of 100 cases if rows are independent, and all seven classes keep their bounds in about
95 of 100: few new rows have a wide bound. Flows of one scenario are not quite independent, so for them the bound is a
little too strict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DEVIATIONS = 2.5
"""One-sided, 0.6 % a class: 4 % for seven classes together."""


@dataclass(frozen=True)
class Known:
    """Absolute errors of the rows of `results/check.json`, in percent: how many, mean, standard deviation."""

    n: int
    mean: float
    deviation: float

    def bound(self, n: int) -> float:
        """Return the most that the mean of n rows may be [%]."""
        return self.mean + DEVIATIONS * self.deviation * math.sqrt(1 / self.n + 1 / n)


KNOWN = {
    "single upload, delayed link": Known(19, 2.111, 4.789),
    "single upload, delayed link with kernel tbf": Known(19, 1.299, 1.237),
    "single upload, kernel tbf": Known(18, 0.175, 0.081),
    "fair queue, a flow": Known(24, 0.781, 1.046),
    "fair queue, makespan": Known(6, 0.324, 0.229),
    "rate traces, a flow": Known(12, 0.653, 0.901),
    "drop-tail, equal RTT and start: makespan": Known(9, 2.803, 2.731),
}
"""Classes that the model is meant for; behind a drop-tail queue a single flow has no bound."""
