"""Experts and layers without adapters: what a token is multiplied with, by hand, and what PEFT's own list leaves out."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft.tuners import tuners_utils
from worlds import causal_models

from fedsim.config.learning import LoraConfig
from fedsim.errors import ExperimentError
from fedsim.training import hub, lora, text_shape
from fedsim.training.loading import unadaptable
from fedsim.training.loading.weights import multiplying

HEAD = 320 * 32
ATTENTION = 2 * (32 * 32 + 16 * 32 + 16 * 32 + 32 * 32)
"""q, k, v, o of two layers with 4 heads of 8 and 2 of keys and values."""


def shape_of(model, **fields):
    trained = lora.layout(model, LoraConfig(r=2, alpha=4.0))
    return text_shape.shape(model, "it", trained, 16, 1)


@pytest.mark.parametrize(
    ("kind", "changes", "active"),
    [
        # top 2 of 4: gate, up and down of two experts, and a router of 4 rows
        ("mixtral", {}, 2 * (2 * 3 * 32 * 48 + 4 * 32)),
        ("mixtral", {"num_experts_per_tok": 1}, 2 * (1 * 3 * 32 * 48 + 4 * 32)),
        ("mixtral", {"num_experts_per_tok": 4}, 2 * (4 * 3 * 32 * 48 + 4 * 32)),
        ("olmoe", {"num_key_value_heads": 2}, 2 * (2 * 3 * 32 * 48 + 4 * 32)),
        ("qwen3_moe", {}, 2 * (2 * 3 * 32 * 16 + 4 * 32)),
        # besides a shared expert of 16 for every token, and its gate
        ("qwen2_moe", {}, 2 * (2 * 3 * 32 * 16 + 4 * 32 + 3 * 32 * 16 + 32)),
        ("granitemoe", {}, 2 * (2 * 3 * 32 * 48 + 4 * 32)),
        ("llama", {}, 2 * 3 * 32 * 48),
        ("gpt_bigcode", {}, None),
    ],
)
def test_a_token_is_charged_for_the_experts_that_see_it(kind, changes, active, tmp_path, tokenizer):
    model = hub.skeleton(causal_models.folder(tmp_path, kind, tokenizer, **changes))
    shape = shape_of(model)
    if active is None:  # no experts: all Linear layers and the head
        active = sum(m.inputs * m.outputs for m in lora.matrices(model)) - ATTENTION

    assert shape.matmul_params == HEAD + ATTENTION + active


def test_the_example_of_the_trial_is_charged_as_counted_by_hand(tmp_path, tokenizer):
    """22,528 without experts; right: 22,528 + 2 layers x 2 experts x 3 x 32 x 48 + 2 x 32 x 4."""
    model = hub.skeleton(causal_models.folder(tmp_path, "mixtral", tokenizer, vocab_size=512))

    assert shape_of(model).matmul_params == 22_528 + 2 * 2 * 3 * 32 * 48 + 2 * 32 * 4 == 41_216


def test_of_qwen3_30b_a3b_3_3_of_30_5_billion_weights_are_active():
    """By the published sizes of Qwen3-30B-A3B: 30.5 B in total, 3.3 B activated, 29.9 and about 3 without embeddings."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    config = Qwen3MoeConfig(
        vocab_size=151_936, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=48,
        num_attention_heads=32, num_key_value_heads=4, head_dim=128, num_experts=128, num_experts_per_tok=8,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_of(model)

    assert shape.params == pytest.approx(30.5e9, rel=0.005)
    assert shape.matmul_params + 151_936 * 2048 == pytest.approx(3.35e9, rel=0.02)  # and a look-up table


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss", "dbrx", "mamba", "llama"])
def test_it_is_said_what_stays_frozen(kind, tmp_path, tokenizer):
    name = causal_models.folder(tmp_path, kind, tokenizer)
    if name is None:
        pytest.skip("this version of transformers cannot make it so small")
    model = hub.skeleton(name)
    said = text_shape.notices(model, lora.layout(model, LoraConfig(r=2, alpha=4.0)))
    found = multiplying(model)

    assert bool(said) == (kind != "llama") == bool(found.outside)
    if kind in ("mixtral", "gpt_oss", "dbrx"):
        assert f"experts stay frozen: {found.outside:,}" in said[0]
    assert text_shape.notices(model, lora.layout(model, LoraConfig(full=True))) == []


def refused_by_peft(model, leaf):
    try:
        tuners_utils._check_lora_target_modules_mamba(PeftLora(), model, leaf)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    "kind", ["falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h", "bamba", "jamba", "llama"]
)
def test_layers_that_peft_refuses_are_left_out_of_all_linear_and_refused_by_name(kind, tmp_path, tokenizer):
    name = causal_models.folder(tmp_path, kind, tokenizer)
    if name is None:
        pytest.skip("this version of transformers cannot make it so small")
    model = hub.skeleton(name)
    leaves = {m.name.rpartition(".")[2] for m in lora.matrices(model)}
    wrong = {leaf for leaf in leaves if refused_by_peft(model, leaf)}
    wrong |= leaves & {unadaptable.READ_PAST.get(kind)}
    adapted = {m.name.rpartition(".")[2] for m in lora.chosen(model, "all-linear")}

    assert adapted == leaves - wrong
    assert bool(wrong) == (kind in unadaptable.STATE_SPACE or kind in unadaptable.READ_PAST)
    for leaf in wrong:
        with pytest.raises(ExperimentError, match=f"no adapter can be put on it in a {kind} model"):
            lora.chosen(model, leaf)


def test_our_list_is_peft_s_list():
    """Of every type of model and every leaf that PEFT asks about."""
    for kind in causal_models.types():
        model = type("Model", (), {"config": type("Config", (), {"model_type": kind})})
        for leaf in (*unadaptable.WITHOUT_ADAPTER, "in_proj", "q_proj"):
            ours = kind in unadaptable.STATE_SPACE and leaf in unadaptable.WITHOUT_ADAPTER
            assert refused_by_peft(model, leaf) == ours


@pytest.mark.parametrize("kind", unadaptable.READ_PAST)
def test_a_layer_that_nobody_calls_carries_no_adapter(kind, tmp_path, tokenizer):
    """Its weight is read as it is: an adapter on it would be sent and charged, and never act."""
    name = causal_models.folder(tmp_path, kind, tokenizer)
    model, called = hub.weights(name), set()
    for path, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, path=path: called.add(path))
    with torch.no_grad():
        model(torch.zeros((1, 3), dtype=torch.long))

    linear = {m.name for m in lora.matrices(model)}
    silent = {path for path in linear if path.endswith("." + unadaptable.READ_PAST[kind])}
    assert silent
    assert not silent & called
    chosen = {m.name for m in lora.chosen(hub.skeleton(name), "all-linear")}
    assert not silent & chosen


@pytest.mark.parametrize(("kind", "leaf"), [("phimoe", "router"), ("deepseek_v4", "o_a_proj")])
def test_a_layer_that_maps_no_vectors_carries_no_adapter(kind, leaf, tmp_path, tokenizer):
    """A router that returns a tuple, and a projection of groups, are Linear by their class."""
    model = hub.skeleton(causal_models.folder(tmp_path, kind, tokenizer))
    assert leaf in {m.name.rpartition(".")[2] for m in lora.matrices(model)}
    assert leaf not in {m.name.rpartition(".")[2] for m in lora.chosen(model, "all-linear")}
    with pytest.raises(ExperimentError, match="no adapter can be put on it"):
        lora.chosen(model, (leaf,))
