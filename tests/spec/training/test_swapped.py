"""The module swap: layers of every kind, with any loss, against stock PEFT; and what it leaves alone."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds.pictures import ALPHA, CONVOLUTIONS, images, layout_of, per_client, pictures, random_vector, stack

from fedsim.adapters.adapter import Layout, Module
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.errors import ExperimentError
from fedsim.jobs import Job, TaskContext
from fedsim.tasks.language import Language
from fedsim.training import hub, local, lora, noise, sequential, text_model
from fedsim.training.backbone import Stack
from fedsim.training.stacked import optimizers as steps
from fedsim.training.stacked.swapped import Swap, Swapped, refusal


def peft_of(model, rank, names=("conv", "pixels", "linear")):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig as PeftLora
        from peft import get_peft_model

        how = PeftLora(r=rank, lora_alpha=ALPHA, target_modules=list(names), fan_in_fan_out=True)
        wrapped = get_peft_model(copy.deepcopy(model), how).eval()
    for layer in wrapped.modules():
        if isinstance(getattr(layer, "base_layer", None), torch.nn.Conv2d):
            layer.lora_A["default"].dilation = layer.base_layer.dilation  # PEFT 0.21 leaves it at 1
    return wrapped, [p for _, p in sorted_factors(wrapped, names)]


def sorted_factors(wrapped, names):
    named = dict(wrapped.named_parameters())
    keys = [f"base_model.model.{n}.lora_{f}.default.weight" for n in names for f in "AB"]
    return [(key, named[key]) for key in keys]


def write(parameters, vector):
    with torch.no_grad():
        parts = torch.as_tensor(vector).split([p.numel() for p in parameters])
        for p, part in zip(parameters, parts, strict=True):
            p.copy_(part.view(p.shape))


def padded(small, vector, large):
    result = np.zeros(large.size)
    for name, value in small.arrays(vector).items():
        place = large.arrays(result)[name]
        place[tuple(slice(n) for n in value.shape)] = value
    return result


# layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("k", [1, 3])
def test_losses_and_gradients_are_stock_peft_s_for_every_kind_of_layer_and_rank(kind, k):
    model, ranks = pictures(**CONVOLUTIONS[kind]), (2, 16, 5)[:k]
    layout, batch = layout_of(model, 16), images(k, 4)
    vectors, expected = [], []
    for rank, own in zip(ranks, batch, strict=True):
        small = layout_of(model, rank)
        vectors.append(padded(small, random_vector(small, rank), layout))
        wrapped, parameters = peft_of(model, rank)
        write(parameters, random_vector(small, rank))
        loss = wrapped(own).mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        expected.append((loss.item(), padded(small, gradient.numpy(), layout)))
    losses, gradients = Swap(model, layout).gradients(stack(vectors, ranks, layout), per_client(batch))
    assert losses.tolist() == pytest.approx([loss for loss, _ in expected], rel=1e-12)
    for found, (_, wanted) in zip(gradients.numpy(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("how", ["sgd", "momentum", "adamw"])
def test_visits_over_convolutions_end_where_stock_peft_ends_for_ranks_2_to_16(how):
    local_config = {
        "sgd": LocalConfig(optimizer="sgd", lr=0.5),
        "momentum": LocalConfig(optimizer="sgd", lr=0.2, momentum=0.9),
        "adamw": LocalConfig(lr=0.02, weight_decay=0.1),
    }[how]
    model, ranks = pictures(), (2, 16, 3, 8, 4, 11, 6)
    k = len(ranks)
    layout, batch = layout_of(model, 16), images(k, 6)
    starts, expected = [], []
    for rank, own in zip(ranks, batch, strict=True):
        small = layout_of(model, rank)
        wrapped, parameters = peft_of(model, rank)
        write(parameters, random_vector(small, rank))
        optimiser = local.optimizer(parameters, local_config)
        for step in range(6):
            optimiser.zero_grad()
            wrapped(own[step % 3 :: 3]).mean().backward()
            optimiser.step()
        starts.append(padded(small, random_vector(small, rank), layout))
        end = torch.cat([p.detach().flatten() for p in parameters])
        expected.append(padded(small, end.numpy(), layout))
    own_stack = stack(starts, ranks, layout)
    kind = steps.Sgd if how != "adamw" else steps.AdamW
    optimiser, swap = kind(own_stack.factors, [local_config] * k, None), Swap(model, layout)
    for step in range(6):
        optimiser.step(swap.gradients(own_stack, per_client(batch[:, step % 3 :: 3]))[1])
    move = np.abs(np.stack(expected) - np.stack(starts)).max()
    assert move > 0.05
    np.testing.assert_allclose(own_stack.factors.numpy(), np.stack(expected), rtol=0, atol=1e-9 * move)


@pytest.mark.parametrize("trains", ["A", "B"])
def test_only_the_factors_that_train_have_a_gradient(trains):
    model = pictures()
    layout, batch = layout_of(model, 4), images(2, 3)
    vectors = [random_vector(layout, seed) for seed in range(2)]
    swap = Swap(model, layout)
    everything = swap.gradients(stack(vectors, (4, 4), layout), per_client(batch))[1].numpy()
    part = swap.gradients(stack(vectors, (4, 4), layout, trains=trains), per_client(batch))[1].numpy()
    inside = local.slots(layout, None, trains)
    assert np.array_equal(part[:, inside], everything[:, inside])
    assert not part[:, ~inside].any()


def test_dropout_multiplies_what_a_sees_in_every_kind_of_layer():
    """The oracle is PEFT with the masks put in place of its dropout layers."""
    model, rank, names = pictures(), 4, ("conv", "pixels", "linear")
    layout, batch = layout_of(model, rank), images(2, 3)
    jobs = [Job(client, 0, None, LocalConfig(), 0) for client in range(2)]
    vectors = [random_vector(layout, seed) for seed in range(2)]
    like = torch.zeros(1, dtype=torch.float64)
    drop = noise.dropout(0.4, jobs, [3, 3], 5, slice(0, 3), like)
    _, found = Swap(model, layout).gradients(
        stack(vectors, (rank, rank), layout, noise=drop), per_client(batch)
    )
    for job, vector, own, gradient in zip(jobs, vectors, batch, found, strict=True):
        wrapped, parameters = peft_of(model, rank)
        write(parameters, vector)
        for at, name in enumerate(names):

            def masked(x, at=at, job=job):
                return x * noise.survivors(0.4, job, 5, at, x.numel()).view(x.shape) / (1 - 0.4)

            wrapped.base_model.model.get_submodule(name).lora_dropout["default"].forward = masked
        expected = torch.autograd.grad(wrapped(own).mean(), parameters)
        torch.testing.assert_close(
            gradient, torch.cat([g.flatten() for g in expected]), rtol=1e-9, atol=1e-12
        )


def test_a_layer_used_twice_adds_its_gradients_and_an_unused_one_has_none():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.used(torch.tanh(self.used(x))).square().mean(1)

    model = Twice().double()
    layout = layout_of(model, 2, ("used", "idle"))
    vector, x = random_vector(layout, 0), torch.randn(1, 5, 4, dtype=torch.float64)
    _, gradients = Swap(model, layout).gradients(stack([vector], (2,), layout), per_client(x))
    wrapped, parameters = peft_of(model, 2, ("used",))
    write(parameters, vector[: layout.modules[0].size])
    expected = torch.autograd.grad(wrapped(x[0]).mean(), parameters)
    found = gradients[0].split(layout.modules[0].size)
    torch.testing.assert_close(found[0], torch.cat([g.flatten() for g in expected]), rtol=1e-12, atol=1e-14)
    assert not found[1].any()


# what cannot be swapped -------------------------------------------------------------------------


def test_layers_that_cannot_be_swapped_are_refused_in_one_sentence():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.grouped = torch.nn.Conv2d(4, 4, 3, groups=2)
            self.mirrored = torch.nn.Conv2d(4, 4, 3, padding_mode="reflect")
            self.table = torch.nn.Embedding(4, 4)
            self.experts = torch.nn.ModuleList([torch.nn.Linear(4, 4)])
            self.mlp = torch.nn.ModuleDict({"experts": torch.nn.ModuleList([torch.nn.Linear(4, 4)])})

    for name, reason in (
        ("grouped", "a Conv2d of 2 groups"),
        ("mirrored", "a Conv2d padded by 'reflect'"),
        ("table", "a Embedding, not a plain Linear, Conv1D or Conv2d"),
        ("mlp.experts.0", "an expert"),
    ):
        layout = Layout((Module(name, 2, (2, 4), (4, 2), 1.0),))
        assert reason in refusal(Odd(), layout)
        with pytest.raises(ExperimentError, match=r"fix: leave it out of lora\.targets") as error:
            Swap(Odd(), layout)
        assert name in str(error.value)


def test_an_input_that_is_not_the_clients_is_refused():
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x):
            return x.flatten(1).sum(1) + self.linear(torch.ones(1, 4)).sum()

    model = Shared()
    layout = layout_of(model, 2, ("linear",))
    own = stack([random_vector(layout, 0)] * 2, (2, 2), layout)
    with pytest.raises(ExperimentError, match="1 inputs for 2 clients"):
        Swap(model, layout).gradients(own, per_client(torch.ones(2, 3, 4)))


# what is left alone -----------------------------------------------------------------------------


def test_the_model_given_is_not_changed_and_shares_its_weights_with_the_copy():
    model = pictures()
    layout, x = layout_of(model, 4), images(1, 2)[0]
    before = model(x)
    swap = Swap(model, layout)
    own = stack([random_vector(layout, 0)], (4,), layout)
    swap.gradients(own, per_client(x[None]))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert "forward" not in vars(model.linear)
    assert torch.equal(model(x), before)
    assert torch.equal(swap.model(x), before)  # without a stack
    with swap.set(own):
        assert not torch.equal(swap.model(x), before)
    pairs = zip(model.parameters(), swap.model.parameters(), strict=True)
    assert all(p.data_ptr() == q.data_ptr() and not q.requires_grad for p, q in pairs)


@pytest.fixture(params=["llama", "gpt2"])
def name(request):
    return request.getfixturevalue(request.param)


def test_stock_peft_runs_in_the_same_process_on_the_same_weights(name):
    how = LoraConfig(r=4, alpha=ALPHA)
    weights = hub.weights(name)
    layout = lora.layout(weights, how)
    start = lora.initial(layout, 0)
    job = Job(0, 0, start, LocalConfig(lr=0.01, batch=2), 0)
    data = np.random.default_rng(0).integers(0, 320, (4, 9))
    expected = sequential.visit(lora.Trainee(hub.weights(name), layout, how), data, job).end
    ours = Swapped(weights, layout)
    peft = lora.Trainee(weights, layout, how)
    tokens, even = torch.from_numpy(data)[None], torch.full((1, 4), 0.25)
    factors = torch.from_numpy(start)[None]
    scales = torch.full((1, len(layout.modules)), 2.0)
    first = ours.gradients(Stack(factors, scales), tokens, even)[1]
    assert sequential.visit(peft, data, job).end.tobytes() == expected.tobytes()
    assert torch.equal(ours.gradients(Stack(factors, scales), tokens, even)[1], first)
    tied = weights.get_output_embeddings().weight is weights.get_input_embeddings().weight
    copied = ours.swap.model
    assert tied == (copied.get_output_embeddings().weight is copied.get_input_embeddings().weight)


def test_nothing_below_the_lowest_adapter_is_differentiated(gpt2):
    model = hub.weights(gpt2)
    layout = lora.layout(model, LoraConfig(r=4, alpha=ALPHA, targets=("h.1.mlp.c_proj",)))
    ours = Swapped(model, layout)
    blocks, seen = ours.swap.model.transformer.h, {}
    for name, block in (("below", blocks[0]), ("same", blocks[1].attn), ("above", blocks[1].mlp)):
        block.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out[0].requires_grad}))
    own = Stack(torch.from_numpy(lora.initial(layout, 0))[None], torch.ones(1, 1))
    ours.gradients(own, torch.zeros(1, 2, 9, dtype=torch.int64), torch.full((1, 2), 0.5))
    assert seen == {"below": False, "same": False, "above": True}


def test_a_bfloat16_model_takes_float32_factors_and_gives_their_gradient(name):
    wide, narrow = hub.weights(name), hub.weights(name).to(torch.bfloat16)
    layout = lora.layout(wide, LoraConfig(r=4, alpha=ALPHA))
    vectors = np.stack([random_vector(layout, seed).astype(np.float32) / 10 for seed in range(3)])
    own = Stack(torch.from_numpy(vectors), torch.full((3, len(layout.modules)), 2.0))
    own = replace(own, noise=lambda _, shape: torch.ones(shape))
    tokens = torch.randint(0, 320, (3, 4, 17), generator=torch.Generator().manual_seed(0))
    even = torch.full((3, 4), 0.25)
    expected_losses, expected = Swapped(wide, layout).gradients(own, tokens, even)
    losses, found = Swapped(narrow, layout).gradients(own, tokens, even)
    assert found.dtype == losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=0.02)
    gap = torch.linalg.vector_norm(found - expected, dim=1) / torch.linalg.vector_norm(expected, dim=1)
    assert gap.max() < 0.05
    assert math.isclose(Swapped(narrow, layout).losses(own, tokens).mean(), losses.mean(), abs_tol=1e-3)


# memory -----------------------------------------------------------------------------------------


def passes_of(task, jobs, monkeypatch):
    """Train with the module swap; return the updates and the tokens of every pass."""
    found, gradients = [], Swapped.gradients

    def noted(self, stack, tokens, weights, hidden=None):
        found.append(tokens[..., 1:].numel())
        return gradients(self, stack, tokens, weights, hidden)

    monkeypatch.setattr(Swapped, "gradients", noted)
    return task.train(jobs), found


@pytest.mark.parametrize(("room", "most"), [(2**26, 3 * 4 * 16), (320 * 50, 3 * 16), (320 * 20, 16), (1, 16)])
def test_a_training_pass_holds_no_more_logits_than_their_room_but_one_sequence(
    name, room, most, text_folder, monkeypatch
):
    numerics = NumericsConfig(training="swapped")
    context = TaskContext(3, 0, LoraConfig(r=4), LocalConfig(), numerics)
    task = Language(model=name, data=str(text_folder), sequence=16).build(context)
    local_config = LocalConfig(optimizer="sgd", lr=0.1, steps=2, batch=4)
    jobs = [Job(c, 0, task.initial(), local_config, 0) for c in range(3)]
    whole, _ = passes_of(task, jobs, monkeypatch)
    monkeypatch.setattr(text_model, "SWAPPED", room)

    found, tokens = passes_of(task, jobs, monkeypatch)

    assert max(tokens) == most
    for ours, expected, job in zip(found, whole, jobs, strict=True):
        move = np.abs(expected.end - job.start).max()
        np.testing.assert_allclose(ours.end, expected.end, rtol=0, atol=1e-4 * move)


def test_only_a_swapped_model_has_its_passes_cut_by_vocabulary(name, text_folder, monkeypatch):
    monkeypatch.setattr(text_model, "SWAPPED", 320 * 48)
    for training, at_once in (("swapped", 48), ("fused", 1000)):
        numerics = NumericsConfig(training=training, tokens_at_once=1000)
        context = TaskContext(3, 0, LoraConfig(r=4), LocalConfig(), numerics)
        task = Language(model=name, data=str(text_folder), sequence=16).build(context)

        assert task.text_model.tokens_at_once(task.text_model.backbone(), 16) == at_once
