"""A job with `upto` makes the first steps of its visit and no others, on every training path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.jobs import Job
from fedsim.training import hub, local, lora, sequential
from fedsim.training.stacked import batched
from fedsim.training.stacked.swapped import Swapped

RANK = LoraConfig(r=2, alpha=4.0)


@given(n=st.integers(1, 40), batch=st.integers(1, 9), amount=st.integers(1, 4), upto=st.integers(1, 30))
def test_the_batches_that_are_left_are_the_first_of_the_visit(n, batch, amount, upto):
    for how in ({"epochs": amount}, {"steps": 3 * amount}):
        whole = Job(3, 1, None, LocalConfig(batch=batch, **how), 0)
        cut = Job(3, 1, None, whole.local, 0, upto=upto)
        every = [rows.tolist() for rows in local.batches(n, whole)]

        assert [rows.tolist() for rows in local.batches(n, cut)] == every[:upto]
        assert local.made(n, whole) == len(every)
        assert local.made(n, cut) == min(upto, len(every))


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_a_cut_visit_is_one_that_was_asked_for_fewer_steps_to_the_bit(gpt2, path):
    layout = lora.layout(hub.skeleton(gpt2), RANK)
    start = lora.initial(layout, 0)
    data = [np.random.default_rng(i).integers(0, 320, (6, 9)).astype(np.uint16) for i in range(3)]

    def trained(steps, uptos):
        jobs = [
            Job(i, 0, start, LocalConfig(optimizer="sgd", lr=0.1, steps=s, batch=4), 0, upto=upto)
            for i, (s, upto) in enumerate(zip(steps, uptos, strict=True))
        ]
        if path == "sequential":
            return sequential.train(lora.Trainee(hub.weights(gpt2), layout, RANK), data, jobs)
        return batched.train(Swapped(hub.weights(gpt2), layout), data, jobs, tokens_at_once=10**9)

    cut, short = trained([5, 5, 5], [2, None, 1]), trained([2, 5, 1], [None, None, None])

    for one, other in zip(cut, short, strict=True):
        assert np.array_equal(one.end, other.end)
        assert (one.steps, one.examples, one.tokens) == (other.steps, other.examples, other.tokens)
    assert [one.steps for one in cut] == [2, 5, 1]
    assert [one.examples for one in cut] == [6, 6, 4]
