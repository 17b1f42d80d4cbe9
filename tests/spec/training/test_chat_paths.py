"""Chats: rows of unequal length, padded and packed, by every path against stock PEFT, one example at a time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracles.fused_oracle import VOCAB, gap, perturbed
from worlds.decoders import WRITTEN_OUT, small_gpt2, small_llama, widen_norms

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError
from fedsim.jobs import Job
from fedsim.training import lora, sequential
from fedsim.training.backbone import Stack
from fedsim.training.chats import scores, stock
from fedsim.training.chats.batch import Batch, apart
from fedsim.training.chats.feed import Chats
from fedsim.training.chats.sequences import Sequences, joined
from fedsim.training.fused import attention, fused
from fedsim.training.stacked import batched
from fedsim.training.stacked.swapped import Swapped

MOST = 20
R2 = LoraConfig(r=2, alpha=4.0, targets="all-linear")
LOCAL = LocalConfig(optimizer="sgd", lr=0.05, epochs=1, batch=3, clip_norm=None)


def example(length, seed):
    """Random tokens, and which of them are learned: a run behind the first third."""
    ids = np.random.default_rng(seed).integers(0, VOCAB, length)
    return ids, np.arange(length) > length // 3


def sequences(*rows):
    """Rows, each a list of examples."""
    flat = [e for row in rows for e in row]
    return Sequences(
        np.concatenate([ids for ids, _ in flat]),
        np.concatenate([learned for _, learned in flat]),
        np.concatenate([np.arange(len(ids), dtype=np.int32) for ids, _ in flat]),
        np.cumsum([sum(len(ids) for ids, _ in row) for row in rows]),
        MOST,
    )


PADDED = [[example(n, s)] for s, n in enumerate((5, 12, 9))]
PACKED = [[example(4, 7), example(6, 8), example(3, 9)], [example(5, 10), example(7, 11)]]


def batch_of(clients):
    """The rows of several clients, equally many each, as one batch."""
    grids = [rows.grid(MOST) for rows in clients]
    tokens, learned, places = (torch.from_numpy(np.stack(part)) for part in zip(*grids, strict=True))
    return Batch(tokens, learned, places if any(rows.packed for rows in clients) else None)


class Oracle:
    """Stock Hugging Face model and stock PEFT, one example after the other, no padding, no packing."""

    def __init__(self, model, factors, scales):
        self.layout = lora.layout(model, R2)
        self.trainee = lora.Trainee(copy.deepcopy(model), self.layout, R2)
        for p, value in zip(self.trainee.parameters, self.trainee.split(factors), strict=True):
            p.data = value.clone()
        for m, scale in zip(self.layout.modules, scales, strict=True):
            self.trainee.model.base_model.model.get_submodule(m.name).scaling["default"] = float(scale)

    def summed(self, rows):
        """The sum of the losses of the learned tokens of all examples."""
        total = 0.0
        for ids, learned in (e for row in rows for e in row):
            tokens, there = torch.from_numpy(ids), torch.from_numpy(learned)
            logits = self.trainee.model(input_ids=tokens[None]).logits[0, :-1]  # their own loss is in float32
            losses = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
            total = total + losses[there[1:]].sum()
        return total

    def loss_and_gradient(self, rows, weight):
        loss = self.summed(rows) * weight
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in self.trainee.parameters])


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("smollm2", "qwen2")]


@pytest.fixture(params=["gpt2", "smollm3", "gemma3", *SLOW])
def decoder(request, monkeypatch):
    widen_norms(monkeypatch)
    name = request.param
    return perturbed(small_gpt2() if name == "gpt2" else small_llama(**WRITTEN_OUT[name]))


@pytest.mark.parametrize("rows", [PADDED, PACKED], ids=["padded", "packed"])
@pytest.mark.parametrize("path", [fused, Swapped], ids=["fused", "swapped"])
def test_loss_and_gradient_are_the_sums_over_answers_alone_of_stock_peft(decoder, rows, path):
    layout = lora.layout(decoder, R2)
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(2, layout.size, generator=generator, dtype=torch.float64) * 0.1
    scales = torch.tensor([[2.0], [0.7]], dtype=torch.float64).expand(2, len(layout.modules))
    other = [row[::-1] for row in rows[::-1]]
    weights = torch.tensor([[0.11], [0.05]], dtype=torch.float64).expand(2, len(rows))
    batch = batch_of([sequences(*rows), sequences(*other)])

    losses, gradients = path(decoder, layout).gradients(Stack(factors, scales), batch, weights)

    for client, own in enumerate((rows, other)):
        oracle = Oracle(decoder, factors[client], scales[client])
        loss, gradient = oracle.loss_and_gradient(own, float(weights[client, 0]))
        assert float(losses[client]) == pytest.approx(float(loss), rel=1e-9)
        assert gap(gradients[client], gradient) < 1e-8


def test_the_library_s_kernel_keeps_packed_examples_apart_too(decoder, monkeypatch):
    layout = lora.layout(decoder, R2)
    vector = (
        torch.randn(1, layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 0.1
    )
    stack = Stack(vector, torch.full((1, len(layout.modules)), 2.0, dtype=torch.float64))
    weights = torch.full((1, len(PACKED)), 0.1, dtype=torch.float64)
    explicit = fused(decoder, layout).gradients(stack, batch_of([sequences(*PACKED)]), weights)
    monkeypatch.setattr(attention, "EXPLICIT", 4)
    library = fused(decoder, layout).gradients(stack, batch_of([sequences(*PACKED)]), weights)

    assert all(gap(a, b) < 1e-12 for a, b in zip(library, explicit, strict=True))


@pytest.mark.parametrize("rows", [PADDED, PACKED], ids=["padded", "packed"])
def test_a_score_is_the_same_sum_and_counts_the_tokens_that_are_likeliest(decoder, rows):
    layout = lora.layout(decoder, R2)
    vector = np.random.default_rng(3).normal(0, 0.1, layout.size)
    scales = [m.scale for m in layout.modules]
    oracle = Oracle(decoder, torch.from_numpy(vector), scales)
    hits = 0
    for ids, learned in (e for row in rows for e in row):
        likeliest = oracle.trainee.model(input_ids=torch.from_numpy(ids)[None]).logits[0, :-1].argmax(-1)
        hits += int(((likeliest.numpy() == ids[1:]) & learned[1:]).sum())

    for path in (fused, Swapped):
        sums = scores.score(path(decoder, layout), vector, sequences(*rows), 40, None)
        assert sums["nll"] == pytest.approx(float(oracle.summed(rows).detach()), rel=1e-9)
        assert (sums["hits"], sums["tokens"]) == (hits, sum(int(e[1][1:].sum()) for row in rows for e in row))


def test_an_answer_s_loss_by_hand_on_a_uniform_model_is_the_logarithm_of_the_vocabulary():
    model = small_llama()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    sums = scores.score(
        fused(model, lora.layout(model, R2)),
        np.zeros(lora.layout(model, R2).size),
        sequences(*PADDED),
        99,
        None,
    )

    answers = sum(n - n // 3 - 1 for n in (5, 12, 9))
    assert sums["tokens"] == answers
    assert sums["nll"] == pytest.approx(answers * np.log(VOCAB), rel=1e-6)


def test_packed_rows_see_their_own_example_only_and_count_places_in_it():
    rows = sequences(*PACKED)
    grid = rows.grid()
    mask = apart(torch.from_numpy(grid.places), torch.full((16, 16), -torch.inf).triu(1))[0, 0]

    assert grid.places[0, :13].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert (mask[5] == 0).nonzero()[:, 0].tolist() == [4, 5]
    assert (mask[12] == 0).nonzero()[:, 0].tolist() == [10, 11, 12]
    assert not grid.learned[0, [3, 9]].any()  # what an example begins with is not learned from the one before


def test_tokens_answers_and_squares_of_rows_are_counted_without_what_fills_them():
    rows = joined([sequences(*PADDED), sequences(*PACKED)])

    assert rows.counts.tolist() == [4, 11, 8, 12, 11]
    assert rows.answers.tolist() == [3, 7, 5, 2 + 3 + 1, 3 + 4]
    assert rows.squares.tolist() == [16, 121, 64, 16 + 36 + 4, 25 + 36]
    assert rows[np.array([4, 1])].counts.tolist() == [11, 11]
    assert [rows.width(n) for n in (1, 16, 17, 25)] == [16, 16, 20, 25]


def jobs(layout, count, local=LOCAL, **fields):
    start = lora.initial(layout, 0)
    start[:] += np.random.default_rng(5).normal(0, 0.02, start.size).astype(np.float32)
    return [Job(client, 0, start, local, 0, **fields) for client in range(count)]


def clients(packed):
    """Clients of 7, 4 and 5 rows whose lengths all differ."""
    rng = np.random.default_rng(2)
    sizes = ([rng.integers(4, MOST + 1) for _ in range(n)] for n in (7, 4, 5))
    if packed:
        return [
            sequences(*([example(6, 3 * n), example(int(n) // 2 + 2, n)] for n in rows)) for rows in sizes
        ]
    return [sequences(*([example(int(n), 100 + i)] for i, n in enumerate(rows))) for rows in sizes]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("path", [fused, Swapped], ids=["fused", "swapped"])
@pytest.mark.parametrize(
    "build", [pytest.param(small_gpt2, marks=pytest.mark.slow), small_llama], ids=["gpt2", "llama"]
)
def test_visits_of_many_clients_end_where_stock_peft_ends_one_by_one(build, path, packed):
    model = build().eval()
    layout, data = lora.layout(model, R2), clients(packed)
    trainee = lora.Trainee(copy.deepcopy(model), layout, R2)
    asked = jobs(layout, 3)

    together = batched.train(path(model, layout), data, asked, tokens_at_once=64)
    alone = sequential.train(trainee, data, asked)

    for ours, theirs, job in zip(together, alone, asked, strict=True):
        move = np.abs(theirs.end - job.start).max()
        assert np.abs(ours.end - theirs.end).max() < 2e-4 * move
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.square == pytest.approx(theirs.square, rel=1e-5)
        assert (ours.tokens, ours.steps, ours.examples) == (theirs.tokens, theirs.steps, theirs.examples)
    assert [u.tokens for u in together] == [int(rows.counts.sum()) for rows in data]


def test_dropout_is_the_same_alone_and_together():
    model = small_llama().eval()
    layout, data = lora.layout(model, R2), clients(packed=False)
    asked = jobs(layout, 3)

    together = batched.train(fused(model, layout), data, asked, tokens_at_once=999, dropout=0.3)
    alone = sequential.train(lora.Trainee(copy.deepcopy(model), layout, R2), data, asked, dropout=0.3)

    for ours, theirs, job in zip(together, alone, asked, strict=True):
        assert np.abs(ours.end - theirs.end).max() < 2e-4 * np.abs(theirs.end - job.start).max()


def test_a_batch_is_as_long_as_the_longest_of_its_own_rows():
    data = clients(packed=False)
    feed = Chats(data, torch.device("cpu"))
    plan = batched.schedule([len(rows) for rows in data], jobs(lora.layout(small_llama(), R2), 3))

    for step in range(2):
        widths = {int(c): group.width for group in feed.groups(plan, step, 3) for c in group.clients}
        for client, width in widths.items():
            rows = plan.rows[step, client, : plan.lengths[step, client]]
            assert width == min(MOST, -(-int(data[client].counts[rows].max()) // 16) * 16)
    counted = feed.counted(plan)
    assert counted.read.sum(axis=0).tolist() == [int(rows.counts.sum()) for rows in data]
    assert counted.learned.sum(axis=0).tolist() == [int(rows.answers.sum()) for rows in data]


def test_a_model_that_mixes_packed_examples_is_refused(monkeypatch):
    model = small_llama().eval()
    backbone = Swapped(model, lora.layout(model, R2))
    scores.check_apart(backbone, VOCAB, "sound")
    whole = stock._logits
    monkeypatch.setattr(stock, "_logits", lambda model, tokens, _: whole(model, tokens, None))

    with pytest.raises(DataError, match=r"task\.pack: the model cannot keep packed examples apart"):
        scores.check_apart(backbone, VOCAB, "mixing")
