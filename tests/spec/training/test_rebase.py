"""Frozen weights that a rule has moved: every path trains and scores on W0 + change, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D
from worlds.client_batches import (
    R4,
    WHOLE,
    clients,
    distance,
    ends,
    largest_move,
    oracle,
    random_start,
    rows_do_not_depend_on_their_neighbours,
    swapped,
    token_windows,
)
from worlds.pictures import images, layout_of, per_client, pictures, random_vector, stack

from fedsim.adapters.folding import base_into_adapter
from fedsim.adapters.moved_base import Base, dense_shape, dense_size, split
from fedsim.config.learning import LoraConfig
from fedsim.jobs import Job
from fedsim.training import hub, lora, sequential
from fedsim.training.fused import fused
from fedsim.training.stacked import batched
from fedsim.training.stacked.frozen_prefix import Prefix
from fedsim.training.stacked.swapped import Swap


def fused_of(name, lora_config=R4, dtype=torch.float64):
    return fused(hub.weights(name).to(dtype), lora.layout(hub.skeleton(name), lora_config))


PATHS = {"swapped": swapped, "fused": fused_of}


def change(layout, seed, size=0.05):
    return np.random.default_rng([seed, 7]).normal(0, size, dense_size(layout)).astype(np.float32)


def on_bases(layout, jobs):
    """The same jobs on three bases in turn: pretrained, and two others; scales and anchors of their own."""
    bases = [None, change(layout, 1), change(layout, 2)]
    return [
        replace(
            job,
            base=bases[i % 3],
            scale=0.5 + i / 4,
            anchor=random_start(layout, 50 + i) if i % 2 else None,
            rank=(None, 2, 3)[i % 3],
        )
        for i, job in enumerate(jobs)
    ]


# training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["sgd-all", "adamw-all"])
def test_a_batch_of_several_bases_scales_and_anchors_is_stock_peft_one_by_one(model, path, how):
    peft, ours = oracle(model), PATHS[path](model)
    data, jobs = clients(peft.layout, how)
    jobs = on_bases(peft.layout, jobs)

    expected = sequential.train(peft, data, jobs)
    found = batched.train(ours, data, jobs, tokens_at_once=WHOLE)

    assert largest_move(expected, jobs) > 0.01
    rotated = path == "fused" and "llama" in model  # Hugging Face rounds RoPE's angles to float32
    assert distance(found, expected, jobs) < (1e-4 if rotated else 1e-9)
    for one, other in zip(found, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-8)


def test_base_scale_and_anchor_each_change_where_a_visit_ends(gpt2):
    peft = oracle(gpt2)
    data, (job, *_) = clients(peft.layout, "sgd-all", 1)
    others = [
        replace(job, base=change(peft.layout, 1)),
        replace(job, scale=0.7),
        replace(job, anchor=random_start(peft.layout, 9)),
    ]

    plain, *changed = ends(sequential.train(peft, data * 4, [job, *others]))

    assert all(np.abs(end - plain).max() > 1e-3 for end in changed)


def test_the_start_as_an_anchor_is_fedprox(gpt2):
    peft = oracle(gpt2)
    data, jobs = clients(peft.layout, "adamw-all", 2)
    said = [replace(job, anchor=job.start) for job in jobs]

    assert np.array_equal(ends(sequential.train(peft, data, jobs)), ends(sequential.train(peft, data, said)))
    together = [ends(batched.train(swapped(gpt2), data, own, tokens_at_once=WHOLE)) for own in (jobs, said)]
    assert np.array_equal(*together)


def test_an_anchor_does_not_move_frozen_factors_or_slots_above_the_rank(gpt2):
    peft = oracle(gpt2)
    data, (job, *_) = clients(peft.layout, "sgd-all", 1)
    held = replace(job, rank=2, trains="B", anchor=random_start(peft.layout, 9))
    inside, free = peft.layout.slots(2), peft.layout.slots(2, "B")

    for updates in (
        sequential.train(peft, data, [held]),
        batched.train(swapped(gpt2), data, [held], tokens_at_once=WHOLE),
    ):
        end = updates[0].end
        assert not end[~inside].any()
        assert np.array_equal(end[inside & ~free], job.start[inside & ~free])
        assert np.abs(end[free] - job.start[free]).max() > 1e-3


@pytest.mark.parametrize("path", PATHS)
def test_how_jobs_of_different_bases_are_grouped_changes_no_bit_or_rounds(model, path):
    """No bit where the library's matrix product gives a row the same bits whatever the number of rows."""
    ours = PATHS[path](model, dtype=torch.float32)
    data, jobs = clients(ours.layout, "sgd")
    jobs = on_bases(ours.layout, jobs)

    together = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    alone = [
        batched.train(ours, [own], [job], tokens_at_once=WHOLE)[0]
        for own, job in zip(data, jobs, strict=True)
    ]

    if path == "fused" and rows_do_not_depend_on_their_neighbours():
        assert np.array_equal(ends(together), ends(alone))
    assert distance(together, alone, jobs) < 1e-5


@pytest.mark.parametrize("path", ["swapped", "fused", "sequential"])
def test_the_pretrained_weights_come_back_to_the_bit_whatever_came_between(model, path):
    ours = (
        oracle(model, dtype=torch.float32)
        if path == "sequential"
        else PATHS[path](model, dtype=torch.float32)
    )
    data, jobs = clients(ours.layout, "adamw", 3)

    def trained(base):
        own = [replace(job, base=base) for job in jobs]
        if path == "sequential":
            return ends(sequential.train(ours, data, own))
        return ends(batched.train(ours, data, own, tokens_at_once=WHOLE))

    first, one = change(ours.layout, 1), change(ours.layout, 2, size=10.0)
    before, moved = trained(None), trained(first)
    trained(one)

    assert not np.array_equal(before, moved)
    assert np.array_equal(trained(first), moved)  # from W0 anew: the large change between left nothing behind
    assert np.array_equal(trained(None), before)


@pytest.mark.parametrize("path", PATHS)
def test_weights_are_written_once_a_base_and_the_model_that_was_given_keeps_its_own(model, path):
    stock = hub.weights(model)
    kept = {name: p.clone() for name, p in stock.named_parameters()}
    layout = lora.layout(hub.skeleton(model), R4)
    ours = fused(stock, layout) if path == "fused" else Swap(stock, layout)
    base = change(layout, 1)

    for _ in range(3):
        ours.rebase(base)
    ours.rebase(None)
    ours.rebase(None)
    ours.rebase(base)

    assert ours._bases.moves == 3
    assert all(torch.equal(p, kept[name]) for name, p in stock.named_parameters())


def test_hidden_states_from_below_the_adapters_are_the_same_for_every_base(gpt2):
    upper = LoraConfig(r=4, alpha=8.0, targets=("h.1.attn.c_attn", "h.1.mlp.c_fc"))
    ours = fused_of(gpt2, upper, torch.float32)
    ids = token_windows(4)
    plain = Prefix(ours, 0.0).states(ids)
    ours.rebase(change(ours.layout, 1))

    assert ours.prefix_layers == 1
    assert torch.equal(Prefix(ours, 0.0).states(ids), plain)
    start = random_start(ours.layout)
    job = Job(0, 0, start, clients(ours.layout, "sgd", 1)[1][0].local, 0, base=change(ours.layout, 1))
    kept = batched.train(ours, [ids], [job], tokens_at_once=WHOLE, hidden=[plain])
    anew = batched.train(ours, [ids], [job], tokens_at_once=WHOLE)
    assert np.array_equal(ends(kept), ends(anew))


# merging ----------------------------------------------------------------------------------------


def merge(model, layout, vector, base):
    """Write W0 + change + scale B A into a stock model, layer by layer."""
    arrays = layout.arrays(vector)
    for m, own in split(layout, base):
        a, b = arrays[f"{m.name}.lora_A"], arrays[f"{m.name}.lora_B"]
        out, width = dense_shape(m)
        dense = torch.from_numpy(own + m.scale * b.reshape(out, -1) @ a.reshape(-1, width))
        layer = model.get_submodule(m.name)
        turned = dense.t() if isinstance(layer, Conv1D) else dense.reshape(layer.weight.shape)
        with torch.no_grad():
            layer.weight.add_(turned.to(layer.weight.dtype))
    return model


@pytest.mark.parametrize("path", ["swapped", "fused", "sequential"])
def test_base_and_adapter_score_as_the_merged_stock_model(model, path):
    layout = lora.layout(hub.skeleton(model), R4)
    vector, base, ids = random_start(layout), change(layout, 3), token_windows(5)
    merged = merge(hub.weights(model).double(), layout, vector.astype(np.float64), base)
    tokens = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logits = merged(input_ids=tokens[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    ).item()
    counts = np.full(5, ids.shape[1] - 1)

    if path == "sequential":
        found = sequential.score(oracle(model), vector, ids, counts, 2, base)
    else:
        (found,) = batched.score(PATHS[path](model), [vector], [ids], [counts], 2, base)

    assert found == pytest.approx(expected, rel=1e-9)


def test_so_it_is_for_a_convolution(tmp_path):
    model, batch = pictures(), images(1, 3)
    layout = layout_of(model, 4)
    vector, base = random_vector(layout, 0), change(layout, 4)
    swap = Swap(model, layout)
    swap.rebase(base)

    losses, _ = swap.gradients(stack([vector], [4], layout), per_client(batch))

    expected = per_client(batch)(merge(pictures(), layout, vector, base))
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_change_and_adapter_fold_into_one_adapter_of_the_rank_they_need(rank):
    layout = layout_of(pictures(), 2)
    rng, vector = np.random.default_rng(0), random_vector(layout, 1).astype(np.float32)
    shapes = [dense_shape(m) for m in layout.modules]
    steps = [(rng.normal(size=(out, rank)), rng.normal(size=(rank, width))) for out, width in shapes]
    base = Base.pretrained(layout).moved(steps)

    wide, found = base_into_adapter(layout, vector, base.vector)

    total, plain = np.zeros(dense_size(layout), np.float32), np.zeros(dense_size(wide), np.float32)
    for (_, own), (m, change_), (_, sum_) in zip(
        split(layout, base.vector), base.matrices(), split(layout, total), strict=True
    ):
        arrays = layout.arrays(vector)
        a, b = arrays[f"{m.name}.lora_A"], arrays[f"{m.name}.lora_B"]
        sum_[...] = change_ + m.scale * b.reshape(own.shape[0], -1) @ a.reshape(-1, own.shape[1])
    for m, sum_ in split(wide, plain):
        arrays = wide.arrays(found)
        out, width = sum_.shape
        sum_[...] = arrays[f"{m.name}.lora_B"].reshape(out, -1) @ arrays[f"{m.name}.lora_A"].reshape(
            -1, width
        )
    assert wide.rank == rank + 2
    assert {m.scale for m in wide.modules} == {1.0}
    np.testing.assert_allclose(plain, total, rtol=0, atol=1e-5 * np.abs(total).max())


def test_the_saved_adapter_of_a_moved_base_is_the_same_model_in_stock_peft(model, tmp_path):
    from peft import PeftModel

    layout = lora.layout(hub.skeleton(model), R4)
    rng = np.random.default_rng(3)
    steps = [
        (rng.normal(0, 0.1, (m.b_shape[0], 2)), rng.normal(0, 0.1, (2, m.a_shape[1]))) for m in layout.modules
    ]
    base, vector, ids = Base.pretrained(layout).moved(steps), random_start(layout), token_windows(4)

    rank = lora.save(vector, model, R4, tmp_path, base.vector)

    stock = PeftModel.from_pretrained(hub.weights(model), tmp_path).eval()
    tokens = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logits = stock(input_ids=tokens[:, :-1]).logits
    found = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    ).item()
    counts = np.full(4, ids.shape[1] - 1)
    ours = sequential.score(oracle(model, dtype=torch.float32), vector, ids, counts, 4, base.vector)
    assert rank == 6
    assert found == pytest.approx(ours, rel=1e-5)
