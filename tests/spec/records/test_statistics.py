"""Intervals of a few values and times that were not all reached: by hand, against SciPy, and by how often they are right."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from fedsim.records.statistics import (
    kaplan_meier,
    mean_interval,
    median_time,
    restricted_mean,
)

FREIREICH = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
REACHED = [
    True,
    True,
    True,
    False,
    True,
    False,
    True,
    False,
    False,
    True,
    True,
    *(False,) * 3,
    True,
    True,
    *(False,) * 5,
]
"""The 6-MP arm of Freireich et al. (Blood 21, 1963): weeks of remission, the best known table of its kind."""


def test_two_to_four_values_have_students_interval():
    found = mean_interval([1.0, 2.0, 6.0])
    low, high = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem([1.0, 2.0, 6.0]))

    assert found.mean == 3.0
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.n, found.method, found.covers_zero) == (3, "student", True)


def test_one_value_has_no_interval_and_a_missing_one_leaves_no_mean():
    one, none, missing = mean_interval([4.0]), mean_interval([]), mean_interval([1.0, math.nan, 3.0])

    assert (one.mean, one.n, one.method, one.covers_zero) == (4.0, 1, "none", True)
    assert math.isnan(one.low)
    assert math.isnan(none.mean)
    assert math.isnan(missing.mean)  # not the mean of 1 and 3
    assert missing.n == 3


def test_the_bootstrap_is_that_of_all_resamples_of_five_values():
    values = np.array([0.3, -1.0, 2.0, 4.0, 0.9])
    found = mean_interval(values)
    t = stats.t.ppf(0.975, 4)
    tail = stats.norm.cdf(-t * math.sqrt(5 / 4))  # Hesterberg 2015: 0.00095 instead of 0.025
    every = [np.mean(drawn) for drawn in itertools.product(values, repeat=5)]
    low, high = np.quantile(every, [tail, 1 - tail])

    assert tail == pytest.approx(0.00095, abs=1e-5)
    assert found.method == "bootstrap"
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1)


def test_for_many_values_the_bootstrap_is_scipys_and_students():
    values = np.random.default_rng(3).normal(1.0, 2.0, 200)
    found = mean_interval(values)
    plain = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    student = stats.t.interval(0.95, 199, loc=values.mean(), scale=stats.sem(values))

    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.03)
    assert (found.low, found.high) == pytest.approx(student, abs=0.03)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([2.0] * 6)[:3] == (2.0, 2.0, 2.0)
    assert mean_interval([0.0] * 6).covers_zero


def test_equal_values_give_equal_intervals_whatever_was_drawn_before():
    values = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0]
    first = mean_interval(values)
    np.random.default_rng().random()

    assert mean_interval(values) == first


@pytest.mark.parametrize(("n", "least"), [(2, 0.93), (3, 0.93), (4, 0.93), (5, 0.88), (8, 0.91), (20, 0.93)])
def test_an_interval_of_few_normal_values_holds_nearly_as_often_as_it_says(n, least):
    """The plain percentile bootstrap holds in 0.83 of such cases for five values, and in 0.5 for two."""
    rng, held = np.random.default_rng(n), 0
    for _ in range(400):
        found = mean_interval(rng.normal(size=n))
        held += found.low <= 0.0 <= found.high

    assert held / 400 >= least


def test_remissions_of_1963_have_their_published_estimate():
    found = kaplan_meier(FREIREICH, REACHED).set_index("time_s")

    assert found.index.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert found["at_risk"].tolist() == [21, 17, 15, 12, 11, 7, 6]
    published = [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert found["share_left"].tolist() == pytest.approx(published, abs=5e-4)
    assert median_time(FREIREICH, REACHED) == 23


def test_the_estimate_is_scipys_on_random_times():
    rng = np.random.default_rng(5)
    for _ in range(50):
        n = int(rng.integers(1, 30))
        times, reached = rng.integers(1, 12, n).astype(float), rng.random(n) < 0.6
        reached[0] = True
        found = kaplan_meier(times, reached)
        data = stats.CensoredData(uncensored=times[reached].tolist(), right=times[~reached].tolist())
        expected = stats.ecdf(data).sf

        assert found["share_left"].tolist() == pytest.approx(
            expected.evaluate(found["time_s"].to_numpy()).tolist()
        )


def test_all_who_reached_it_have_their_mean_and_nobody_else_is_forgotten():
    assert restricted_mean([2.0, 4.0], [True, True], 10.0) == pytest.approx(3.0)
    assert restricted_mean([2.0, 10.0], [True, False], 10.0) == pytest.approx(6.0)  # a survivors' mean says 2
    assert restricted_mean([2.0, 20.0], [True, True], 10.0) == pytest.approx(6.0)
    assert restricted_mean([10.0, 10.0], [False, False], 10.0) == pytest.approx(10.0)


def test_who_is_watched_for_less_counts_as_the_others_that_were_left():
    # one of three reaches it at 2, one is lost at 4, one reaches it at 8: left 2/3 from 2 on, 0 from 8 on
    assert restricted_mean([2.0, 4.0, 8.0], [True, False, True], 10.0) == pytest.approx(2.0 + 2 / 3 * 6.0)
    assert restricted_mean([2.0, 4.0, 8.0], [True, False, True], 5.0) == pytest.approx(2.0 + 2 / 3 * 3.0)


def test_what_nobody_was_watched_for_is_not_known():
    assert math.isnan(restricted_mean([2.0, 4.0], [True, False], 5.0))
    assert math.isnan(restricted_mean([], [], 5.0))
    assert math.isnan(median_time([3.0, 5.0, 5.0], [True, False, False]))
