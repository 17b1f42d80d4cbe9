"""What is trained beside the factors is charged: FLOPs against torch's own counter on stock PEFT, numbers by hand."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from worlds.practice import PRACTICES, Practice, layout_of, stock

from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import moved_bytes, pass_flops, train_flops, train_memory_bytes
from fedsim.cost.layers import token_flops
from fedsim.cost.shape import adapter_bytes, with_magnitudes, with_rank_share
from fedsim.training import hub, text_shape

ROWS, SEQUENCE = 3, 16
KINDS = {
    **{name: PRACTICES[name] for name in ("patterns", "biases of adapted layers", "all biases, LoRA+", "whole modules")},
    "dora": PRACTICES["dora"],
    "dora on Conv1D": PRACTICES["dora on Conv1D with biases"],
    "the embedding": Practice("llama", {"modules_to_save": ("embed_tokens",)}, {"modules_to_save": ["embed_tokens"]}),
    "a matrix whole": Practice(
        "llama",
        {"targets": ("q_proj",), "modules_to_save": ("layers.0.mlp.up_proj",)},
        {"target_modules": ["q_proj"], "modules_to_save": ["layers.0.mlp.up_proj"]},
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def practice(request):
    return KINDS[request.param]


def shape_of(folder, practice):
    layout = layout_of(folder, practice)
    return text_shape.shape(hub.skeleton(folder), folder, layout, SEQUENCE, ROWS), layout


@pytest.mark.filterwarnings("ignore")
def test_torch_counts_the_same_flops_on_stock_peft(practice, request):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    folder = request.getfixturevalue(practice.model)
    shape, _ = shape_of(folder, practice)
    model = stock(folder, practice, torch.float32)
    model.base_model.model.set_attn_implementation("eager")
    ids = torch.zeros(ROWS, SEQUENCE, dtype=torch.int64)
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.float().sum().backward()
    each = token_flops(shape.blocks, shape.head_params, SEQUENCE, kappa=1.0, full=False, checkpoint=False)
    charged_flops = ROWS * SEQUENCE * (each + 2 * shape.beside_matmul) + pass_flops(shape)
    assert charged_flops == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_every_number_that_trains_is_sent_and_held(practice, request):
    folder = request.getfixturevalue(practice.model)
    shape, layout = shape_of(folder, practice)
    beside = sum(t.size for t in layout.beside)
    assert (shape.adapter_params, shape.beside_params) == (layout.size - beside, beside)
    assert adapter_bytes(shape) == 4 * layout.size
    alone = replace(shape, beside_params=0, pass_numbers=0, kept_numbers=0)
    extra = train_memory_bytes(shape) - train_memory_bytes(alone)
    tokens = ROWS * SEQUENCE
    assert extra == pytest.approx(16 * beside + 4 * shape.pass_numbers + 2 * tokens * shape.kept_numbers)
    assert moved_bytes(shape, 0, 1) == 28 * layout.size


def test_a_smaller_rank_has_smaller_factors_and_the_same_lengths():
    shape = with_magnitudes(charged(ChargeAs(preset="gpt2", r=8), full=False))
    half = with_rank_share(shape, 4, 8)
    assert half.beside_params == shape.beside_params == 12 * (3 * 768 + 768 + 4 * 768 + 768)
    assert half.adapter_params * 2 == shape.adapter_params
    assert half.pass_flops * 2 == shape.pass_flops
    sides = [(768, 2304), (768, 768), (768, 3072), (3072, 768)]
    assert shape.pass_flops == 12 * sum(2 * 8 * i * (i + o) for i, o in sides)
    assert pass_flops(replace(shape, checkpoint=True)) == 2 * shape.pass_flops


def test_a_head_that_trains_costs_the_gradient_of_its_weights():
    shape = charged(ChargeAs(preset="gpt2"), full=False)
    head = replace(shape, beside_params=shape.head_params, beside_matmul=shape.head_params)
    for layered in (False, True):
        more = train_flops(head, 10, layered=layered) - train_flops(shape, 10, layered=layered)
        assert more == pytest.approx(10 * 2 * shape.vocab * shape.width)
