"""The cost of a token layer by layer: by hand, against PyTorch's own counter on stock PEFT, and its laws."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.peft_flops import stock_model

from fedsim.cost.architecture import PRESETS, Architecture
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import moved_bytes, train_flops, train_memory_bytes
from fedsim.cost.layers import Layer, Map, seen_share, token_flops
from fedsim.cost.shape import ModelShape, with_rank

LLAMA = Architecture("llama", 3, 32, 48, 4, 2, 8, 320)
GPT2 = Architecture("gpt2", 3, 32, 128, 4, 4, 8, 320, positions=64)


def shape(preset, **settings):
    return charged(ChargeAs(preset=preset, **settings), full=False)


# by hand ----------------------------------------------------------------------------------------

# d = 2, one head of 2, an MLP of 3, five words, sequences of 7. Forward, a layer: q, k, v and out 4 x 2 x 4,
# gate, up and down 3 x 2 x 6, attention 2 products of 2 x 7 x 2; the head 2 x 10.
FORWARD, SCORES, HEAD = 4 * 8 + 3 * 12, 2 * 28, 2 * 10


def layer(**rank):
    maps = {n: Map(2, 2, rank.get(n, 0)) for n in ("q", "k", "v", "out")}
    up = (Map(2, 3, rank.get("gate", 0)), Map(2, 3, rank.get("up", 0)))
    return Layer((maps["q"], maps["k"], maps["v"]), maps["out"], up, Map(3, 2, rank.get("down", 0)), 2)


def cost(*layers, full=False, checkpoint=False, kappa=1.0):
    return token_flops(layers, 10, 7, kappa=kappa, full=full, checkpoint=checkpoint)


def test_without_an_adapter_there_is_only_the_forward_pass():
    assert cost(layer(), layer()) == 2 * (FORWARD + SCORES) + HEAD


def test_an_adapter_on_the_last_map_needs_no_backward_pass_through_its_own_layer():
    forward = FORWARD + SCORES + 2 * (3 + 2) + HEAD  # A takes 3 numbers to 1, B takes that to 2
    adapter = 2 * 2 + 2 * 2 + 2 * 3  # weights of B, through B, weights of A
    assert cost(layer(down=1)) == forward + adapter + HEAD


def test_an_adapter_on_v_sends_gradients_through_the_values_but_not_through_the_scores():
    forward = FORWARD + SCORES + 2 * (2 + 2) + HEAD
    adapter = 2 * 2 + 2 * 2 + 2 * 2
    values, out, mlp = 28, 8, 3 * 12
    assert cost(layer(v=1)) == forward + adapter + values + out + mlp + HEAD


def test_an_adapter_on_q_sends_gradients_through_scores_and_queries():
    forward = FORWARD + SCORES + 2 * (2 + 2) + HEAD
    assert cost(layer(q=1)) == forward + 12 + 2 * 28 + 8 + 36 + HEAD


def test_layers_above_an_adapter_are_gone_through_whole_and_those_below_forward_only():
    above = cost(layer(v=1), layer()) - cost(layer(v=1))
    below = cost(layer(), layer(v=1)) - cost(layer(v=1))
    assert above == 2 * FORWARD + 3 * SCORES  # attention is two products forward and four backward
    assert below == FORWARD + SCORES


def test_checkpointing_computes_the_layers_with_a_gradient_forward_once_more():
    plain, again = (cost(layer(), layer(v=1), checkpoint=c) for c in (False, True))
    assert again - plain == FORWARD + SCORES + 2 * (2 + 2)


def test_training_everything_costs_three_times_the_forward_pass():
    assert cost(layer(), layer(), full=True) == 3 * (2 * (FORWARD + SCORES) + HEAD)


def test_a_causal_kernel_halves_attention_and_nothing_else():
    eager, causal = cost(layer(v=1), layer()), cost(layer(v=1), layer(), kappa=0.5)
    assert eager - causal == (2 * SCORES + 28 + 2 * SCORES) / 2


# a second implementation ------------------------------------------------------------------------


def _stock(arch, targets, adapted, *, checkpoint):
    """FLOPs that torch counts in a forward and a backward pass of stock PEFT over 3 x 16 tokens."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.checkpoint import set_checkpoint_early_stop
    from torch.utils.flop_counter import FlopCounterMode

    model = stock_model(arch)
    ends_with = tuple(f".{name}" for target in targets for name in arch._expand(target))
    layers = {f".{i}." for i in adapted}
    names = [n for n, _ in model.named_modules() if n.endswith(ends_with) and any(at in n for at in layers)]
    lora = LoraConfig(r=4, target_modules=names, fan_in_fan_out=arch.family == "gpt2", task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, lora).train()
    if checkpoint:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # set by transformers for its reentrant variant only
    ids = torch.randint(0, arch.vocab, (3, 16))
    with FlopCounterMode(display=False) as counter, set_checkpoint_early_stop(enable=False):
        wrapped(input_ids=ids, use_cache=False).logits.float().sum().backward()
    return counter.get_total_flops()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("adapted", [(0, 1, 2), (1,), (0, 2)])
@pytest.mark.parametrize(
    ("arch", "targets"),
    [
        (LLAMA, ("all-linear",)),
        (LLAMA, ("q_proj", "v_proj")),
        (LLAMA, ("v_proj",)),
        (LLAMA, ("gate_proj", "k_proj")),
        (LLAMA, ("down_proj",)),
        (GPT2, ("all-linear",)),
        (GPT2, ("c_attn",)),
        (GPT2, ("attn.c_proj",)),
        (GPT2, ("c_fc",)),
    ],
    ids=lambda value: value.family if isinstance(value, Architecture) else "+".join(value),
)
def test_torch_counts_the_same_flops_on_stock_peft_models(arch, targets, adapted, checkpoint):
    counted = _stock(arch, targets, adapted, checkpoint=checkpoint)
    blocks = arch.blocks(targets, 4, adapted)
    each = token_flops(
        blocks, arch.embedding_params, 16, kappa=1.0, full=False, checkpoint=checkpoint
    )  # eager attention computes the whole matrix
    assert counted == 3 * 16 * each


@pytest.mark.parametrize("fixture", ["llama", "gpt2"])
def test_the_layers_of_a_model_that_trains_are_read_off_its_modules(fixture, request):
    from fedsim.config.learning import LoraConfig
    from fedsim.training import hub, lora, text_shape

    model = hub.skeleton(request.getfixturevalue(fixture))
    upper = "h.1.attn.c_attn" if fixture == "gpt2" else "layers.1.self_attn.q_proj"
    for targets, lowest in (("all-linear", 0), (upper, 1)):
        config = LoraConfig(r=4, targets=targets)
        found = text_shape.shape(model, fixture, lora.layout(model, config), 16, 2)
        dims = {"width": 32, "vocab": 320, "layers": 2, "heads": 4}
        dims |= {"ffn": 48, "kv_heads": 2} if fixture == "llama" else {"family": "gpt2", "ffn": 128}
        names = targets if lowest == 0 else targets.rpartition(".")[2]
        same = charged(ChargeAs(**dims, r=4, targets=names, adapted_layers=range(lowest, 2)), full=False)
        assert found.blocks == same.blocks
        assert (found.lowest, found.phi) == (lowest, same.phi)
        assert found.adapter_params == same.adapter_params


# laws -------------------------------------------------------------------------------------------


@given(preset=st.sampled_from(sorted(PRESETS)), r=st.integers(1, 64), sequence=st.integers(1, 4096))
@settings(deadline=None, max_examples=40)
def test_by_layers_and_by_parameters_agree_where_all_maps_are_adapted(preset, r, sequence):
    # apart: the lowest layer's q, k, v need no gradient below them, and heads may be wider than the model
    same_width = PRESETS[preset].heads * PRESETS[preset].head_dim / PRESETS[preset].width
    found = shape(preset, r=r, sequence=sequence)
    seen = sum(seen_share(block.window, sequence) for block in found.blocks) / found.layers
    attention = 12 * found.layers * sequence * found.width * 0.5 * seen
    by_parameters = train_flops(found, 1) + (same_width - 1) * attention
    assert 0.97 * by_parameters < train_flops(found, 1, layered=True) < by_parameters


PLACES = st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True)


@given(r=st.integers(1, 32), sequence=st.integers(1, 512), adapted=PLACES, layered=st.booleans())
@settings(deadline=None, max_examples=60)
def test_flops_grow_with_rank_sequence_and_tokens_and_add_up_over_tokens(r, sequence, adapted, layered):
    def flops(tokens=1000, **changed):
        given = {"r": r, "sequence": sequence, "adapted_layers": adapted} | changed
        return train_flops(shape("gpt2", **given), tokens, layered=layered)

    assert flops() < flops(r=r + 1)
    assert flops() < flops(sequence=sequence + 1)
    assert flops() < flops(checkpoint=True)
    assert flops(400) + flops(600) == pytest.approx(flops())


@given(adapted=PLACES)
def test_only_layers_from_the_lowest_adapter_up_are_paid_backward_and_kept_in_memory(adapted):
    def found(layers):
        return shape("gpt2", adapted_layers=layers, targets="mlp.c_proj")

    lowest, partial, whole = min(adapted), found(adapted), found(range(12))
    assert partial.lowest == lowest
    assert partial.adapter_params * 12 == whole.adapter_params * len(adapted)
    rest = 16 * (whole.adapter_params - partial.adapter_params)
    kept = 24 * lowest * whole.sequence * whole.width
    assert train_memory_bytes(whole) - train_memory_bytes(partial) == pytest.approx(rest + kept)
    block = PRESETS["gpt2"].matmul_params - PRESETS["gpt2"].embedding_params
    assert partial.phi == pytest.approx(1 - lowest * block / 12 / whole.matmul_params)


def test_adapting_the_upper_half_saves_less_than_half_of_the_backward_pass():
    # GPT-2: the head is a third of the products, and the forward pass stays whole
    half = train_flops(shape("gpt2", adapted_layers=range(6, 12)), 1, layered=True)
    whole = train_flops(shape("gpt2"), 1, layered=True)
    assert 0.75 < half / whole < 0.85


def test_checkpointing_adds_a_forward_pass_of_the_layers_and_spares_their_activations():
    plain, again = shape("gpt2"), shape("gpt2", checkpoint=True)
    layers = 2 * (plain.matmul_params - plain.head_params) + 2 * plain.adapter_params
    attention = 4 * 12 * 512 * 768 * 0.5
    assert train_flops(again, 1) - train_flops(plain, 1) == pytest.approx(layers + attention)
    spared = 512 * 768 * (12 * 24 - (12 * 2 + 24))  # inputs in bf16, and one layer live
    assert train_memory_bytes(plain) - train_memory_bytes(again) == spared


def test_a_rank_can_be_put_in_place_of_another():
    assert with_rank(shape("gpt2", r=8), 2) == shape("gpt2", r=2)
    assert with_rank(shape("gpt2", r=8), 2).blocks == shape("gpt2", r=2).blocks
    assert shape("gpt2", r=8).rank == 8
    bare = ModelShape("bare", 2, 8, 100, 5_000, 4_000, 300, sequence=16, batch=4)
    with pytest.raises(ValueError, match="bare has no adapters of known rank"):
        with_rank(bare, 2)
    with pytest.raises(ValueError, match="the layers of bare are not known"):
        train_flops(bare, 1, layered=True)


def test_declared_counts_leave_the_layers_unknown():
    assert shape("gpt2", params=100_000_000).blocks == ()


@pytest.mark.parametrize("adapted", [(), (12,), (0, 30)])
def test_layers_that_are_not_there_cannot_be_adapted(adapted):
    with pytest.raises(ValueError, match="adapted_layers must name some of the layers 0 to 11"):
        ChargeAs(preset="gpt2", adapted_layers=adapted)


# memory traffic ---------------------------------------------------------------------------------

SMALL = ModelShape("small", 2, 8, 100, 5_000, 4_000, 300, sequence=16, batch=4)


def test_each_pass_reads_the_weights_once_forward_and_once_backward():
    assert moved_bytes(SMALL, 1, 0) == 2 * 4 * 4_000
    assert moved_bytes(SMALL, 3, 2) == 3 * 2 * 4 * 4_000 + 2 * 28 * 300
    assert moved_bytes(replace(SMALL, phi=0.25), 1, 0) == 1.25 * 4 * 4_000
    assert moved_bytes(replace(SMALL, checkpoint=True), 1, 0) == 3 * 4 * 4_000
    assert moved_bytes(replace(SMALL, full=True), 1, 1) == 3 * 4 * 4_000 + 28 * 5_000


def test_quantised_weights_are_cheap_to_read_unless_they_are_unpacked_to_memory():
    four_bits = replace(SMALL, weight_bytes=0.5)
    assert moved_bytes(four_bits, 1, 0) == 2 * 0.5 * 4_000
    assert moved_bytes(four_bits, 1, 0, copied=True) == 2 * (0.5 + 2 + 2) * 4_000
    assert moved_bytes(SMALL, 1, 0, copied=True) == moved_bytes(SMALL, 1, 0)
