"""Broken experiments and overrides are read or refused in sentences; `tests/slow` tries many more."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import broken_experiments

SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_whole_one_can_be_read():
    made = broken_experiments.made_of(broken_experiments.WHOLE.encode())
    assert made is not None
    assert made.name == "a-covering-one"


@SOME
@given(changes=broken_experiments.CHANGES, overrides=broken_experiments.OVERRIDES)
def test_a_broken_file_is_read_or_refused_in_sentences(changes, overrides):
    broken_experiments.read_broken(changes, overrides)


@SOME
@given(data=st.data())
def test_other_values_are_read_or_refused_in_sentences(data):
    broken_experiments.read_replaced(data)
