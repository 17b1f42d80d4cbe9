"""First draws of generators that are counted up: those of NumPy's own generators, made one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim import rng
from fedsim.rng import CountedStreams, stream


@given(
    seed=st.integers(0, 2**70),
    number=st.integers(0, 10**7),
    below=st.one_of(st.integers(1, 2**20), st.integers(2**31, 2**40)),
)
def test_a_number_is_the_first_that_the_generator_at_the_address_draws(seed, number, below):
    assert CountedStreams(seed, "sample").integer(number, below) == stream(seed, "sample", number).integers(
        below
    )


def test_numbers_may_be_asked_for_in_any_order():
    counted = CountedStreams(3, "sample")
    for number in (0, 1, 31, 32, 33, 500, 7, 5000, 4999, 5001):
        assert counted.integer(number, 1000) == stream(3, "sample", number).integers(1000)


def test_a_bound_that_takes_a_second_draw_gets_it():
    """Just below 2^32 / 1.5 a third of all first draws are thrown away."""
    below = 2**32 * 2 // 3 + 1
    counted = CountedStreams(0, "sample")
    raw = [stream(0, "sample", number).bit_generator.random_raw() & (2**32 - 1) for number in range(200)]
    again = [number for number in range(200) if raw[number] * below % 2**32 < 2**32 % below]

    assert len(again) > 20
    for number in again:
        assert counted.integer(number, below) == stream(0, "sample", number).integers(below)


def test_if_numpy_draws_otherwise_its_own_generators_are_asked(monkeypatch):
    worked_out = rng._first_words
    monkeypatch.setattr(rng, "_first_words", lambda entropy: worked_out(entropy) ^ np.uint64(1))

    assert CountedStreams(1, "sample").integer(5, 999) == stream(1, "sample", 5).integers(999)


@pytest.mark.parametrize("name", ["sample", "it's"])
def test_any_name_is_an_address(name):
    assert CountedStreams(2, name).integer(9, 10**6) == stream(2, name, 9).integers(10**6)
