"""The written-out GPT-2 against stock Hugging Face and PEFT with autograd; its kernels against autograd."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.fused_oracle import VOCAB, Case, agree_in_company, gap, masks, on, perturbed
from worlds.decoders import small_gpt2

from fedsim.adapters.adapter import Layout
from fedsim.config.learning import LoraConfig
from fedsim.errors import ExperimentError
from fedsim.training import lora
from fedsim.training.backbone import Stack
from fedsim.training.direct.architecture import Reach
from fedsim.training.fused import attention, block, decoder, fused, kernels, norms, supports
from fedsim.training.fused.program import Pass, Shape, Workspace

EXACT = 1e-12
TARGETS = ("c_attn", "attn.c_proj", "mlp.c_proj", "c_fc", ("c_attn", "c_proj"), "all-linear")


pytestmark = pytest.mark.usefixtures("one_thread")


def case(targets="all-linear", r=3, dtype=torch.float64, model=None, **sizes):
    model = perturbed(small_gpt2() if model is None else model, dtype)
    return Case(model, LoraConfig(r=r, alpha=2.0 * r, targets=targets), **sizes)


def agrees(c, tolerance=EXACT, **changes):
    losses, grads = c.decoder().gradients(c.stack(**changes), c.tokens, c.weights)
    stock_losses, stock_grads, _ = c.stock(changes.get("noise"))

    assert gap(losses, stock_losses) < tolerance
    assert gap(grads, stock_grads) < tolerance


@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_gradients_are_those_of_stock_peft(targets):
    agrees(case(targets))


@pytest.mark.parametrize("length", [1, 2, 40])
def test_short_sequences_and_long_ones_whose_factors_are_merged_agree(length):
    c = case(length=length)
    assert c.decoder()._blocks[0].mlp_in.merges(c.rows * length) == (length == 40)

    agrees(c)


def test_float32_agrees_to_float32():
    agrees(case(dtype=torch.float32), 2e-5)


def test_an_untied_head_and_unscaled_attention_agree():
    agrees(case(model=small_gpt2(tie_word_embeddings=False, scale_attn_weights=False, n_inner=40)))


def test_losses_are_those_of_stock_peft():
    c = case()

    assert gap(c.decoder().losses(c.stack(), c.tokens), c.stock()[2]) < EXACT


@pytest.mark.parametrize("length", [7, 40])
@pytest.mark.parametrize("trains", ["A", "B"])
def test_a_frozen_factor_gets_no_gradient_and_the_other_keeps_its_own(trains, length):
    c = case(length=length)
    trained = torch.zeros(c.layout.size, dtype=torch.bool)
    for name, (place, _) in c.layout.slices.items():
        trained[place] = name.endswith(f"lora_{trains}")
    grads = c.decoder().gradients(c.stack(trains=trains), c.tokens, c.weights)[1]
    expected = c.stock()[1]

    assert gap(grads[:, trained], expected[:, trained]) < EXACT
    assert not grads[:, ~trained].any()


@pytest.mark.parametrize("targets", ["all-linear", "mlp.c_proj"])
def test_dropout_of_the_adapters_input_is_applied_in_both_directions(targets):
    agrees(case(targets, length=40), noise=masks())


def test_a_row_of_weight_zero_changes_nothing():
    c = case(rows=3)
    c.weights[:, 2] = 0.0
    first = c.decoder().gradients(c.stack(), c.tokens, c.weights)
    c.tokens[:, 2] = 0
    second = c.decoder().gradients(c.stack(), c.tokens, c.weights)

    assert torch.equal(first[0], second[0])
    assert gap(first[1], second[1]) < EXACT


def test_a_smaller_rank_padded_with_zeros_is_that_rank():
    small, large = case(r=2, k=1), case(r=5, k=1)
    large.factors.zero_()
    large.scales, large.tokens, large.weights = small.scales, small.tokens, small.weights
    grads = small.decoder().gradients(small.stack(), small.tokens, small.weights)[1][0]
    expected = torch.zeros(large.layout.size, dtype=torch.float64)
    for name, (place, shape) in large.layout.slices.items():
        inner, cut = small.layout.slices[name]
        box = tuple(slice(0, n) for n in cut)
        large.factors[0, place].view(shape)[box] = small.factors[0, inner].view(cut)
        expected[place].view(shape)[box] = grads[inner].view(cut)

    assert gap(large.decoder().gradients(large.stack(), large.tokens, large.weights)[1][0], expected) < EXACT


@pytest.mark.parametrize(
    "targets", ["h.2.mlp.c_proj", ("h.1.attn.c_proj", "h.2.c_attn"), "h.2.mlp.c_fc"], ids=str
)
def test_upper_layers_alone_agree_also_from_kept_activations(targets):
    names = (targets,) if isinstance(targets, str) else targets
    c = case(tuple(f"transformer.{name}".replace(".c_attn", ".attn.c_attn") for name in names))
    backbone = c.decoder()
    agrees(c)
    hidden = backbone.frozen_prefix(c.tokens.flatten(0, 1)).view(c.k, c.rows, c.length, -1)
    plain = backbone.gradients(c.stack(), c.tokens, c.weights)
    kept = backbone.gradients(c.stack(), c.tokens, c.weights, hidden)

    assert backbone.prefix_layers == min(int(name[2]) for name in names)
    assert torch.equal(plain[0], kept[0])
    assert torch.equal(plain[1], kept[1])
    assert torch.equal(backbone.losses(c.stack(), c.tokens), backbone.losses(c.stack(), c.tokens, hidden))


def test_splitting_a_call_into_passes_changes_nothing(monkeypatch):
    whole = case(rows=5)
    expected = whole.decoder().gradients(whole.stack(), whole.tokens, whole.weights)
    for tokens in (1, 14, 35):
        monkeypatch.setattr(decoder, "TOKENS", tokens)
        losses, grads = whole.decoder().gradients(whole.stack(), whole.tokens, whole.weights)

        assert gap(losses, expected[0]) < EXACT
        assert gap(grads, expected[1]) < EXACT


@pytest.mark.parametrize("length", [5, 40])
def test_company_changes_a_client_of_a_narrow_model_by_rounding_at_most_on_one_thread(length):
    c = case(dtype=torch.float32, k=32, length=length)
    for clients in (2, 7, 32):
        agree_in_company(c, clients, every=3)


def test_one_backbone_serves_changing_shapes_within_bounded_memory():
    c = case(k=4, rows=3)
    backbone = c.decoder()
    expected = backbone.gradients(c.stack(), c.tokens, c.weights)
    backbone.losses(c.stack(), c.tokens)
    held = backbone._ws.nbytes
    for k in (1, 3, 2, 4):
        for rows in (1, 2, 3):
            backbone.gradients(Stack(c.factors[:k], c.scales[:k]), c.tokens[:k, :rows], c.weights[:k, :rows])
            backbone.losses(c.stack(), c.tokens[:, :rows])

    assert torch.equal(backbone.gradients(c.stack(), c.tokens, c.weights)[1], expected[1])
    assert backbone._ws.nbytes == held
    assert len(backbone._programs) <= decoder.PROGRAMS


def test_a_bfloat16_model_keeps_float32_factors():
    c = case(dtype=torch.bfloat16)
    exact = case(dtype=torch.float32)
    losses, grads = c.decoder().gradients(c.stack(), c.tokens, c.weights)
    expected, expected_grads, _ = exact.stock()

    assert losses.dtype == grads.dtype == torch.float32
    assert gap(losses, expected) < 0.02
    assert gap(grads, expected_grads) < 0.1


def test_bfloat16_with_dropout_and_librarys_attention_runs(monkeypatch):
    monkeypatch.setattr(attention, "EXPLICIT", 0)
    c = case(dtype=torch.bfloat16)
    expected = case(dtype=torch.float32).stock(masks(dtype=torch.float32))[1]

    assert (
        gap(
            c.decoder().gradients(c.stack(noise=masks(dtype=torch.float32)), c.tokens, c.weights)[1], expected
        )
        < 0.1
    )


def test_what_other_devices_use_agrees(monkeypatch):
    monkeypatch.setattr(attention, "plain", lambda _: False)
    monkeypatch.setattr(kernels, "plain", lambda _: False)

    agrees(case())


REFUSED = {
    "erf gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "scale by layer": {"scale_attn_by_inverse_layer_idx": True},
    "upcast": {"reorder_and_upcast_attn": True},
    "cross attention": {"add_cross_attention": True},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_it_does_not_implement_is_refused(name):
    model = small_gpt2(**REFUSED[name])
    layout = lora.layout(small_gpt2(), LoraConfig(r=2, targets="c_attn"))

    assert fused(model, layout) is None
    assert not supports(model, layout)


def test_a_target_it_does_not_implement_is_refused():
    model = small_gpt2()
    good = on("transformer.h.0.attn.c_attn", 24, 72)

    assert fused(model, good) is not None
    assert fused(model, on("lm_head", 24, VOCAB)) is None
    assert fused(model, on("transformer.wte", VOCAB, 24)) is None
    assert fused(model, on("transformer.h.0.attn.c_attn", 72, 24)) is None
    assert fused(model, lora.layout(model, LoraConfig(full=True))) is None


def test_a_changed_module_is_refused():
    model = small_gpt2()
    layout = lora.layout(model, LoraConfig(r=2, targets="c_attn"))
    model.transformer.h[1].mlp.c_fc = torch.nn.Linear(24, 96)

    assert fused(model, layout) is None


def test_a_model_without_weights_is_enough_to_ask():
    with torch.device("meta"):
        skeleton = small_gpt2()

    assert supports(skeleton, lora.layout(skeleton, LoraConfig(r=2)))


def program(n=6, width=5, dtype=torch.float64):
    ws = Workspace(torch.device("cpu"), dtype)
    new = lambda *size: torch.zeros(size, dtype=dtype)
    shape = Shape(1, 1, n, "AB", noise=False, entered=False)
    return Pass(shape, ws, ws, new(1, 1), new(1, 1), new(1, 1, n + 1), new(n, 1), new(n, width), new(n), new(1, 1), new(n, n), {}, new(1, 1, n))  # fmt: skip


@given(st.floats(-30, 30), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_gelu_and_its_derivative(u, bias):
    x = torch.tensor([[u + bias]], dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    (slope,) = torch.autograd.grad(expected.sum(), x)
    p, out, ours = program(), torch.empty(1, 1).double(), torch.empty(1, 1).double()
    one = torch.ones(1, dtype=torch.float64)
    kernels.gelu(u * one[None], bias * one, out, ours, p)
    p.replay()

    torch.testing.assert_close(out, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours, slope, rtol=1e-9, atol=1e-12)


def test_swiglu_in_blocks_has_the_gradients_of_autograd(monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 8)
    gate, up = (torch.randn(7, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = torch.nn.functional.silu(gate) * up
    by_gate, by_up = torch.autograd.grad(expected.sum(), (gate, up))
    p, (out, ours_up, ours_gate) = program(), torch.empty(3, 7, 4, dtype=torch.float64)
    kernels.swiglu(gate.detach(), up.detach(), out, (ours_up, ours_gate), p)
    p.replay()

    for ours, theirs in ((out, expected.detach()), (ours_up, by_up), (ours_gate, by_gate)):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ours_alone", [True, False])
def test_geglu_in_blocks_has_the_gradients_of_autograd(ours_alone, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 8)
    monkeypatch.setattr(kernels, "plain", lambda _: ours_alone)
    gate, up = (3 * torch.randn(7, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = torch.nn.functional.gelu(gate, approximate="tanh") * up
    by_gate, by_up = torch.autograd.grad(expected.sum(), (gate, up))
    p, (out, ours_up, ours_gate) = program(), torch.empty(3, 7, 4, dtype=torch.float64)
    kernels.geglu(gate.detach(), up.detach(), out, (ours_up, ours_gate), p)
    p.replay()

    for ours, theirs in ((out, expected.detach()), (ours_up, by_up), (ours_gate, by_gate)):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    alone = torch.empty_like(out)
    kernels.geglu(gate.detach(), up.detach(), alone, None, p)
    p.replay()
    assert torch.equal(alone, out)


def test_cross_entropy_in_pieces(monkeypatch):
    monkeypatch.setattr(kernels, "ROWS", 4)
    monkeypatch.setattr(kernels, "LOGITS", {"cpu": 1})
    hidden, head = (
        torch.randn(6, 5, dtype=torch.float64, requires_grad=True),
        torch.randn(9, 5, dtype=torch.float64),
    )
    target, share = torch.tensor([0, 8, 3, 3, 1, 7]), torch.rand(6, dtype=torch.float64)
    nll = torch.nn.functional.cross_entropy(hidden @ head.t(), target, reduction="none")
    (expected,) = torch.autograd.grad((nll * share).sum(), hidden)
    p, grad = program(), torch.empty(6, 5, dtype=torch.float64)
    kernels.cross_entropy(hidden.detach(), head, target, grad, p)
    p.share.copy_(share[:, None])
    p.replay()

    torch.testing.assert_close(p.nll, nll.detach())
    torch.testing.assert_close(grad, expected)


def test_a_loss_is_right_where_its_probability_underflows():
    p = program(2, 1, torch.float32)
    kernels.cross_entropy(
        torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [500.0]]), torch.tensor([0, 1]), None, p
    )
    p.replay()

    assert p.nll.tolist() == [500.0, 0.0]  # -log(1 / (1 + e^500)), -log(1 / (1 + e^-500))


@pytest.mark.parametrize("spoilt", [math.nan, 400.0])
def test_a_row_that_is_lost_leaves_the_others_their_bits(spoilt):
    """NaN, or a loss of hundreds of nats, in the last of three rows."""
    hidden, head = torch.randn(3, 5), torch.randn(9, 5)
    head[0] *= 10
    found = []
    for last in (hidden[2], torch.full((5,), spoilt)):
        rows = torch.stack([hidden[0], hidden[1], last])
        p, grad = program(3, 1, torch.float32), torch.empty(3, 5)
        kernels.cross_entropy(rows, head, torch.tensor([1, 2, 3]), grad, p)
        p.share.fill_(1.0)
        p.replay()
        found.append((p.nll.clone(), grad))

    (plain, its), (beside, theirs) = found
    expected = torch.nn.functional.cross_entropy(hidden @ head.t(), torch.tensor([1, 2, 3]), reduction="none")
    torch.testing.assert_close(plain, expected)
    assert beside[:2].tolist() == plain[:2].tolist()
    assert theirs[:2].tolist() == its[:2].tolist()
    assert not beside[2] < 69.0  # beyond what a float32 probability holds, or NaN


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("add", [False, True])
def test_norms_and_their_gradients_are_those_of_autograd(norm, add):
    x, dy = torch.randn(2, 6, 5, dtype=torch.float64)
    x.requires_grad_()
    weight, bias = torch.randn(2, 5, dtype=torch.float64)
    if norm == "layer":
        ours, expected = norms.LayerNorm(weight, bias, 1e-5), torch.layer_norm(x, (5,), weight, bias, 1e-5)
    else:
        ours, expected = norms.RMSNorm(weight, 1e-5), torch.rms_norm(x, (5,), weight, 1e-5)
    (back,) = torch.autograd.grad(expected, x, dy)
    p, y, dx = program(), torch.empty(6, 5).double(), torch.ones(6, 5).double()
    kept = ours.forward(x.detach(), y, p)
    ours.backward(dy.clone(), dx, kept, p, add=add)
    p.replay()

    torch.testing.assert_close(y, expected.detach())
    torch.testing.assert_close(dx, back + 1.0 if add else back)


def test_attention_of_one_head_by_hand():
    """Two tokens, d = 1, scale ln 3, q = k = (0, 1), v = (2, 6): the second sees 2 and 6 with weights 1/4, 3/4."""
    one = attention.Attention(0, 1, 1, 1, math.log(3.0), None)
    p = program(2)
    p = replace(p, mask=torch.tensor([[0.0, -torch.inf], [0.0, 0.0]], dtype=torch.float64))
    out = torch.empty(2, 1, dtype=torch.float64)
    one.forward(torch.tensor([[0.0, 0.0, 2.0], [1.0, 1.0, 6.0]], dtype=torch.float64), out, p)
    p.replay()

    torch.testing.assert_close(out, torch.tensor([[2.0], [5.0]], dtype=torch.float64))


def test_a_window_of_one_token_and_one_of_two_by_hand():
    """Equal scores, values 2, 6, 4: a window of one gives the values, one of two the means of neighbours."""
    qkv = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 6.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
    for window, expected in ((1, [2.0, 6.0, 4.0]), (2, [2.0, 4.0, 5.0]), (3, [2.0, 4.0, 4.0])):
        reach = Reach(None, window)
        one, out = attention.Attention(0, 1, 1, 1, 1.0, None, reach), torch.empty(3, 1, dtype=torch.float64)
        hidden = torch.full((3, 3), -torch.inf, dtype=torch.float64)
        p = replace(program(3), mask=hidden.triu(1), windows={window: hidden.tril(-window)})
        one.forward(qkv, out, p)
        p.replay()

        torch.testing.assert_close(out[:, 0], torch.tensor(expected, dtype=torch.float64))


def test_a_decoder_without_any_adapter_is_refused_in_words():
    with pytest.raises(ExperimentError, match=r"lora.targets: no layer of the decoder carries an adapter"):
        decoder.Decoder(Layout(), [], block.Frozen(None, None, {}, None, torch.zeros(3, 2)))


def test_dropout_masks_are_there_while_a_program_runs_and_gone_afterwards():
    p, mask = program(), masks()
    during = []
    p.do(lambda: during.append(p.masks.noise))
    p.replay(mask)
    p.replay()
    assert during == [mask, None]
    assert p.masks.noise is None
