"""Statistics of a few runs: an interval for a mean, and times of which some were never seen to end.

Seeds are few, so what is said of them has to be modest: an interval holds for five values as it does for fifty, one value
has none, and a value that is missing is never passed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from fedsim.rng import stream

LEVEL = 0.95
DRAWS = 9_999
"""Resamples of a bootstrap."""
ENOUGH = 5
"""Values from which on they are resampled; fewer have too few resamples for an interval of 95 %."""

Method = Literal["bootstrap", "student", "none"]


class MeanInterval(NamedTuple):
    """A mean and where it may lie.

    Attributes:
        mean: of all values, NaN if one is missing or there is none.
        low, high: ends of the interval, NaN where there is none.
        n: values.
        method: how the interval was made; `none`: of a single value, or where one is missing.
    """

    mean: float
    low: float
    high: float
    n: int
    method: Method

    @property
    def covers_zero(self) -> bool:
        """Whether the interval leaves the sign open; so does having none."""
        return not (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float], level: float = LEVEL) -> MeanInterval:
    """Return the mean of values and an interval for it, at a level.

    From five values on it is a percentile bootstrap whose percentiles are widened so that normal values get Student's
    interval (Hesterberg, What teachers should know about the bootstrap, The American Statistician 69, 2015, section
    5.3): the plain one is too narrow for few values. Two to four values have Student's t interval, which assumes
    that they are normal: all resamples of four values lie between the least and the largest, and that range misses
    the median once in eight times. The resamples are drawn by address: equal values give equal intervals.
    """
    numbers = np.asarray(values, dtype=np.float64)
    n = len(numbers)
    if n == 0 or not np.all(np.isfinite(numbers)):
        return MeanInterval(math.nan, math.nan, math.nan, n, "none")
    mean = float(numbers.mean())
    if n == 1:
        return MeanInterval(mean, math.nan, math.nan, 1, "none")
    t = float(stdtrit(n - 1, 0.5 + level / 2))
    if n < ENOUGH:
        half = t * float(numbers.std(ddof=1)) / math.sqrt(n)
        return MeanInterval(mean, mean - half, mean + half, n, "student")
    tail = float(ndtr(-t * math.sqrt(n / (n - 1))))
    drawn = stream(0, "bootstrap", n).integers(n, size=(DRAWS, n))
    low, high = np.quantile(numbers[drawn].mean(axis=1), (tail, 1 - tail))
    return MeanInterval(mean, float(low), float(high), n, "bootstrap")


def kaplan_meier(times_s: Sequence[float], reached: Sequence[bool]) -> pd.DataFrame:
    """Return the product-limit estimate of who has not reached something yet (Kaplan and Meier, JASA 53, 1958).

    Args:
        times_s: when each one reached it, or until when it is known not to have.
        reached: which of the two.

    Returns:
        One row a time at which somebody reached it, ascending: time_s, at_risk (who was still watched and had not),
        reached (how many did then), share_left (after it). Who is watched until that very time counts as at risk.
    """
    times, done = np.asarray(times_s, dtype=np.float64), np.asarray(reached, dtype=bool)
    rows, left = [], 1.0
    for time_s in np.unique(times[done]):
        at_risk, now = int((times >= time_s).sum()), int((done & (times == time_s)).sum())
        left *= 1.0 - now / at_risk
        rows.append((float(time_s), at_risk, now, left))
    return pd.DataFrame(rows, columns=["time_s", "at_risk", "reached", "share_left"])


def median_time(times_s: Sequence[float], reached: Sequence[bool]) -> float:
    """Return the first time at which at most half are left, NaN if it was not seen."""
    estimate = kaplan_meier(times_s, reached)
    half = estimate.loc[estimate["share_left"] <= 0.5 + 1e-12, "time_s"]
    return float(half.iloc[0]) if len(half) else math.nan


def restricted_mean(times_s: Sequence[float], reached: Sequence[bool], until_s: float) -> float:
    """Return the mean of min(time, until_s): the area under the Kaplan-Meier estimate (Royston and Parmar, 2013).

    It counts who never got there with the whole stretch, where a mean over those who did would forget them. NaN if
    nobody was watched as long as that while somebody was left: it is not known then.
    """
    times, done = np.asarray(times_s, dtype=np.float64), np.asarray(reached, dtype=bool)
    if not len(times) or (not done[times == times.max()].all() and times.max() < until_s):
        return math.nan
    estimate = kaplan_meier(times_s, reached)
    inside = estimate[estimate["time_s"] < until_s]
    edges = np.concatenate([[0.0], inside["time_s"].to_numpy(), [until_s]])
    heights = np.concatenate([[1.0], inside["share_left"].to_numpy()])
    return float(np.sum(np.diff(edges) * heights))
