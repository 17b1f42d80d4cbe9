"""Windows followed from opening to opening: at every time those are idle whom a look at everybody finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.slow_engine import SlowRoster, whole_charging, whole_share, whole_shift

from fedsim.clock.online import following, openings
from fedsim.clock.online.openings import Openings
from fedsim.clock.online.roster import Roster
from fedsim.config.population import Outages
from fedsim.devices.availability import BLOCK, Availability
from fedsim.devices.charging import charging
from fedsim.devices.outages import interrupted

N = 6
TENTHS = st.integers(0, 400).map(lambda tenths: tenths / 10)


@st.composite
def populations(draw):
    """Windows of a few clients, with a period or without; some clients are always there, some never."""
    rows = draw(st.lists(st.tuples(st.integers(0, N - 1), TENTHS, st.floats(0.05, 30.0)), max_size=14))
    period_s = draw(st.sampled_from((math.inf, 7.3, 40.0, 1e4 / 3)))
    owner, start, length = (np.array(column) for column in zip(*rows, (0, 0.0, 0.0), strict=True))
    owner, start, length = owner[:-1].astype(np.int64), start[:-1].astype(float), length[:-1].astype(float)
    return Availability.from_windows(owner, start, start + length, n=N, period_s=period_s)


TIMES = st.lists(st.floats(0.0, 300.0), min_size=1, max_size=12).map(sorted)


def events_of(times):
    """Some of the very times at which windows open and close, in three periods."""
    edges = np.concatenate([times.starts_s, times.stops_s[np.isfinite(times.stops_s)]])
    bases = (0.0, 1.0, 2.0) if math.isfinite(times.period_s) else (0.0,)
    return sorted({k * times.period_s + edge if k else float(edge) for k in bases for edge in edges})


def same(times, moments):
    fast, slow = Roster(times), SlowRoster(times)
    for moment in moments:
        assert fast.idle(moment).tolist() == slow.idle(moment).tolist()


@pytest.mark.parametrize("at_once", [2, 500_000])
@given(times=populations(), moments=TIMES)
def test_who_is_idle_is_who_a_look_at_everybody_finds(times, moments, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openings, "AT_ONCE", at_once)  # many short stretches, and one
        same(times, moments)
        same(times, sorted([*moments, *events_of(times)]))
        same(times, events_of(times))


@given(times=populations(), moments=TIMES)
def test_many_changes_at_once_are_the_same_as_one_by_one(times, moments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "MANY", 0)
        same(times, moments)


@given(times=populations(), moments=st.lists(st.floats(0.0, 300.0), min_size=2, max_size=8))
def test_time_may_go_back(times, moments):
    same(times, moments)


@given(times=populations(), moments=TIMES, seed=st.integers(0, 3))
def test_outages_are_followed_too(times, moments, seed):
    outages = Outages(per_day=5000.0, mean_s=6.0, by="region", regions=3)
    columns = {"network": np.array(["a"] * N, dtype=object), "tier": np.array(["b"] * N, dtype=object)}

    same(interrupted(times, outages, columns, seed), moments)


def test_years_are_leapt_over_without_being_laid_out():
    times = Availability.from_windows(
        np.array([0, 1]), np.array([1.0, 4.0]), np.array([3.0, 9.0]), n=2, period_s=10.0
    )
    followed = Openings(times)

    assert followed.due(1.5) == [0]
    assert followed.due(1e8 + 2.0) is None
    assert followed.online().tolist() == [True, False]
    assert followed.due(1e8 + 4.0) == [0, 1]
    assert followed.online().tolist() == [False, True]


def equal(some, others):
    names = ("starts_s", "stops_s", "offsets")
    return all(np.array_equal(getattr(some, name), getattr(others, name)) for name in names)


def test_windows_made_block_by_block_are_those_made_at_once():
    n = BLOCK + 300
    times, at_once = charging(n, seed=3, days=2), whole_charging(n, 3, 2)
    shift_s = np.linspace(-3600.0, 7200.0, n)

    assert equal(times, at_once)
    assert equal(times.shifted(shift_s), whole_shift(at_once, shift_s))
    assert np.array_equal(times.share(), whole_share(at_once))
    assert equal(Availability.joined([times]), times)


def test_parts_have_one_period():
    with pytest.raises(ValueError, match="one period"):
        Availability.joined([Availability.always(1), charging(1, seed=0)])
    with pytest.raises(ValueError, match="one period"):
        Availability.joined([])
