"""A client with adapters in its last layers only is stock PEFT whose lower adapters are frozen at zero move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds.client_batches import (
    ALPHA,
    HOW,
    SIZES,
    distance,
    ends,
    largest_move,
    oracle,
    random_start,
    token_windows,
)
from worlds.decoders import widen_norms

from fedsim.builtin import model_folder
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.jobs import Job
from fedsim.training import hub, local, lora, paths, sequential
from fedsim.training.stacked import batched, frozen_prefix
from fedsim.training.stacked.depths import narrowed, widened
from fedsim.training.text_model import TextModel

R4 = LoraConfig(r=4, alpha=ALPHA)
WHOLE = 10**9


def three_layers():
    """The model that ships: a Llama of three layers."""
    return str(model_folder())


@pytest.fixture(autouse=True)
def _norms_of_stock_models_in_float64(monkeypatch):
    widen_norms(monkeypatch)


@pytest.fixture(params=["gpt2", "builtin"])
def name(request):
    return three_layers() if request.param == "builtin" else request.getfixturevalue(request.param)


def layers_of(name):
    return len(lora.layout(hub.skeleton(name), R4).blocks)


def backbone(name, path, dtype=torch.float64):
    return paths.choose(hub.weights(name).to(dtype), lora.layout(hub.skeleton(name), R4), path)


def visits(layout, how="sgd", count=4, **changes):
    """Jobs of unequal length that start with zeros below their depth, and their windows."""
    jobs, data = [], []
    for i in range(count):
        own = LocalConfig(**HOW[how], epochs=1 + i % 2, batch=2 + i % 3)
        job = Job(i, i % 4, random_start(layout, i), own, 0, **changes)
        jobs.append(replace(job, start=job.start * layout.slots(depth=job.depth)))
        data.append(token_windows(SIZES[i % 7], seed=i))
    return data, jobs


def at_depth(whole, data, jobs, depth):
    """The jobs through a backbone that has no other adapters."""
    part = whole.at_depth(depth)
    found = batched.train(part, data, [narrowed(whole.layout, job) for job in jobs], tokens_at_once=WHOLE)
    return [widened(whole.layout, depth, update) for update in found]


def by_hand(name, windows, job):
    """A visit of stock PEFT, written out: A as LoRA begins it everywhere, lower factors with requires_grad False."""
    peft = oracle(name, R4)
    layout = peft.layout
    free = layout.slots(depth=job.depth)
    below = layout.below(job.depth)
    begun = np.where(layout.slots(None, "A"), random_start(layout, 9), np.float32(0))  # B A is 0, A is not
    peft.write(np.where(free, job.start, begun))
    for key, parameter in zip(layout.slices, peft.parameters, strict=True):
        parameter.requires_grad_(key not in below)
    trained = [p for p in peft.parameters if p.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=job.local.lr)
    for rows in local.batches(len(windows), job):
        optimiser.zero_grad()
        sequential.token_losses(peft, windows[rows]).mean().backward()
        optimiser.step()
    assert all(p.grad is None for p in peft.parameters if not p.requires_grad)
    return np.where(free, peft.read(), 0)


@pytest.mark.parametrize("path", ["sequential", "swapped", "fused"])
def test_in_float64_a_client_is_stock_peft_with_lower_adapters_frozen_to_1e_9(name, path):
    for depth in range(1, layers_of(name)):
        whole = oracle(name, R4) if path == "sequential" else backbone(name, path)
        data, jobs = visits(whole.layout, depth=depth, count=2)
        if path == "sequential":
            found = sequential.train(whole, data, jobs)
        else:
            found = at_depth(whole, data, jobs, depth)
        expected = [by_hand(name, own, job) for own, job in zip(data, jobs, strict=True)]
        moved = np.abs(np.stack(expected) - np.stack([j.start for j in jobs])).max()
        assert moved > 0.01
        assert np.abs(ends(found) - np.stack(expected)).max() < 1e-9 * moved
        assert not ends(found)[:, ~whole.layout.slots(depth=depth)].any()


SWAPPED = pytest.param("swapped", marks=pytest.mark.slow)


@pytest.mark.parametrize("how", ["momentum", "adamw-all"])
@pytest.mark.parametrize("path", [SWAPPED, "fused"])
def test_with_ranks_anchors_and_every_term_of_the_objective_the_paths_agree(path, how):
    name = three_layers()
    whole, peft = backbone(name, path), oracle(name, R4)
    data, jobs = visits(whole.layout, how, depth=2, rank=3)
    jobs = [replace(job, anchor=random_start(whole.layout, 50 + job.client)) for job in jobs]

    expected = sequential.train(peft, data, jobs)
    assert distance(at_depth(whole, data, jobs, 2), expected, jobs) < 1e-9


@pytest.mark.parametrize("path", [SWAPPED, "fused"])
def test_dropout_is_addressed_by_the_layers_that_a_client_has(path):
    name = three_layers()
    whole, peft = backbone(name, path), oracle(name, R4)
    data, jobs = visits(whole.layout, depth=2, count=2)
    narrow = [narrowed(whole.layout, job) for job in jobs]
    found = batched.train(whole.at_depth(2), data, narrow, tokens_at_once=WHOLE, dropout=0.3)
    expected = sequential.train(peft, data, jobs, dropout=0.3)

    assert distance([widened(whole.layout, 2, u) for u in found], expected, jobs) < 1e-9
    plain = sequential.train(peft, data, jobs)
    assert distance(plain, expected, jobs) > 1e-3


@pytest.mark.parametrize("path", [SWAPPED, "fused"])
def test_the_whole_model_is_as_it_was_after_a_part_of_it_has_trained(path):
    name = three_layers()
    whole = backbone(name, path)
    data, jobs = visits(whole.layout)
    before = batched.train(whole, data, jobs, tokens_at_once=WHOLE)
    for depth in (1, 2):
        at_depth(whole, data, visits(whole.layout, depth=depth)[1], depth)

    assert ends(batched.train(whole, data, jobs, tokens_at_once=WHOLE)).tobytes() == ends(before).tobytes()
    assert whole.at_depth(2).layout == whole.layout.last(2)


@pytest.mark.slow
def test_a_base_that_moved_above_is_under_a_part_too_and_gone_with_the_next_job():
    name = three_layers()
    base = np.random.default_rng(3).normal(0, 0.01, sum(i * o for i, o in _sizes(name))).astype(np.float32)
    for path in ("swapped", "fused"):
        whole = backbone(name, path)
        layout = whole.layout
        start, at = [], 0
        for m in layout.modules:
            size = m.a_shape[1] * m.b_shape[0]
            start.append((m.name, slice(at, at + size)))
            at += size
        upper = base.copy()
        for module, place in start:
            if f"{module}.lora_A" in layout.below(1):
                upper[place] = 0
        data, jobs = visits(layout, depth=1, count=2)
        moved = [replace(job, base=upper) for job in jobs]
        expected = sequential.train(oracle(name, R4), data, moved)
        assert distance(at_depth(whole, data, moved, 1), expected, jobs) < 1e-8
        plain = sequential.train(oracle(name, R4), data, jobs)
        assert distance(at_depth(whole, data, jobs, 1), plain, jobs) < 1e-8
        assert distance(plain, expected, jobs) > 1e-4


def _sizes(name):
    return [(m.a_shape[1], m.b_shape[0]) for m in lora.layout(hub.skeleton(name), R4).modules]


# a model as workers have it ---------------------------------------------------------------------


def text_model(path="fused", cache_bytes=0.0):
    name = three_layers()
    layout = lora.layout(hub.skeleton(name), R4)
    config = hub.skeleton(name).config
    numerics = NumericsConfig(training=path)
    return TextModel(name, R4, numerics, layout, config.hidden_size, config.vocab_size, cache_bytes)


def mixed(layout, count=6):
    data, jobs = visits(layout, count=count)
    jobs = [replace(job, depth=(1, None, 2, 3)[i % 4]) for i, job in enumerate(jobs)]
    return data, [replace(job, start=job.start * layout.slots(depth=job.depth)) for job in jobs]


@pytest.mark.parametrize("path", ["fused", "swapped"])
def test_clients_of_all_depths_in_one_call_are_each_what_they_are_alone_and_as_stock_peft_has_them(path):
    model, peft = text_model(path), text_model("sequential")
    data, jobs = mixed(model.layout)
    together = model.train(data, jobs)

    expected = peft.train(data, jobs)
    assert distance(together, expected, jobs) < 1e-4
    assert largest_move(expected, jobs) > 0.01
    of_one = [i for i, job in enumerate(jobs) if job.depth == 1]
    apart = model.train([data[i] for i in of_one], [jobs[i] for i in of_one])
    assert [u.end.tobytes() for u in apart] == [together[i].end.tobytes() for i in of_one]


def test_frozen_states_are_kept_for_every_depth_in_one_room_and_change_no_bit():
    fresh, kept = text_model(), text_model(cache_bytes=1e9)
    data, jobs = mixed(fresh.layout)
    first = kept.train(data, jobs)
    states = frozen_prefix.of(kept.backbone(), 1e9)
    held = states.kept_bytes
    again = kept.train(data, jobs)

    shallow = [
        len(own) * 12 * kept.width * 4 for own, job in zip(data, jobs, strict=True) if job.depth in (1, 2)
    ]
    assert held == sum(shallow) == states.kept_bytes
    assert ends(first).tobytes() == ends(again).tobytes() == ends(fresh.train(data, jobs)).tobytes()
