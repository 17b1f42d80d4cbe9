"""The written-out Llama against stock Hugging Face and PEFT with autograd.

Hugging Face's RMSNorm computes in float32 whatever the model's type; for the comparison in float64
it is replaced by the same formula without the cast.
"""

from __future__ import annotations

import pytest
import torch
from oracles.fused_oracle import VOCAB, Case, agree_in_company, gap, masks, on, perturbed
from worlds.decoders import small_llama, widen_norms

from fedsim.builtin import model_folder
from fedsim.config.learning import LoraConfig
from fedsim.training import hub, lora
from fedsim.training.fused import attention, decoder, fused, kernels, norms, supports

EXACT = 1e-12
TARGETS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ("q_proj", "v_proj"), ("k_proj", "up_proj"), "all-linear",
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def float64_norms(monkeypatch):
    widen_norms(monkeypatch)


def case(targets="all-linear", dtype=torch.float64, model=None, **sizes):
    model = perturbed(small_llama() if model is None else model, dtype)
    return Case(model, LoraConfig(r=3, alpha=6.0, targets=targets), **sizes)


def agrees(c, tolerance=EXACT, **changes):
    losses, grads = c.decoder().gradients(c.stack(**changes), c.tokens, c.weights)
    stock_losses, stock_grads, stock_tokens = c.stock(changes.get("noise"))

    assert gap(losses, stock_losses) < tolerance
    assert gap(grads, stock_grads) < tolerance
    assert gap(c.decoder().losses(c.stack(**changes), c.tokens), stock_tokens) < tolerance


@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_gradients_and_losses_are_those_of_stock_peft(targets, float64_norms):
    agrees(case(targets))


MODELS = {
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "one key-value head": {"num_key_value_heads": 1},
    "no groups": {"num_key_value_heads": 4},
    "wide heads": {"head_dim": 8},
    "llama3 rope": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
        }
    },
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}},
    "yarn rope": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16,
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_variation_of_the_family_has_the_gradients_and_losses_of_stock_peft(name, float64_norms):
    agrees(case(model=small_llama(**MODELS[name])))


def test_factors_merged_into_the_weights_give_the_gradients_of_stock_peft(float64_norms):
    c = case(length=40)
    assert all(m.merges(c.rows * c.length) for block in c.decoder()._blocks for m in block.matrices)

    agrees(c)


def test_float32_agrees_to_float32():
    agrees(case(dtype=torch.float32), 5e-5)


def test_the_shipped_model_agrees_in_float32():
    config = LoraConfig(r=8, alpha=16.0)
    c = Case(hub.weights(str(model_folder())), config, k=2, length=32)
    c.scales.fill_(2.0)

    agrees(c, 5e-5)


def test_dropout_of_each_adapters_own_input(float64_norms):
    agrees(case(), noise=masks())


@pytest.mark.parametrize("trains", ["A", "B"])
def test_a_frozen_factor_gets_no_gradient_and_the_other_keeps_its_own(trains, float64_norms):
    c = case()
    trained = torch.zeros(c.layout.size, dtype=torch.bool)
    for name, (place, _) in c.layout.slices.items():
        trained[place] = name.endswith(f"lora_{trains}")
    grads = c.decoder().gradients(c.stack(trains=trains), c.tokens, c.weights)[1]

    assert gap(grads[:, trained], c.stock()[1][:, trained]) < EXACT
    assert not grads[:, ~trained].any()


def test_upper_layers_alone_agree_also_from_kept_activations(float64_norms):
    c = case(("layers.1.self_attn.v_proj", "layers.2.mlp.down_proj"))
    agrees(c)
    backbone = c.decoder()
    hidden = backbone.frozen_prefix(c.tokens.flatten(0, 1)).view(c.k, c.rows, c.length, -1)
    kept = backbone.gradients(c.stack(), c.tokens, c.weights, hidden)

    assert backbone.prefix_layers == 1
    assert torch.equal(kept[1], backbone.gradients(c.stack(), c.tokens, c.weights)[1])


def test_company_changes_a_client_of_a_narrow_model_by_rounding_at_most_on_one_thread():
    agree_in_company(case(dtype=torch.float32, k=7))


def test_splitting_a_call_into_passes_changes_nothing(monkeypatch):
    c = case(rows=5)
    expected = c.decoder().gradients(c.stack(), c.tokens, c.weights)[1]
    monkeypatch.setattr(decoder, "TOKENS", 14)

    assert gap(c.decoder().gradients(c.stack(), c.tokens, c.weights)[1], expected) < EXACT


def test_what_other_devices_use_agrees(monkeypatch):
    for module in (attention, kernels, norms):
        monkeypatch.setattr(module, "plain", lambda _: False)

    agrees(case(dtype=torch.float32), 5e-5)


def test_a_bfloat16_model_keeps_float32_factors():
    c = case(dtype=torch.bfloat16)
    losses, grads = c.decoder().gradients(c.stack(), c.tokens, c.weights)
    expected, expected_grads, _ = case(dtype=torch.float32).stock()

    assert losses.dtype == grads.dtype == torch.float32
    assert gap(losses, expected) < 0.02
    assert gap(grads, expected_grads) < 0.1


REFUSED = {
    "other activation": {"hidden_act": "gelu"},
    "dynamic rope": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    "another family": {"kind": "Gemma", "head_dim": 6},
    "windows that Llama has not": {"sliding_window": 4},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_implement_is_refused(name):
    model = small_llama(**REFUSED[name])
    layout = lora.layout(model, LoraConfig(r=2, targets="q_proj"))

    assert fused(model, layout) is None
    assert not supports(model, layout)


def test_a_target_it_does_not_implement_is_refused():
    model = small_llama()

    assert fused(model, on("model.layers.0.self_attn.q_proj", 24, 24)) is not None
    assert fused(model, on("lm_head", 24, VOCAB)) is None
    assert fused(model, on("model.embed_tokens", VOCAB, 24)) is None
    assert fused(model, on("model.layers.7.self_attn.q_proj", 24, 24)) is None


def test_a_model_without_weights_is_enough_to_ask():
    skeleton = hub.skeleton(str(model_folder()))

    assert supports(skeleton, lora.layout(skeleton, LoraConfig(r=2)))
