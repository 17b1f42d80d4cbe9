"""Frozen hidden states that are kept, and the clients that a GPU holds."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.client_batches import agree

from fedsim.adapters.adapter import Layout, Module
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.shape import ModelShape
from fedsim.errors import ExperimentError
from fedsim.jobs import Job, TaskContext
from fedsim.tasks.language import Language
from fedsim.training import gpu_room as room
from fedsim.training import hub, lora
from fedsim.training.stacked import batched
from fedsim.training.stacked import frozen_prefix as prefix
from fedsim.training.stacked.frozen_prefix import Prefix


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
    kept = Prefix(backbone, room_bytes=1e6)

    first, again, other = (kept.states(w) for w in (windows(3), windows(3), windows(3, seed=1)))

    assert backbone.asked == 2
    assert again is first
    assert first[..., 0].tolist() == windows(3)[:, :-1].tolist()
    assert other.tolist() != first.tolist()


def test_the_room_is_kept_by_forgetting_what_was_used_longest_ago():
    backbone = Counting()
    kept = Prefix(backbone, room_bytes=2 * 3 * 4 * 4)  # two clients of 3 windows, 4 floats of 4 bytes each
    a, b, c = (windows(3, seed=s) for s in range(3))

    for own in (a, b, a, c):
        kept.states(own)
    assert kept.kept_bytes == 96
    kept.states(a)
    assert backbone.asked == 3  # a, b, c; a was used after b, so b went
    kept.states(b)
    assert backbone.asked == 4


def test_without_room_nothing_is_kept_and_nothing_else_changes():
    backbone = Counting()
    kept = Prefix(backbone, room_bytes=0)

    assert kept.states(windows(2)).tolist() == kept.states(windows(2)).tolist()
    assert (backbone.asked, kept.kept_bytes) == (2, 0)


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

    agree(third, first, jobs)
    for a, b, peft in zip(first, second, stock, strict=True):
        assert a.end.tobytes() == b.end.tobytes()
        move = np.abs(peft.end - jobs[0].start).max()
        assert np.abs(a.end - peft.end).max() < 1e-4 * move
        assert a.loss == pytest.approx(peft.loss, rel=1e-5)


def test_a_visit_that_sees_less_than_its_shard_computes_no_more_than_its_batches(llama, text_folder):
    task = upper(llama, text_folder, 1e9)
    short, whole = LocalConfig(steps=1, batch=1), LocalConfig(batch=4)
    data = [task.windows.tokens[task.splits.training[client]] for client in range(3)]
    jobs = [Job(c, 0, task.initial(), local, 0) for c, local in enumerate((whole, short, whole))]

    assert len(data[1]) > 1
    assert task.text_model.state_sizes(Counting(), data, jobs) == [
        len(data[0]) * 16 * 32,
        None,
        len(data[2]) * 16 * 32,
    ]


def told(monkeypatch):
    """Note, at each call of the training loop, its clients and whether they are given their states."""
    found, train = [], batched.train

    def noted(backbone, data, jobs, *, hidden, **how):
        found.append(([job.client for job in jobs], hidden is not None))
        return train(backbone, data, jobs, hidden=hidden, **how)

    monkeypatch.setattr(batched, "train", noted)
    return found


def test_neither_short_visits_nor_large_shards_beside_it_change_how_a_client_is_trained(
    llama, text_folder, monkeypatch
):
    task = upper(llama, text_folder, 0.0)
    sgd = LocalConfig(optimizer="sgd", lr=0.5, batch=4)  # AdamW would lift the rounding of a zero to a step
    whole, short = sgd, sgd.model_copy(update={"epochs": None, "steps": 1})
    jobs = [Job(c, 0, task.initial(), short if c == 2 else whole, 0) for c in range(6)]
    own = [task.examples(c) * 16 * 32 for c in range(6)]
    largest = max((c for c in range(6) if c != 2), key=lambda c: own[c])
    bound = max(own[c] for c in range(6) if c not in (2, largest))
    assert own[largest] > bound
    monkeypatch.setitem(prefix.HELD, "cpu", bound)
    calls = told(monkeypatch)

    together = task.train(jobs)

    assert {c: given for clients, given in calls for c in clients} == {
        c: c not in (2, largest) for c in range(6)
    }
    alone = [task.train([job])[0] for job in jobs]
    agree(together, alone, jobs)


def test_the_states_of_one_call_hold_no_more_than_their_bound_and_the_bound_rounds_at_most(
    llama, text_folder, monkeypatch
):
    task = upper(llama, text_folder, 0.0)
    local = LocalConfig(optimizer="sgd", lr=0.5, batch=4)
    jobs = [Job(c, 0, task.initial(), local, 0) for c in range(6)]
    alive, most, states = weakref.WeakSet(), [], Prefix.states

    def counted(self, windows, *others):
        found = states(self, windows, *others)
        alive.add(found)
        most.append(sum(one.numel() for one in alive))
        return found

    monkeypatch.setattr(Prefix, "states", counted)
    calls = told(monkeypatch)
    expected = task.train(jobs)
    assert calls == [([0, 1, 2, 3, 4, 5], True)]
    bound = max(task.examples(c) for c in range(6)) * 16 * 32 * 2
    assert max(most) > bound
    assert not alive
    calls.clear(), most.clear()
    monkeypatch.setitem(prefix.HELD, "cpu", bound)

    found = task.train(jobs)

    assert len(calls) > 1
    assert [given for _, given in calls] == [True] * len(calls)
    assert max(most) <= bound
    agree(found, expected, jobs)


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.none() | st.integers(1, 20), max_size=12), most=st.integers(1, 15))
def test_groups_cover_a_call_once_and_a_client_s_own_size_decides_whether_it_is_given_states(sizes, most):
    found = prefix.groups(sizes, most)

    assert sorted(c for clients, _ in found for c in clients) == list(range(len(sizes)))
    for clients, given_ in found:
        assert clients == sorted(clients)
        assert all((sizes[c] is not None and sizes[c] <= most) == given_ for c in clients)
        assert not given_ or sum(sizes[c] for c in clients) <= most
    assert [given_ for _, given_ in found].count(False) <= 1


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
