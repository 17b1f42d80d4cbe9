"""Frozen hidden states that are kept, and the clients that a GPU holds."""

from __future__ import annotations

import numpy as np
import pytest

from fedsim.adapter import Layout, Module
from fedsim.cost import ModelShape, train_memory_bytes
from fedsim.errors import ExperimentError
from fedsim.experiment import LocalConfig, LoraConfig, NumericsConfig
from fedsim.jobs import Job, TaskContext
from fedsim.tasks.language import Language
from fedsim.training import hub, lora, room
from fedsim.training.prefix import Prefix


class Counting:
    """A backbone whose frozen states are the tokens themselves, and that counts who asks."""

    device, prefix_layers = "cpu", 1

    def __init__(self):
        self.asked = 0

    def frozen_prefix(self, tokens):
        self.asked += 1
        return tokens[:, :-1, None].float()


def windows(n, seed=0):
    return np.random.default_rng(seed).integers(0, 9, (n, 5)).astype(np.uint16)


def test_the_same_windows_are_computed_once_and_others_apart():
    backbone = Counting()
    prefix = Prefix(backbone, room_bytes=1e6)

    first, again, other = (prefix.states(w) for w in (windows(3), windows(3), windows(3, seed=1)))

    assert backbone.asked == 2
    assert again is first
    assert first[..., 0].tolist() == windows(3)[:, :-1].tolist()
    assert other.tolist() != first.tolist()


def test_the_room_is_kept_by_forgetting_what_was_used_longest_ago():
    backbone = Counting()
    prefix = Prefix(backbone, room_bytes=2 * 3 * 4 * 4)  # two clients of 3 windows, 4 floats of 4 bytes each
    a, b, c = (windows(3, seed=s) for s in range(3))

    for own in (a, b, a, c):
        prefix.states(own)
    assert prefix.kept_bytes == 96
    prefix.states(a)
    assert backbone.asked == 3  # a, b, c; a was used after b, so b went
    prefix.states(b)
    assert backbone.asked == 4


def test_without_room_nothing_is_kept_and_nothing_else_changes():
    backbone = Counting()
    prefix = Prefix(backbone, room_bytes=0)

    assert prefix.states(windows(2)).tolist() == prefix.states(windows(2)).tolist()
    assert (backbone.asked, prefix.kept_bytes) == (2, 0)


def upper(llama, text_folder, cache_bytes, training="auto"):
    last = hub.config(llama).num_hidden_layers - 1
    names = tuple(f"model.layers.{last}.{leaf}" for leaf in ("self_attn.q_proj", "mlp.down_proj"))
    adapters = LoraConfig(r=4, targets=names)
    context = TaskContext(6, 0, adapters, LocalConfig(), NumericsConfig(training=training), cache_bytes)
    return Language(model=llama, data=str(text_folder), sequence=16).build(context)


def test_kept_states_change_no_bit_of_a_visit_and_agree_with_stock_peft(llama, text_folder):
    kept, fresh = upper(llama, text_folder, 1e9), upper(llama, text_folder, 0.0)
    oracle = upper(llama, text_folder, 0.0, "sequential")
    local = LocalConfig(optimizer="sgd", lr=0.5, epochs=2, batch=4)
    jobs = [Job(c, 0, kept.initial(), local, 0) for c in range(3)]
    assert lora.backbone(llama, kept.lora, "auto").prefix_layers > 0

    first, second, third = kept.train(jobs), kept.train(jobs), fresh.train(jobs[::-1])[::-1]
    stock = oracle.train(jobs)

    for a, b, c, peft in zip(first, second, third, stock, strict=True):
        assert a.end.tobytes() == b.end.tobytes() == c.end.tobytes()
        move = np.abs(peft.end - jobs[0].start).max()
        assert np.abs(a.end - peft.end).max() < 1e-4 * move
        assert a.loss == pytest.approx(peft.loss, rel=1e-5)


def test_a_visit_that_sees_less_than_its_shard_computes_no_more_than_its_batches(llama, text_folder):
    task = upper(llama, text_folder, 1e9)
    short = LocalConfig(steps=1, batch=1)
    data = [task.shards.windows.tokens[task.shards.training[0]]]
    job = Job(0, 0, task.initial(), short, 0)

    assert len(data[0]) > 1
    assert task._hidden(Counting(), data, [job]) is None


SHAPE = ModelShape(
    name="m",
    layers=2,
    width=8,
    vocab=16,
    params=1000,
    matmul_params=800,
    adapter_params=100,
    sequence=10,
    batch=4,
)
LAYOUT = Layout((Module("m", 5, (5, 10), (10, 5), 1.0),))


def test_the_clients_that_fit_are_what_vectors_fill_beside_weights_and_activations():
    weights = 1000 * SHAPE.weight_bytes
    activations = (train_memory_bytes(SHAPE) - weights) * 80 / 40  # two visits' worth of tokens at once
    free = (weights + activations + 7.5 * 4 * 5 * 100) / 0.8

    assert room.clients_that_fit(SHAPE, LAYOUT, 80, free) == 7
    assert room.clients_that_fit(SHAPE, LAYOUT, 80, 0.0) == 1
    assert room.clients_that_fit(SHAPE, LAYOUT, 80, 1e15) == room.MOST


def test_a_gpu_that_this_process_cannot_see_is_not_guessed():
    import torch

    if torch.cuda.is_available():
        assert room.free_bytes(0.5) <= room.free_bytes(1.0)
        return
    with pytest.raises(ExperimentError, match="client_batch: auto asks a GPU for its memory"):
        room.free_bytes(1.0)


@pytest.mark.parametrize(
    ("variable", "gpus", "there"), [("", 0.0, False), ("cuda", 0.0, True), ("", 0.25, True)]
)
def test_a_worker_trains_on_a_gpu_if_it_reserves_one_or_is_told_to(monkeypatch, variable, gpus, there):
    monkeypatch.setenv("FEDSIM_DEVICE", variable or "cpu")

    assert room.on_gpu(gpus) is there
