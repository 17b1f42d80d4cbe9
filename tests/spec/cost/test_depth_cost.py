"""What a training costs with adapters in the last layers only: by torch's own counter on stock PEFT, and its laws."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.peft_flops import stock_flops

from fedsim.cost.architecture import Architecture
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import layer_passes, moved_bytes, train_flops, train_memory_bytes
from fedsim.cost.layers import token_flops
from fedsim.cost.memory.plan import depth_in, with_depth
from fedsim.cost.operations import Operations
from fedsim.cost.shape import ModelShape, with_depth_share, with_rank_share

GPT2 = Architecture("gpt2", 4, 32, 128, 4, 4, 8, 320, positions=64)
LLAMA = Architecture("llama", 4, 32, 48, 4, 2, 8, 320)


def shape(**settings):
    return charged(ChargeAs(preset="gpt2", **settings), full=False)


def of(arch, targets="all-linear"):
    dims = {
        n: getattr(arch, n)
        for n in ("family", "layers", "width", "ffn", "heads", "kv_heads", "head_dim", "vocab")
    }
    return charged(ChargeAs(**dims, r=4, targets=targets), full=False)


@pytest.mark.parametrize("arch", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_flops_are_those_that_torch_counts_with_lower_adapters_frozen(arch, depth, checkpoint):
    part = replace(with_depth_share(of(arch), depth, 4), checkpoint=checkpoint)
    counted = stock_flops(arch, depth, rank=4, checkpoint=checkpoint)

    ours = 48 * token_flops(part.blocks, part.head_params, 16, kappa=1.0, full=False, checkpoint=checkpoint)
    assert ours == counted


def test_a_depth_is_the_same_as_naming_its_layers():
    part = with_depth_share(shape(), 2, 12)
    named = shape(adapted_layers=[10, 11])

    assert part == named
    assert part.blocks == named.blocks
    assert train_flops(part, 100) == train_flops(named, 100)
    assert train_flops(part, 100, layered=True) == train_flops(named, 100, layered=True)


@pytest.mark.parametrize("layered", [False, True])
def test_flops_memory_and_traffic_fall_with_the_depth_by_the_layer(layered):
    parts = [with_depth_share(shape(), depth, 12) for depth in range(1, 13)]
    flops = [train_flops(part, 1, layered=layered) for part in parts]
    memory = [train_memory_bytes(part) for part in parts]
    bytes_moved = [moved_bytes(part, 1, 1) for part in parts]

    for values in (flops, memory, bytes_moved):
        steps = [b - a for a, b in pairwise(values)]
        assert min(steps) > 0
        assert max(steps) == pytest.approx(min(steps), rel=1e-6)
    assert [layer_passes(part) for part in parts] == [12 + depth for depth in range(1, 13)]


def test_the_backward_pass_of_a_layer_costs_twice_its_forward_attention_and_its_weights_once():
    """From depth 6 to 7: 2 of the weights of one layer, its attention's backward, and 6 of its adapters' numbers."""
    one, two = (with_depth_share(shape(r=8), depth, 12) for depth in (6, 7))
    arch = ChargeAs(preset="gpt2").architecture
    weights = sum(i * o for i, o in arch.projections.values())
    adapters = 8 * sum(i + o for i, o in arch.projections.values())
    attention = 8 * arch.sequence * arch.width * 0.5

    assert train_flops(two, 1) - train_flops(one, 1) == pytest.approx(2 * weights + 6 * adapters + attention)


@given(depth=st.integers(1, 4), rank=st.integers(1, 8))
def test_depth_and_rank_go_together_in_any_order(depth, rank):
    whole = shape(r=16)
    one = with_rank_share(with_depth_share(whole, depth, 4), rank, 8)
    other = with_depth_share(with_rank_share(whole, rank, 8), depth, 4)

    assert one == other
    assert one.blocks == other.blocks
    assert one.adapter_params == whole.adapter_params * depth * rank // 32


def test_a_declared_size_without_layers_is_cut_by_its_share():
    whole = shape(params=2 * 10**8)
    part = with_depth_share(whole, 1, 4)

    assert (part.lowest, part.adapter_params) == (9, whole.adapter_params // 4)
    assert part.phi == pytest.approx(
        1 - 9 / 12 * (whole.matmul_params - whole.head_params) / whole.matmul_params
    )


def test_what_was_counted_as_a_whole_has_no_depth_and_whole_models_and_all_layers_stay():
    counted = replace(shape(), operations=Operations(1, 1, 1, 1, 1))

    with pytest.raises(ValueError, match="layers of gpt2 are not known"):
        with_depth_share(counted, 1, 2)
    assert with_depth_share(counted, 2, 2) is counted
    full = ModelShape("m", 2, 2, 2, 8, 8, 8, 1, 1, full=True)
    assert with_depth_share(full, 1, 2) is full


@pytest.mark.parametrize("words", ["fits", "checkpoint", "micro-batch 2, checkpoint, rank 4"])
def test_a_plan_says_its_depth_and_can_be_asked_for_it(words):
    assert depth_in(words) is None
    assert depth_in(with_depth(words, 7)) == 7
    assert depth_in("refused") is None
