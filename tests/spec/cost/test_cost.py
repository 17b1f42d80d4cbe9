"""What a language model costs: parameters and bytes as published, FLOPs and memory by hand, and `charge_as`."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import hetero_profiles
from fedsim.cost.architecture import PRESETS, lora_params
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.energy import radio_j, training_j
from fedsim.cost.formulas import train_flops, train_memory_bytes
from fedsim.cost.shape import ModelShape, adapter_bytes, backbone_bytes

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
TOTALS = {
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "qwen-0.5b": 494_032_768,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm3-3b": 3_075_098_624,
    "llama-3.2-1b": 1_235_814_400,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen3-0.6b": 596_049_920,
    "mistral-7b": 7_241_732_096,
    "gpt2": 124_439_808,
}


def shape(preset, *, full=False, **settings):
    return charged(ChargeAs(preset=preset, **settings), full)


# parameters and bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "total"), TOTALS.items())
def test_every_preset_has_exactly_its_published_number_of_parameters(preset, total):
    assert shape(preset).params == total
    assert PRESETS[preset].source
    assert TOTALS.keys() == PRESETS.keys()


@pytest.mark.filterwarnings("ignore")
def test_stock_transformers_and_peft_count_the_same_parameters():
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        Gemma3TextConfig,
        GPT2Config,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
        Qwen3Config,
        SmolLM3Config,
    )

    built_in = {
        "gemma3": Gemma3TextConfig, "llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config,
        "qwen3": Qwen3Config, "smollm3": SmolLM3Config,
    }  # fmt: skip
    for name, arch in PRESETS.items():
        if arch.family == "gpt2":
            config = GPT2Config()
        else:
            config = built_in[arch.family](
                num_hidden_layers=arch.layers, hidden_size=arch.width, intermediate_size=arch.ffn,
                num_attention_heads=arch.heads, num_key_value_heads=arch.kv_heads,
                head_dim=arch.head_dim, vocab_size=arch.vocab, tie_word_embeddings=arch.tied,
            )  # fmt: skip
        with torch.device("meta"):  # shapes only, no memory
            model = AutoModelForCausalLM.from_config(config)
        assert sum(p.numel() for p in model.parameters()) == arch.params
        lora = LoraConfig(
            r=8, target_modules="all-linear", fan_in_fan_out=arch.family == "gpt2", task_type="CAUSAL_LM"
        )
        named = get_peft_model(model, lora).named_parameters()
        assert sum(p.numel() for key, p in named if "lora_" in key) == shape(name, r=8).adapter_params


@pytest.mark.parametrize(
    ("layers", "r", "c_attn", "all_linear"),
    [  # parameters sent, and by how many percent that is less than the whole model
        (12, 4, (147_456, 99.88), (589_824, 99.53)),
        (12, 8, (294_912, 99.76), (1_179_648, 99.05)),
        (12, 16, (589_824, 99.53), (2_359_296, 98.10)),
        (12, 32, (1_179_648, 99.05), (4_718_592, 96.21)),
        (6, 8, (147_456, 99.82), (589_824, 99.28)),  # distilgpt2 is gpt2 with half of the layers
        (6, 16, (294_912, 99.64), (1_179_648, 98.56)),
    ],
)
def test_gpt2_adapters_have_the_size_that_the_uplink_reduction_rests_on(layers, r, c_attn, all_linear):
    full = adapter_bytes(shape("gpt2", layers=layers, full=True))
    assert full == 4 * {12: 124_439_808, 6: 81_912_576}[layers]
    all_names = ("c_attn", "c_proj", "c_fc")
    expected = {("c_attn",): c_attn, ("all-linear",): all_linear, all_names: all_linear}
    for targets, (params, saved_percent) in expected.items():
        sent = shape("gpt2", layers=layers, r=r, targets=targets)
        assert sent.adapter_params == params
        assert adapter_bytes(sent) == 4 * params
        assert round(100 * (1 - adapter_bytes(sent) / full), 2) == saved_percent


def test_the_paper_s_adapter_is_1179648_bytes():
    sent = shape("gpt2", r=8, targets="c_attn")
    assert (sent.adapter_params, adapter_bytes(sent)) == (294_912, 1_179_648)


def test_the_adapter_measured_on_phones_and_boards_is_met_to_the_byte():
    # Upload of Gemma-3-270M, r = 8 on q, k, v, o over 18 layers, measured at 2.949 MB.
    by_hand = 4 * 18 * 8 * ((640 + 1024) + 2 * (640 + 256) + (1024 + 640))
    sent = shape("gemma-3-270m", r=8, targets=ATTENTION)
    assert adapter_bytes(sent) == by_hand == 2_949_120
    assert shape("gemma-3-270m", r=8, targets="attention") == sent


def test_lora_counts_inputs_and_outputs_once_for_every_unit_of_rank():
    assert lora_params([(3, 5), (7, 2)], 4) == 4 * (3 + 5) + 4 * (7 + 2)
    assert lora_params([], 4) == 0


@given(r=st.integers(1, 64), preset=st.sampled_from(sorted(PRESETS)))
def test_adapter_parameters_are_proportional_to_the_rank(r, preset):
    assert shape(preset, r=r).adapter_params == r * shape(preset, r=1).adapter_params


def test_grouped_queries_make_k_and_v_narrower_than_q():
    dims = PRESETS["qwen-0.5b"].projections
    assert dims["q_proj"] == (896, 896)
    assert dims["k_proj"] == dims["v_proj"] == (896, 128)
    assert PRESETS["gemma-3-270m"].projections["o_proj"] == (1024, 640)  # heads wider than the model


def test_gpt2_s_c_proj_means_both_as_in_peft_and_each_can_be_named():
    def params(*targets):
        return shape("gpt2", targets=targets).adapter_params

    assert params("c_proj") == params("attn.c_proj") + params("mlp.c_proj")
    assert params("attn.c_proj") == 12 * 8 * (768 + 768)
    assert params("c_attn", "c_attn") == params("c_attn")


def test_a_backbone_weighs_what_its_weights_do():
    bf16 = shape("smollm2-135m")
    assert backbone_bytes(bf16) == 2 * 134_515_008
    assert backbone_bytes(shape("smollm2-135m", weight_bytes=0.5)) == 67_257_504


# FLOPs ------------------------------------------------------------------------------------------

SMALL = ModelShape("small", 2, 8, 100, 5_000, 4_000, 300, sequence=16, batch=4)


def test_flops_of_a_small_model_by_hand():
    attention = 12 * 2 * 16 * 8 // 2
    assert train_flops(SMALL, 10) == 10 * (2 * 4_000 + 2 * 4_000 + 6 * 300 + attention)
    assert train_flops(replace(SMALL, phi=0.25), 10) == 10 * (8_000 + 2_000 + 1_800 + attention)
    assert train_flops(replace(SMALL, full=True), 10) == 10 * (6 * 4_000 + attention)
    assert train_flops(SMALL, 0) == 0.0


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_lora_saves_at_most_a_third_of_the_arithmetic_of_full_training(preset):
    saved = 1 - train_flops(shape(preset), 1000) / train_flops(shape(preset, full=True), 1000)
    assert 0.25 < saved < 1 / 3


@pytest.mark.parametrize("preset", ["gemma-3-270m", "qwen-0.5b", "gemma-3-1b"])
def test_a_token_costs_about_four_flops_a_parameter_as_the_device_speeds_assume(preset):
    assert train_flops(shape(preset), 1) == pytest.approx(4 * TOTALS[preset], rel=0.06)


@given(tokens=st.integers(1, 10**6), more=st.integers(1, 10**6))
def test_flops_are_proportional_to_tokens_whatever_the_batch(tokens, more):
    once = train_flops(SMALL, 1)
    assert train_flops(SMALL, tokens) + train_flops(SMALL, more) == pytest.approx((tokens + more) * once)
    assert train_flops(replace(SMALL, batch=64), tokens) == train_flops(SMALL, tokens)


# memory -----------------------------------------------------------------------------------------


def test_memory_of_a_small_model_by_hand():
    tokens = 16 * 4
    logits, activations = tokens * 100 * 6, 2 * tokens * 8
    assert train_memory_bytes(SMALL) == 4 * 5_000 + 16 * 300 + 24 * activations + logits + 0.25e9
    full = replace(SMALL, full=True)
    assert train_memory_bytes(full) == 16 * 5_000 + 34 * activations + logits + 0.25e9


def test_the_270m_model_fits_phones_of_3_gb_and_not_those_of_2():
    needed = train_memory_bytes(shape("gemma-3-270m"))
    assert 0.45 * 2e9 < needed < 0.45 * 3e9


@pytest.mark.parametrize(
    ("preset", "eligible"), [("gemma-3-270m", 0.930), ("qwen-0.5b", 0.553), ("gemma-3-1b", 0.305)]
)
def test_the_share_of_devices_that_hold_a_model_falls_with_its_size(preset, eligible):
    lines = hetero_profiles.locate("devices.csv").read_text(encoding="utf-8").splitlines()
    able = total = 0.0
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        handheld = row["class"].startswith("phone") or row["class"] == "tablet"
        usable = float(row["ram_gb"]) * 1e9 * (0.45 if handheld else 0.8)
        total += float(row["share_mixed"])
        able += float(row["share_mixed"]) * (usable >= train_memory_bytes(shape(preset)))
    assert able / total == pytest.approx(eligible, abs=0.001)


@given(
    preset=st.sampled_from(sorted(PRESETS)),
    r=st.integers(1, 64),
    sequence=st.integers(1, 2048),
    batch=st.integers(1, 16),
)
def test_a_higher_rank_longer_sequence_or_larger_batch_never_needs_less_memory(preset, r, sequence, batch):
    def needed(**changed):
        return train_memory_bytes(shape(preset, **({"r": r, "sequence": sequence, "batch": batch} | changed)))

    assert needed() < needed(r=r + 1)
    assert needed() < needed(sequence=sequence + 1)
    assert needed() < needed(batch=batch + 1)
    assert needed() < needed(weight_bytes=4.0)


# energy -----------------------------------------------------------------------------------------


def test_energy_of_training_is_the_power_above_idling_times_seconds():
    assert training_j(train_w=4.2, idle_w=0.2, seconds=10.0) == pytest.approx(40.0)
    assert training_j(train_w=4.2, idle_w=0.0, seconds=10.0) == pytest.approx(42.0)  # gross


def test_energy_of_the_radio_is_a_power_while_on_and_a_price_a_byte():
    # LTE upload: 2.89 W and 79.5 mW per Mbit/s, which is 0.636 uJ a byte; 1 MB at 8 Mbit/s takes a second.
    j_per_byte = 79.5e-3 * 8 / 1e6
    assert radio_j(2.89, j_per_byte, 1.0, 10**6) == pytest.approx(2.89 + 79.5e-3 * 8)
    assert radio_j(2.89, j_per_byte, 0.0, 0) == 0.0


# charge_as --------------------------------------------------------------------------------------


def test_a_preset_is_charged_in_bf16_one_sequence_at_a_time():
    found = shape("gemma-3-270m")
    assert found == ModelShape(
        "gemma-3-270m", 18, 640, 262_144, 268_098_176, 268_042_240, 1_898_496,
        sequence=256, batch=1, phi=1.0, full=False, weight_bytes=2.0,
    )  # fmt: skip


def test_full_training_sends_every_parameter_in_float32():
    full = shape("gpt2", full=True)
    assert full.full
    assert full.adapter_params == full.params
    assert adapter_bytes(full) == backbone_bytes(full) == 497_759_232


def test_dimensions_given_beside_a_preset_replace_the_preset_s():
    half = shape("gemma-3-270m", layers=9, sequence=64)
    whole = shape("gemma-3-270m")
    assert (half.layers, half.sequence) == (9, 64)
    assert half.adapter_params * 2 == whole.adapter_params
    assert whole.params - half.params == 9 * (5_570_560 + 4 * 640 + 2 * 256)


def test_a_model_of_one_s_own_needs_layers_width_and_vocab_only():
    found = charged(ChargeAs(layers=2, width=16, vocab=100, r=4), full=False)
    block = 4 * 16 * 16 + 3 * 16 * 64  # q, k, v, o and a gated MLP of four times the width
    assert found.matmul_params == 2 * block + 1600
    assert found.params == found.matmul_params + 2 * 2 * 16 + 16  # two norms a layer and one at the end
    assert found.adapter_params == 2 * 4 * (4 * 32 + 3 * 80)
    assert found.name == "custom"


def test_a_declared_number_of_parameters_is_charged_as_it_stands():
    declared = {"layers": 2, "width": 16, "vocab": 100, "params": 50_000}
    assert charged(ChargeAs(**declared), full=False).params == 50_000
    assert charged(ChargeAs(**declared), full=False).matmul_params == 50_000
    # An untied embedding is looked up, not multiplied.
    assert charged(ChargeAs(**declared, tied=False), full=False).matmul_params == 50_000 - 1600
    assert charged(ChargeAs(**declared, matmul_params=7), full=False).matmul_params == 7
    assert charged(ChargeAs(**declared), full=True).adapter_params == 50_000


@pytest.mark.parametrize(
    ("given", "field", "problem"),
    [
        ({"preset": "gemma-3-270"}, "preset", "unknown preset\n  fix: did you mean 'gemma-3-270m'?"),
        ({"preset": "zzz"}, "preset", "choose one of: gemma-3-1b, gemma-3-270m, gpt2, llama-3.2-1b, mistral-7b, qwen-0.5b, "),
        ({}, None, "without a preset, layers, width, vocab must be given"),
        ({"layers": 2, "vocab": 9}, None, "without a preset, width must be given"),
        ({"preset": "gpt2", "targets": "c_atn"}, "targets", "unknown projection 'c_atn'\n  fix: did you mean 'c_attn'?"),
        ({"preset": "gpt2", "targets": []}, "targets", "at least one projection is needed"),
        ({"preset": "gpt2", "targets": ["c_attn", "q_proj"]}, None, "targets: a gpt2 model has no 'q_proj'\n  fix: choose from: all-linear, attention, c_attn,"),
        ({"preset": "qwen-0.5b", "targets": "c_fc"}, None, "targets: a qwen2 model has no 'c_fc'"),
        ({"preset": "gpt2", "r": 0}, "r", "greater than or equal to 1"),
        ({"preset": "gpt2", "tokens_per_visit": 0}, "tokens_per_visit", "greater than or equal to 1"),
        ({"preset": "gpt2", "weight_bytes": float("nan")}, "weight_bytes", "less than or equal to 8"),
        ({"preset": "gpt2", "weight_bytes": 0}, "weight_bytes", "greater than 0"),
        ({"preset": "gpt2", "phi": 1.5}, "phi", "less than or equal to 1"),
        ({"preset": "gpt2", "rank": 8}, "rank", "Extra inputs are not permitted"),
        ({"layers": 2, "width": 10, "vocab": 5, "heads": 3}, None, "heads must divide the width (got 3 and 10)"),
        ({"preset": "gpt2", "kv_heads": 5}, None, "heads must be a multiple of kv_heads (got 12 and 5)"),
    ],
)  # fmt: skip
def test_what_cannot_be_charged_is_refused_with_the_field_and_a_way_out(given, field, problem):
    with pytest.raises(ValidationError) as refused:
        ChargeAs(**given)
    [found] = refused.value.errors()
    assert problem in found["msg"]
    assert found["loc"] == ((field,) if field else ())


def test_charge_as_survives_being_written_and_read():
    charge = ChargeAs(preset="gemma-3-270m", targets=["q_proj", "v_proj"], tokens_per_visit=20_000)
    assert ChargeAs.model_validate(charge.model_dump(mode="json")) == charge
