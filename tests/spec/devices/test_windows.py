"""The normal form of windows: sorted, apart, joined across the end of the period; the same time is covered."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import oracles.windows
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.devices.windows import Growing, normal_form


def normal(windows, n=1, **settings):
    """Windows (owner, start, stop) in the normal form: a list of (start, stop) for each owner."""
    owner, start, stop = (np.array(column) for column in zip(*windows, strict=True))
    starts, stops, offsets = normal_form(
        owner.astype(np.int64), start.astype(float), stop.astype(float), n=n, **settings
    )
    pairs = list(zip(starts.tolist(), stops.tolist(), strict=True))
    return [pairs[a:b] for a, b in pairwise(offsets)]


def test_windows_are_sorted_and_those_that_overlap_or_touch_are_one():
    assert normal([(0, 5, 9), (0, 1, 3), (0, 3, 4), (0, 8, 12)]) == [[(1, 4), (5, 12)]]


def test_a_window_inside_a_longer_one_changes_nothing():
    assert normal([(0, 0, 100), (0, 10, 20), (0, 50, 60)]) == [[(0, 100)]]


def test_owners_do_not_mix_and_one_without_a_window_has_none():
    assert normal([(2, 0, 5), (0, 4, 6)], n=3) == [[(4, 6)], [], [(0, 5)]]


def test_gaps_up_to_a_length_are_closed():
    assert normal([(0, 0, 1), (0, 2, 3), (0, 4.5, 5)], gap_s=1.0) == [[(0, 3), (4.5, 5)]]


def test_a_window_across_the_end_of_the_period_is_one_window():
    assert normal([(0, 90, 100), (0, 0, 5)], period_s=100.0) == [[(90, 105)]]
    assert normal([(0, 190, 205)], period_s=100.0) == [[(90, 105)]]


def test_a_whole_period_is_always():
    assert normal([(0, 7, 107)], period_s=100.0) == [[(0, math.inf)]]
    assert normal([(0, 0, 50), (0, 50, 100)], period_s=100.0) == [[(0, math.inf)]]


quarters = st.integers(0, 200).map(lambda k: k / 4)


@settings(deadline=None)
@given(
    windows=st.lists(st.tuples(st.integers(0, 2), quarters, quarters.filter(bool)), min_size=1, max_size=12),
    periodic=st.booleans(),
)
def test_the_same_time_is_covered_and_windows_lie_apart(windows, periodic):
    period_s = 60.0 if periodic else math.inf
    windows = [(owner, start, start + length) for owner, start, length in windows]
    result = normal(windows, n=3, period_s=period_s)

    def covered(spans, t):
        laps = (-120.0, -60.0, 0.0, 60.0, 120.0) if periodic else (0.0,)
        return any(start + lap <= t < stop + lap for start, stop in spans for lap in laps)

    for owner, spans in enumerate(result):
        before = [(start, stop) for who, start, stop in windows if who == owner]
        for t in np.arange(0.125, 60.0 if periodic else 101.0, 0.25):
            assert covered(spans, t) == covered(before, t)
        for (_, stop), (start, _) in pairwise(spans):
            assert start > stop


ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60), st.integers(1, 25)), min_size=1, max_size=40)


@given(rows=ROWS, period=st.sampled_from((math.inf, 30.0, 47.5)), gap=st.sampled_from((0.0, 1.0)))
def test_the_normal_form_is_that_of_ranks_and_sorts_to_the_bit(rows, period, gap):
    owner, start, length = (np.array(column) for column in zip(*rows, strict=True))
    start, length = start / 3, length / 7
    args = (owner.astype(np.int64), start, start + length)

    for mine, theirs in zip(
        normal_form(*args, n=5, period_s=period, gap_s=gap),
        oracles.windows.normal_form(*args, n=5, period_s=period, gap_s=gap),
        strict=True,
    ):
        assert np.array_equal(mine, theirs)


@given(parts=st.lists(st.lists(st.floats(-1e9, 1e9), max_size=9), max_size=9))
def test_an_array_that_grows_is_its_parts_one_after_the_other(parts):
    growing = Growing()
    for part in parts:
        growing.append(np.array(part, dtype=float))

    assert growing.whole().tolist() == [number for part in parts for number in part]
