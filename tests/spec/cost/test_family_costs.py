"""What the clock charges of the families that are written out: parameters as counted, FLOPs as torch counts them on stock PEFT."""

from __future__ import annotations

import pytest
from worlds.decoders import GEMMA, small_llama
from worlds.families import counted_flops

from fedsim.config.learning import LoraConfig
from fedsim.cost.architecture import PRESETS
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import CAUSAL, forward_flops, train_flops
from fedsim.cost.layers import seen_share, token_flops
from fedsim.training import lora, text_shape

TIED = {"tie_word_embeddings": True}
MODELS = {
    "llama": TIED,
    "mistral": {"kind": "Mistral", "sliding_window": 4},
    "qwen2": {"kind": "Qwen2", **TIED},
    "qwen3": {"kind": "Qwen3", "head_dim": 8, **TIED},
    "smollm3": {"kind": "SmolLM3", **TIED},
    "gemma3": GEMMA,
}
SEQUENCE = 16


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "targets"), [*((name, "all-linear") for name in MODELS), ("gemma3", ("v_proj", "down_proj"))]
)
def test_torch_counts_the_flops_of_the_layers_on_stock_peft(name, targets):
    model = small_llama(**MODELS[name])
    layout = lora.layout(model, LoraConfig(r=4, targets=targets))
    shape = text_shape.shape(model, name, layout, SEQUENCE, 2)
    each = token_flops(
        shape.blocks, shape.head_params, SEQUENCE, kappa=1.0, full=False, checkpoint=False
    )  # eager attention computes the whole matrix, whatever the window
    assert shape.params == sum(p.numel() for p in model.parameters())
    assert counted_flops(model, targets, SEQUENCE) == each


@pytest.mark.parametrize("name", MODELS)
def test_a_declared_model_of_the_family_is_charged_as_the_one_that_trains(name):
    model = small_llama(**MODELS[name])
    layout = lora.layout(model, LoraConfig(r=4))
    trains = text_shape.shape(model, name, layout, SEQUENCE, 2)
    declared = charged(
        ChargeAs(
            family=name, layers=3, width=24, ffn=40, heads=4, kv_heads=2, vocab=53, r=4, sequence=SEQUENCE,
            head_dim=model.model.layers[0].self_attn.head_dim, tied=model.config.tie_word_embeddings,
        ),
        full=False,
    )  # fmt: skip
    assert (declared.params, declared.matmul_params) == (trains.params, trains.matmul_params)
    assert declared.adapter_params == trains.adapter_params
    assert [b.forward(8, 1.0) for b in declared.blocks] == [b.forward(8, 1.0) for b in trains.blocks]


def test_windows_are_those_of_the_layers():
    def windows(**settings):
        model = small_llama(**settings)
        layout = lora.layout(model, LoraConfig(r=4))
        return [block.window for block in text_shape.shape(model, "m", layout, SEQUENCE, 2).blocks]

    assert windows(**GEMMA) == [3, 0, 3]
    assert windows(**MODELS["mistral"]) == [4, 4, 4]
    assert windows(kind="Qwen2", sliding_window=4) == [0, 0, 0]  # not used unless use_sliding_window says so
    gemma = PRESETS["gemma-3-270m"].blocks("all-linear", 8, ())
    assert [i for i, block in enumerate(gemma) if not block.window] == [5, 11, 17]


def test_a_window_leaves_the_pairs_that_it_holds_of_a_causal_triangle():
    """Counted pair by pair; the closed form leaves the diagonal out, as kappa = 1/2 does."""
    for window, sequence in ((1, 64), (16, 64), (63, 64), (64, 64), (100, 64)):
        pairs = sum(min(place + 1, window) for place in range(sequence))
        triangle = sequence * (sequence + 1) / 2
        assert seen_share(window, sequence) == pytest.approx(pairs / triangle, abs=1 / sequence)


def test_a_longer_sequence_pays_for_the_window_only():
    """Mistral 7B: at twice its window three quarters of causal attention, forward and backward."""

    def flops(sequence, layered, **settings):
        shape = charged(ChargeAs(preset="mistral-7b", sequence=sequence, **settings), full=False)
        return train_flops(shape, 1, layered=layered), forward_flops(shape, 1, layered=layered)

    attention = 32 * 4096 * 8192 * CAUSAL
    for layered in (False, True):
        whole = charged(ChargeAs(preset="llama-3.2-1b", sequence=8192), full=False)
        assert whole.blocks[0].window == 0
        train, forward = flops(8192, layered)
        short_train, short_forward = flops(4096, layered)
        more = 0.75 * 8192 / 4096 - 1  # of the attention of 4096 tokens
        assert forward - short_forward == pytest.approx(4 * attention / 2 * more)
        assert train - short_train == pytest.approx(12 * attention / 2 * more, rel=0.02)
