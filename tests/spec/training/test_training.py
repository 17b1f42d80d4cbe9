"""LoRA in and out of stock PEFT, and the sequential reference path against hand-made steps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, GPT2Config

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError, ExperimentError
from fedsim.jobs import Job
from fedsim.training import hub, local, lora, sequential, text_shape

R4 = LoraConfig(r=4, alpha=8.0)
FULL = LoraConfig(full=True)


def random_vector(layout, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, layout.size).astype(np.float32)


def windows(count=6, sequence=16, seed=0):
    return np.random.default_rng(seed).integers(0, 320, (count, sequence + 1)).astype(np.uint16)


def trained(trainee, how, job=None, data=None, start=None):
    start = lora.initial(trainee.layout, 0) if start is None else start
    job = job or Job(0, 0, start, how, 0)
    return sequential.visit(trainee, windows() if data is None else data, job)


def fresh(name, how=R4):
    return lora.Trainee(hub.weights(name), lora.layout(hub.skeleton(name), how), how)


# layouts ----------------------------------------------------------------------------------------


def test_gpt2_with_r_8_on_c_attn_sends_1_179_648_bytes_and_that_is_known_without_weights():
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(GPT2Config())
    layout = lora.layout(skeleton, LoraConfig(r=8, targets=("c_attn",)))
    assert layout.size == 12 * 8 * (768 + 3 * 768) == 294_912
    assert 4 * layout.size == 1_179_648
    full = lora.layout(skeleton, FULL)
    assert full.size == 124_439_808
    assert 1 - layout.size / full.size == pytest.approx(0.9976, abs=5e-5)


def test_all_linear_is_every_projection_but_not_the_head(llama, gpt2):
    names = [m.name for m in lora.layout(hub.skeleton(llama), R4).modules]
    leaves = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert [n.rpartition(".")[2] for n in names] == leaves * 2
    assert names[0] == "model.layers.0.self_attn.q_proj"
    c_attn = lora.layout(hub.skeleton(gpt2), R4).modules[0]
    assert (c_attn.a_shape, c_attn.b_shape, c_attn.scale) == ((4, 32), (96, 4), 2.0)


def test_targets_match_as_in_peft_by_whole_name_or_ending(gpt2):
    skeleton = hub.skeleton(gpt2)
    by_leaf = lora.layout(skeleton, LoraConfig(r=4, targets="c_proj"))
    by_end = lora.layout(skeleton, LoraConfig(r=4, targets=("attn.c_proj",)))
    by_path = lora.layout(skeleton, LoraConfig(r=4, targets=("transformer.h.1.attn.c_proj",)))
    assert (len(by_leaf.modules), len(by_end.modules), len(by_path.modules)) == (4, 2, 1)


@pytest.mark.parametrize("targets", ["q_prj", ("q_proj", "c_attn"), ("embed_tokens",), ()])
def test_wrong_targets_are_answered_with_the_names_there_are(llama, targets):
    with pytest.raises(ExperimentError) as error:
        lora.layout(hub.skeleton(llama), LoraConfig(targets=targets))
    assert "lora.targets" in str(error.value)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(error.value)


def test_full_training_counts_tied_weights_once(llama):
    layout = lora.layout(hub.skeleton(llama), FULL)
    assert layout.size == hub.weights(llama).num_parameters()
    assert not any("lm_head" in t.name for t in layout.tensors)


def test_the_shape_counts_the_head_as_work_although_it_is_tied(llama):
    layout = lora.layout(hub.skeleton(llama), R4)
    shape = text_shape.shape(hub.skeleton(llama), "tiny", layout, sequence=16, batch=2)
    per_layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48
    assert shape.matmul_params == 2 * per_layer + 320 * 32
    assert shape.params == shape.matmul_params + 5 * 32  # two norms a layer and the last one
    assert shape.adapter_params == layout.size


# the vector -------------------------------------------------------------------------------------


def test_the_initialisation_is_peft_s_distribution_and_the_model_s_function_is_unchanged(llama):
    trainee = fresh(llama)
    arrays = trainee.layout.arrays(lora.initial(trainee.layout, 0))
    a = arrays["model.layers.0.mlp.down_proj.lora_A"]
    bound = 1 / math.sqrt(48)
    assert np.abs(a).max() <= bound
    assert a.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert all(not value.any() for name, value in arrays.items() if name.endswith("B"))
    ids = torch.arange(20)[None]
    trainee.write(lora.initial(trainee.layout, 0))
    assert torch.equal(trainee.model(ids).logits, hub.weights(llama)(ids).logits)


def test_the_initialisation_is_pinned_to_the_bit_and_addressed_by_module(llama):
    layout = lora.layout(hub.skeleton(llama), R4)
    vector = lora.initial(layout, 0)
    assert vector.tobytes() == lora.initial(layout, 0).tobytes() != lora.initial(layout, 1).tobytes()
    only = lora.layout(hub.skeleton(llama), LoraConfig(r=4, alpha=8.0, targets="up_proj"))
    name = "model.layers.1.mlp.up_proj.lora_A"
    alone = only.arrays(lora.initial(only, 0))[name]
    assert np.array_equal(alone, layout.arrays(vector)[name])
    assert [float(x).hex() for x in vector[:3]] == [
        "-0x1.ab87ee0000000p-5",
        "-0x1.4118ce0000000p-3",
        "-0x1.d2339a0000000p-8",
    ]


@pytest.mark.parametrize("how", [R4, FULL], ids=["lora", "full"])
def test_a_vector_comes_back_to_the_bit_and_is_a_copy(model, how):
    trainee = fresh(model, how)
    vector = random_vector(trainee.layout)
    vector.flags.writeable = False
    trainee.write(vector)
    back = trainee.read()
    assert back.tobytes() == vector.tobytes()
    trainee.write(np.zeros_like(vector))
    assert back.tobytes() == vector.tobytes()
    with pytest.raises(ValueError, match="layout needs"):
        trainee.write(vector[1:])


def test_the_wrapped_layer_computes_w_x_plus_scale_b_a_x(model):
    trainee = fresh(model)
    vector = random_vector(trainee.layout)
    trainee.write(vector)
    base = hub.weights(model)
    first = trainee.layout.modules[0]
    arrays = trainee.layout.arrays(vector)
    delta = first.scale * arrays[f"{first.name}.lora_B"] @ arrays[f"{first.name}.lora_A"]
    x = torch.randn(3, first.a_shape[1], generator=torch.Generator().manual_seed(0))
    expected = base.get_submodule(first.name)(x) + x @ torch.from_numpy(delta).T
    found = trainee.model.base_model.model.get_submodule(first.name)(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["all-linear", ("c_proj", "q_proj", "mlp.c_proj")])
def test_stock_peft_loads_the_saved_folder_and_gives_the_same_logits(model, targets, tmp_path):
    from peft import PeftModel

    leaves = {m.name.rpartition(".")[2] for m in lora.matrices(hub.skeleton(model))}
    if targets != "all-linear":
        targets = tuple(t for t in targets if t.rpartition(".")[2] in leaves)
    how = LoraConfig(r=4, alpha=8.0, targets=targets)
    trainee = fresh(model, how)
    vector = random_vector(trainee.layout)
    lora.save(vector, model, how, tmp_path)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), tmp_path)
    trainee.write(vector)
    ids = torch.from_numpy(windows().astype(np.int64))
    with torch.no_grad():
        ours, theirs = trainee.model(ids).logits, loaded(ids).logits
        frozen = hub.weights(model)(ids).logits
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
    assert (ours - frozen).abs().max() > 1e-3


def test_the_file_s_payload_is_four_bytes_a_number_of_the_layout(model, tmp_path):
    layout = lora.layout(hub.skeleton(model), R4)
    lora.save(random_vector(layout), model, R4, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(t.nbytes for t in tensors.values()) == 4 * layout.size
    raw = (tmp_path / "adapter_model.safetensors").read_bytes()
    header = int.from_bytes(raw[:8], "little")
    assert len(raw) - 8 - header == 4 * layout.size
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == model
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)


def test_a_fully_trained_model_is_saved_as_a_transformers_folder(llama, tmp_path):
    layout = lora.layout(hub.skeleton(llama), FULL)
    start = lora.pretrained(llama, layout)
    lora.save(start + np.float32(0.01), llama, FULL, tmp_path)
    named = dict(AutoModelForCausalLM.from_pretrained(tmp_path).named_parameters())
    for name, part in layout.arrays(start + np.float32(0.01)).items():
        assert np.array_equal(named[name].detach().numpy(), part)
    assert hub.tokenizer(str(tmp_path)).eos_token == "</s>"


# training ---------------------------------------------------------------------------------------


def hand_made_losses(name, how, vector, ids):
    """Logits from merged weights (W + scale B A), then -log softmax of the next token."""
    layout = lora.layout(hub.skeleton(name), how)
    model = hub.weights(name)
    with torch.no_grad():
        for m in layout.modules:
            arrays = layout.arrays(vector)
            delta = torch.from_numpy(m.scale * arrays[f"{m.name}.lora_B"] @ arrays[f"{m.name}.lora_A"])
            weight = model.get_submodule(m.name).weight
            weight += delta if weight.shape == delta.shape and name_is_linear(model, m.name) else delta.T
        logits = model(ids[:, :-1]).logits.double()
    logp = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    return -logp.gather(-1, ids[:, 1:, None])[..., 0].numpy()


def name_is_linear(model, name):
    return isinstance(model.get_submodule(name), torch.nn.Linear)


def test_one_sgd_step_is_the_start_minus_lr_times_a_numerical_gradient(model):
    trainee = fresh(model)
    start = random_vector(trainee.layout)
    data = windows(2)
    end = trained(trainee, LocalConfig(optimizer="sgd", lr=0.5, steps=1, batch=2), data=data, start=start).end
    step = (start - end) / 0.5
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(data.astype(np.int64))
    for _ in range(3):  # directional derivatives of the hand-made loss
        direction = rng.normal(size=start.size).astype(np.float32)
        direction /= np.linalg.norm(direction)
        h = np.float32(0.05)
        up, down = (hand_made_losses(model, R4, start + s * direction, ids).mean() for s in (h, -h))
        assert (up - down) / (2 * h) == pytest.approx(float(step @ direction), rel=0.02, abs=2e-4)


def test_adamw_s_first_step_moves_every_number_by_lr_against_its_gradient(llama):
    trainee = fresh(llama)
    start = random_vector(trainee.layout)
    data = windows(2)
    gradient = (
        start
        - trained(trainee, LocalConfig(optimizer="sgd", lr=1.0, steps=1, batch=2), data=data, start=start).end
    )
    how = LocalConfig(optimizer="adamw", lr=0.01, weight_decay=0.1, steps=1, batch=2)
    moved = trained(trainee, how, data=data, start=start).end - start * np.float32(1 - 0.01 * 0.1)
    large = np.abs(gradient) > 1e-4
    assert large.mean() > 0.5
    np.testing.assert_allclose(moved[large], -0.01 * np.sign(gradient[large]), atol=2e-5)


def test_momentum_starts_afresh_at_every_visit(llama):
    trainee = fresh(llama)
    how = LocalConfig(optimizer="sgd", lr=0.1, momentum=0.9, steps=2, batch=2)
    start = random_vector(trainee.layout)
    first = trained(trainee, how, start=start)
    trained(trainee, how, job=Job(5, 3, start, how, 0), start=start)
    assert trained(trainee, how, start=start).end.tobytes() == first.end.tobytes()
    plain = trained(trainee, how.model_copy(update={"momentum": 0.0}), start=start)
    assert np.linalg.norm(first.end - start) > 1.3 * np.linalg.norm(plain.end - start)


@pytest.mark.parametrize("how", [R4, FULL], ids=["lora", "full"])
def test_job_order_and_grouping_change_nothing_to_the_bit(model, how):
    trainee = fresh(model, how)
    start = lora.pretrained(model, trainee.layout) if how.full else lora.initial(trainee.layout, 0)
    steps = LocalConfig(lr=0.01, epochs=1, batch=4)
    jobs = [Job(c, v, start, steps, 0) for c, v in ((0, 0), (1, 0), (0, 1))]
    data = [windows(seed=job.client) for job in jobs]
    together = sequential.train(trainee, data, jobs)
    alone = [sequential.train(trainee, [d], [j])[0] for d, j in zip(data[::-1], jobs[::-1], strict=True)][
        ::-1
    ]
    assert [u.end.tobytes() for u in together] == [u.end.tobytes() for u in alone]
    assert [u.loss for u in together] == [u.loss for u in alone]
    assert together[0].end.tobytes() != together[2].end.tobytes()  # another visit, another order


def test_dropout_of_the_model_s_configuration_is_off(gpt2):
    assert hub.config(gpt2).resid_pdrop == 0.1
    trainee = fresh(gpt2)
    assert not any(module.training for module in trainee.model.modules())
    trained(trainee, LocalConfig(lr=0.01, steps=1, batch=2))
    assert not any(module.training for module in trainee.model.modules())


def test_the_proximal_term_holds_the_end_nearer_to_the_start(llama):
    trainee = fresh(llama)
    start = random_vector(trainee.layout)
    far = [
        float(
            np.linalg.norm(
                trained(
                    trainee, LocalConfig(optimizer="sgd", lr=0.2, steps=8, batch=4, prox_mu=mu), start=start
                ).end
                - start
            )
        )
        for mu in (0.0, 0.5, 4.0)
    ]
    assert far[0] > far[1] > far[2] > 0


def test_a_proximal_step_is_the_gradient_plus_mu_times_the_distance(llama):
    """Two steps on one batch: x2 = x1 - lr (g(x1) + mu (x1 - x0))."""
    trainee = fresh(llama)
    x0, data, lr, mu = random_vector(trainee.layout), windows(2), 0.2, 1.5
    one = LocalConfig(optimizer="sgd", lr=lr, steps=1, batch=2)
    x1 = trained(trainee, one, data=data, start=x0).end
    plain = trained(trainee, one, data=data, start=x1).end
    two = LocalConfig(optimizer="sgd", lr=lr, steps=2, batch=2, prox_mu=mu)
    np.testing.assert_allclose(
        trained(trainee, two, data=data, start=x0).end, plain - lr * mu * (x1 - x0), rtol=0, atol=1e-6
    )


def test_clipping_bounds_the_norm_of_a_step_and_keeps_its_direction(llama):
    trainee = fresh(llama)
    start, data = random_vector(trainee.layout), windows(2)
    how = LocalConfig(optimizer="sgd", lr=1.0, steps=1, batch=2)
    step = trained(trainee, how, data=data, start=start).end - start
    short = trained(trainee, how.model_copy(update={"clip_norm": 0.01}), data=data, start=start).end - start
    assert np.linalg.norm(step) > 0.02
    assert np.linalg.norm(short) == pytest.approx(0.01, rel=1e-3)
    assert short @ step / np.linalg.norm(short) / np.linalg.norm(step) == pytest.approx(1, abs=1e-4)


def test_the_reported_loss_is_the_token_weighted_mean_over_steps(llama):
    trainee = fresh(llama)
    start, data = random_vector(trainee.layout), windows(5)
    how = LocalConfig(optimizer="sgd", lr=1e-12, epochs=1, batch=2)  # batches of 2, 2 and 1 windows
    update = trained(trainee, how, data=data, start=start)
    ids = torch.from_numpy(data.astype(np.int64))
    assert update.loss == pytest.approx(hand_made_losses(llama, R4, start, ids).mean(), rel=1e-5)
    assert (update.steps, update.tokens, update.examples) == (3, 80, 5)


def test_training_leaves_the_frozen_weights_alone_and_lowers_the_loss(llama):
    trainee = fresh(llama)
    before = {n: p.clone() for n, p in trainee.model.named_parameters() if not p.requires_grad}
    first = trained(trainee, LocalConfig(lr=0.02, epochs=1))
    later = trained(trainee, LocalConfig(lr=0.02, epochs=20))
    assert later.loss < first.loss
    assert all(torch.equal(p, before[n]) for n, p in trainee.model.named_parameters() if n in before)


def test_torch_s_threads_are_one_inside_and_restored_after():
    before = torch.get_num_threads()
    with local.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


# length and order of a visit --------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), batch=st.integers(1, 12), length=st.integers(1, 5), by_steps=st.booleans())
def test_a_visit_is_as_long_as_foretold_and_passes_over_examples_evenly(n, batch, length, by_steps):
    how = LocalConfig(batch=batch, **({"steps": length} if by_steps else {"epochs": length}))
    made = list(local.batches(n, Job(2, 1, None, how, 0)))
    rows = np.concatenate(made)
    assert len(made) == local.steps(n, how)
    assert rows.size == how.examples_over(n)
    assert all(len(b) == batch for b in made) or not by_steps
    counts = np.bincount(rows, minlength=n)
    assert counts.max() - counts.min() <= 1


def test_the_order_depends_on_purpose_client_and_visit_only():
    how = LocalConfig(steps=2, batch=8)

    def order(client, visit, purpose="train", seed=0):
        return np.concatenate(list(local.batches(50, Job(client, visit, None, how, seed, purpose)))).tolist()

    assert order(1, 1) == order(1, 1)
    others = [order(2, 1), order(1, 2), order(1, 1, "personal"), order(1, 1, seed=1)]
    assert all(order(1, 1) != other for other in others)


# what is wrong with a model ---------------------------------------------------------------------


def one_sentence(error):
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert fix
    assert "\n" not in head
    assert "Traceback" not in head
    return str(error.value)


def test_broken_models_are_answered_with_one_sentence(llama, tmp_path):
    with pytest.raises(DataError) as error:
        hub.config(str(tmp_path / "nowhere"))
    assert "there is no such folder" in one_sentence(error)
    with pytest.raises(DataError) as error:
        hub.config(str(tmp_path))
    assert "no config.json" in one_sentence(error)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError) as error:
        hub.config(str(tmp_path))
    assert "cannot load the configuration" in one_sentence(error)


def test_a_model_that_writes_no_text_and_a_folder_without_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(DataError) as error:
        hub.config(str(tmp_path))
    assert "not a causal language model" in one_sentence(error)
    with pytest.raises(DataError) as error:
        hub.check_weights(str(tmp_path))
    assert "no weights" in one_sentence(error)


def test_a_hub_name_offline_says_so_and_names_the_way_out(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as error:
        hub.config("someone/some-model-that-is-not-cached")
    text = one_sentence(error)
    assert "HF_HUB_OFFLINE" in text
    assert "model: builtin" in text
