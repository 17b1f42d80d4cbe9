"""Codes and scales of quantised weights: the published table, blocks by hand, a second arithmetic, round trips and their errors."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles.quantised import PUBLISHED, by_hand

from fedsim.cost.quantised import Quantise
from fedsim.training.quantised.base import quantised
from fedsim.training.quantised.codes import NF4, DoubledScales, coded

KINDS = ["int8", "nf4"]
WIDEST = (NF4[1] - NF4[0]) / 2
"""Half of the widest gap between two values of nf4: between the lowest two."""
WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=2, max_side=16),
    elements=st.floats(-1e3, 1e3, width=32),
)


def spread(end, count):
    """Quantiles of a normal distribution at `count` levels from `end` down to the middle, which is left out."""
    levels = [end + (0.5 - end) * i / count for i in range(count)]
    return [NormalDist().inv_cdf(level) for level in levels]


def test_the_values_are_the_published_ones():
    assert list(NF4) == PUBLISHED


def test_the_values_are_normal_quantiles_brought_to_one():
    """Eight above zero and seven below, at levels that end where the mean of 1 - 1/30 and 1 - 1/32 is."""
    end = (2 - 1 / 30 - 1 / 32) / 2
    values = sorted([*(-q for q in spread(end, 7)), 0.0, *spread(end, 8)])

    assert [value / values[-1] for value in values] == pytest.approx(NF4, abs=1e-6)


def test_a_block_of_nf4_by_hand():
    weight = torch.tensor([[0.5, -2.0, 0.0, 1.0, *[0.0] * 12], [0.1, 0.1, -0.1, 0.05, *[0.0] * 12]])
    found = coded(weight, Quantise(kind="nf4", block=16))

    assert found.scales.tolist() == pytest.approx([2.0, 0.1])
    # 0.25 is next to 0.2461, -1 to itself, 0.5 to 0.4407 (0.0593 away; 0.5626 is 0.0626 away)
    assert [int(b) for b in found.codes[:2]] == [10 << 4 | 0, 7 << 4 | 12]
    assert found.values()[0, :4].tolist() == pytest.approx([2 * NF4[10], -2.0, 0.0, 2 * NF4[12]])
    assert found.values()[1, :4].tolist() == pytest.approx([0.1, 0.1, -0.1, 0.1 * NF4[12]])


def test_a_block_of_int8_by_hand():
    weight = torch.tensor([1.27, -0.635, 0.015, 0.0, *[0.0] * 12, 0.3])
    found = coded(weight, Quantise(kind="int8", block=16))

    assert found.codes.tolist() == [127, -64, 2, 0, *[0] * 12, 127]  # -63.5 and 1.5 go to the even number
    assert found.scales.tolist() == pytest.approx([1.27, 0.3])
    assert found.values().tolist() == pytest.approx([1.27, -0.64, 0.02, 0.0, *[0.0] * 12, 0.3])


def test_blocks_go_on_into_the_next_row_and_the_last_one_is_shorter():
    weight = torch.arange(1.0, 34.0).view(3, 11)
    found = coded(weight, Quantise(kind="int8", block=16))

    assert found.scales.tolist() == [16.0, 32.0, 33.0]
    assert found.values()[2, 10] == 33.0


def test_borders_belong_to_the_lower_value():
    table = torch.tensor(NF4)
    borders = (table[1:] + table[:-1]) / 2
    weight = torch.cat([borders, torch.tensor([1.0])])

    assert coded(weight, Quantise(kind="nf4", block=16)).values()[:15].tolist() == table[:15].tolist()


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(weights=WEIGHTS, block=st.sampled_from([16, 33, 64]))
def test_values_are_those_of_a_second_arithmetic_and_the_largest_of_a_block_is_kept(kind, weights, block):
    how = Quantise(kind=kind, block=block)
    values = coded(torch.from_numpy(weights), how).values().numpy()
    expected, scales = by_hand(weights, how)
    each = np.repeat(scales, block)[: weights.size].reshape(weights.shape)

    step = 1 / 127 if kind == "int8" else WIDEST * 2
    close = np.abs(values - expected) <= 1e-6 * each
    # where rounding decides between two codes, both are equally far away
    tied = np.abs(np.abs(values - weights) - np.abs(expected - weights)) <= 1e-5 * each
    assert (close | tied).all()
    assert (np.abs(values - weights) <= (step / 2 + 1e-6) * each).all()
    largest = np.abs(weights) == each.astype(np.float32)
    assert np.array_equal(values[largest], weights[largest])


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(weights=WEIGHTS)
def test_what_has_been_quantised_stays_as_it_is(kind, weights):
    how = Quantise(kind=kind, block=32)
    once = coded(torch.from_numpy(weights), how).values()
    # numbers so small that a share of them is none are left out: their codes are all rounding
    normal = (once.abs() >= 1e-30) | (once == 0)

    assert torch.equal(coded(once, how).values()[normal], once[normal])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [False, True])
@settings(deadline=None, max_examples=40)
@given(weights=WEIGHTS, block=st.integers(16, 80))
def test_codes_and_scales_take_the_bytes_that_are_charged(kind, double, weights, block):
    how = Quantise(kind=kind, block=block, double=double)
    found = coded(torch.from_numpy(weights), how)

    assert found.n_bytes == how.bytes_of(weights.size)


@settings(deadline=None, max_examples=40)
@given(scales=hnp.arrays(np.float32, st.integers(1, 600), elements=st.floats(0, 1e3, width=32)))
def test_doubled_scales_are_off_by_half_a_step_of_what_is_left_without_their_mean(scales):
    found = DoubledScales.of(torch.from_numpy(scales))
    left = scales - scales.mean(dtype=np.float64)
    values = found.values().numpy()

    assert (values >= 0).all()
    for at in range(0, len(scales), 256):
        most = np.abs(left[at : at + 256]).max() / 254
        assert np.abs(values - scales)[at : at + 256].max() <= most * 1.001 + 1e-6 * scales.max()


def test_doubled_scales_by_hand():
    found = DoubledScales.of(torch.tensor([1.0, 2.0, 3.0, 6.0]))

    assert float(found.mean) == 3.0
    assert found.steps.tolist() == [3.0]
    assert found.codes.tolist() == [-85, -42, 0, 127]  # -2, -1, 0 and 3 over 3 / 127
    assert found.values().tolist() == pytest.approx([3 - 85 * 3 / 127, 3 - 42 * 3 / 127, 3.0, 6.0])


def test_normal_weights_lose_less_in_nf4_than_in_sixteen_even_steps():
    weight = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, 64 * 512).astype(np.float32))
    blocks = weight.view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    even = (blocks / scale * 7.5 - 0.5).round().add(0.5).div(7.5) * scale

    def error(values):
        return float((values.flatten() - weight).norm() / weight.norm())

    assert error(coded(weight, Quantise(kind="int8")).values()) < 0.01
    assert error(coded(weight, Quantise(kind="nf4")).values()) < 0.95 * error(even)
    assert error(coded(weight, Quantise(kind="nf4")).values()) == pytest.approx(0.09, abs=0.01)


def test_a_turned_weight_is_quantised_along_its_inputs_too():
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=(48, 20)).astype(np.float32))
    how = Quantise(kind="nf4", block=16)

    turned = quantised(weight.t().contiguous(), how, turned=True)
    assert torch.equal(turned, quantised(weight, how).t())
    assert turned.is_contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_narrow_weights_are_coded_as_the_numbers_that_they_are(kind):
    weight = torch.from_numpy(np.random.default_rng(2).normal(size=(16, 32)).astype(np.float32)).bfloat16()
    how = Quantise(kind=kind)

    assert torch.equal(quantised(weight, how), coded(weight.float(), how).values().bfloat16())


def test_a_weight_of_zeros_is_one():
    zeros = torch.zeros(3, 50)
    for kind in KINDS:
        for double in (False, True):
            values = coded(zeros, Quantise(kind=kind, double=double)).values()
            assert torch.equal(values, zeros)
            assert not math.isnan(float(values.sum()))
