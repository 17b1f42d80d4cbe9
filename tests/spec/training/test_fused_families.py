"""The families written out beside GPT-2 and Llama, against stock Hugging Face and PEFT with autograd.

Hugging Face's RMSNorm computes in float32 whatever the model's type; for the comparison in float64
it is replaced by the same formula without the cast.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracles.fused_oracle import VOCAB, Case, agree_in_company, gap, masks, on, perturbed
from worlds.decoders import FULL, GEMMA, SLIDING, WRITTEN_OUT, YARN, small_llama, widen_norms

from fedsim.config.learning import LoraConfig
from fedsim.training import lora, paths
from fedsim.training.fused import attention, fused, kernels, norms, refusal

EXACT = 1e-12

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def float64_norms(monkeypatch):
    widen_norms(monkeypatch)


def case(name, targets="all-linear", dtype=torch.float64, **sizes):
    model = perturbed(small_llama(**WRITTEN_OUT[name]), dtype)
    return Case(model, LoraConfig(r=3, alpha=6.0, targets=targets), **sizes)


def agrees(c, tolerance=EXACT, **changes):
    losses, grads = c.decoder().gradients(c.stack(**changes), c.tokens, c.weights)
    stock_losses, stock_grads, stock_tokens = c.stock(changes.get("noise"))

    assert gap(losses, stock_losses) < tolerance
    assert gap(grads, stock_grads) < tolerance
    assert gap(c.decoder().losses(c.stack(**changes), c.tokens), stock_tokens) < tolerance


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_gradients_and_losses_are_those_of_stock_peft(name, float64_norms):
    agrees(case(name))


@pytest.mark.parametrize(
    "targets",
    ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", ("k_proj", "gate_proj")],
    ids=str,
)
def test_every_target_alone_agrees(targets, float64_norms):
    agrees(case("gemma3", targets))


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_factors_merged_into_the_weights_of_long_sequences_agree(name, float64_norms):
    c = case(name, length=40)
    assert any(m.merges(c.rows * c.length) for block in c.decoder()._blocks for m in block.matrices)

    agrees(c)


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_the_librarys_attention_agrees_within_windows_too(name, float64_norms, monkeypatch):
    monkeypatch.setattr(attention, "EXPLICIT", 0)

    agrees(case(name))


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_float32_and_what_other_devices_use_agree_to_float32(name, monkeypatch):
    agrees(case(name, dtype=torch.float32), 5e-5)
    for module in (attention, kernels, norms):
        monkeypatch.setattr(module, "plain", lambda _: False)
    agrees(case(name, dtype=torch.float32), 5e-5)


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_a_bfloat16_model_keeps_float32_factors(name):
    c = case(name, dtype=torch.bfloat16)
    losses, grads = c.decoder().gradients(c.stack(), c.tokens, c.weights)
    expected, expected_grads, _ = case(name, dtype=torch.float32).stock()

    assert losses.dtype == grads.dtype == torch.float32
    assert gap(losses, expected) < 0.02
    assert gap(grads, expected_grads) < 0.1


def test_dropout_of_each_adapters_own_input(float64_norms):
    agrees(case("gemma3"), noise=masks())


@pytest.mark.parametrize("trains", ["A", "B"])
def test_a_frozen_factor_gets_no_gradient_and_the_other_keeps_its_own(trains, float64_norms):
    c = case("gemma3")
    trained = torch.zeros(c.layout.size, dtype=torch.bool)
    for name, (place, _) in c.layout.slices.items():
        trained[place] = name.endswith(f"lora_{trains}")
    grads = c.decoder().gradients(c.stack(trains=trains), c.tokens, c.weights)[1]

    assert gap(grads[:, trained], c.stock()[1][:, trained]) < EXACT
    assert not grads[:, ~trained].any()


@pytest.mark.parametrize("name", ["smollm3", "gemma3"])
def test_upper_layers_alone_agree_also_from_kept_activations(name, float64_norms):
    c = case(name, ("layers.1.self_attn.v_proj", "layers.2.mlp.down_proj"))
    agrees(c)
    backbone = c.decoder()
    hidden = backbone.frozen_prefix(c.tokens.flatten(0, 1)).view(c.k, c.rows, c.length, -1)
    kept = backbone.gradients(c.stack(), c.tokens, c.weights, hidden)

    assert backbone.prefix_layers == 1
    assert torch.equal(kept[1], backbone.gradients(c.stack(), c.tokens, c.weights)[1])


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_company_changes_a_client_of_a_narrow_model_by_rounding_at_most_on_one_thread(name):
    agree_in_company(case(name, dtype=torch.float32, k=5))


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_what_pads_a_row_behind_its_text_changes_no_loss_before(name):
    c = case(name)
    before = c.decoder().losses(c.stack(), c.tokens)
    c.tokens[..., 5:] = 0

    assert gap(c.decoder().losses(c.stack(), c.tokens)[..., :4], before[..., :4]) < EXACT


def test_a_token_sees_no_further_back_than_the_windows_of_all_layers_reach():
    """Three layers with windows of three tokens each: six tokens back, and no seventh."""
    c = case("mistral", length=12)
    before = c.decoder().losses(c.stack(), c.tokens)
    c.tokens[..., 2] = (c.tokens[..., 2] + 1) % VOCAB
    moved = (c.decoder().losses(c.stack(), c.tokens) != before).any(0).any(0)

    assert moved.tolist() == [False] + [True] * 8 + [False] * 3  # predicting token 2 itself is place 1


REFUSED = {
    "a capped head": ({**GEMMA, "final_logit_softcapping": 30.0}, "logits are capped"),
    "tokens that look ahead": ({**GEMMA, "use_bidirectional_attention": True}, "see those after them"),
    "another gate": ({**GEMMA, "hidden_activation": "silu"}, "gated by silu"),
    "angles that hang on the length": (
        {"kind": "Qwen3", "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "of the kind dynamic",
    ),
    "heads turned in part": (
        {"kind": "Qwen3", "head_dim": 8, "rope_parameters": {**YARN, "partial_rotary_factor": 0.5}},
        "parts of its heads",
    ),
    "Gemma 2": ({"kind": "Gemma2", "head_dim": 6}, "its family is not written out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_implement_is_refused_with_a_reason(name):
    settings, reason = REFUSED[name]
    model = small_llama(**settings)
    layout = lora.layout(model, LoraConfig(r=2, targets="q_proj"))

    assert fused(model, layout) is None
    assert reason in refusal(model, layout)


def test_capped_logits_are_left_to_swapped_layers_which_keep_within_the_cap():
    """Gemma 2: no logit beyond the cap, so no loss further than twice the cap from that of chance."""
    cap = 0.05
    model = small_llama("Gemma2", head_dim=6, final_logit_softcapping=cap, attn_logit_softcapping=0.5)
    c = Case(perturbed(model), LoraConfig(r=3, alpha=6.0))
    backbone = paths.choose(model, c.layout)
    losses = backbone.losses(c.stack(), c.tokens)

    assert paths.resolved(model, c.layout, "auto") == "swapped"
    assert float((losses - math.log(VOCAB)).abs().max()) < 2 * cap
    assert gap(losses, c.stock()[2]) < 1e-6
    assert gap(backbone.gradients(c.stack(), c.tokens, c.weights)[1], c.stock()[1]) < 1e-5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer_types": [FULL, SLIDING, "chunked_attention"]}, "of other kinds"),
        ({"layer_types": [FULL]}, "not one kind a layer"),
        ({"layer_types": [SLIDING] * 3, "sliding_window": None}, "its window is None"),
    ],
)
def test_layers_that_are_not_understood_are_refused(change, reason):
    model = small_llama("Qwen3", head_dim=8)
    layout = lora.layout(model, LoraConfig(r=2, targets="q_proj"))
    for name, value in change.items():
        model.config.__dict__[name] = value

    assert reason in refusal(model, layout)


def test_a_changed_module_and_a_strange_target_are_refused():
    model = small_llama("Qwen3", head_dim=8)
    layout = lora.layout(model, LoraConfig(r=2, targets="q_proj"))

    assert "not LoRA on its linear layers" in refusal(model, on("lm_head", 24, VOCAB))
    model.model.layers[1].mlp.up_proj = torch.nn.Sequential()
    assert "model.layers.1.mlp.up_proj is a Sequential" in refusal(model, layout)
