"""Tens of thousands of broken experiments and overrides: an experiment, or a sentence for every problem."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import broken_experiments

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def many(count):
    return settings(
        max_examples=count, deadline=10_000, database=None, suppress_health_check=list(HealthCheck)
    )


@many(10_000)
@given(changes=broken_experiments.CHANGES, overrides=broken_experiments.OVERRIDES)
def test_10_000_broken_files_are_read_or_refused_in_sentences(changes, overrides):
    broken_experiments.read_broken(changes, overrides)


@many(10_000)
@given(data=st.data())
def test_10_000_experiments_with_other_values_are_read_or_refused_in_sentences(data):
    broken_experiments.read_replaced(data)
