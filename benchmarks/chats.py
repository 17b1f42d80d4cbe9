"""`python -m benchmarks chats`: a visit over completions of unequal length, beside stock PEFT that fills up to the longest of each batch.

SmolLM2-135M's shape with random weights, on one thread, in turns. Lengths are lognormal, as those of chats are: most are
short. Both train the same batches from the same adapter with the loss on answers, which is checked.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import CACHE, Results, interleaved, say
from benchmarks.inprocess import Bench, Vector, enough, per_update
from benchmarks.w1 import recipe
from benchmarks.w1.world import World

if TYPE_CHECKING:
    from torch import Tensor

SMOLLM2 = World(
    family="llama", width=576, layers=30, heads=9, kv_heads=3, inner=1536, vocab=49_152, positions=2048, batch=4, sequence=256,
    steps=2, clients=8, cohort=4,
)  # fmt: skip
TINY = World(
    family="llama", width=64, layers=2, heads=4, kv_heads=2, inner=96, batch=2, sequence=32, steps=2, clients=4, cohort=2
)  # fmt: skip
MEDIAN, SIGMA = 0.2, 0.9
"""Of the lengths: the median as a share of `sequence`, and the spread of their logarithm."""
QUESTION = 0.4
"""Share of an example that is the question."""
ROWS = 24
"""Examples of a client."""
KS = (1, 4)
LEAST_S = 2.0
LOSS_APART = 1.0e-3


def run(results: Results) -> None:
    """Time stock PEFT and fedsim on padded and on packed completions."""
    world = TINY if results.options.quick else SMOLLM2
    for pack in (False, True):
        _compare(results, "packed" if pack else "padded", world, pack=pack)
    results.about = {"ks": KS, "world": vars(world), "median": MEDIAN, "sigma": SIGMA, "question": QUESTION}


def _compare(results: Results, name: str, world: World, *, pack: bool) -> None:
    say(f"  {name}")
    benches = {f"k{k}": Chats(world, k, pack=pack, stock=k == KS[-1]) for k in KS}
    reference = benches[f"k{KS[-1]}"]
    move, loss = reference.apart()
    if not pack:  # a packed row is several examples of a stock batch: other batches, other losses
        seen = f"{loss:.1e} nats, {move:.1e} of the largest move"
        results.check(f"{name}: the loss of fedsim is that of stock PEFT", ok=loss <= LOSS_APART, seen=seen)
    least_s = 0.0 if results.options.quick else LEAST_S
    runs = {"stock": partial(reference.stock, enough(partial(reference.stock, 1), 1, least_s))}
    for k, bench in benches.items():
        runs[k] = partial(bench.batched, enough(bench.batched, bench.k, least_s))
    seconds = interleaved(runs, results.options.counted, results.listen)
    for who, each in seconds.items():
        results.add(f"{name}.ms.{who}", per_update(each), "ms")
        if who != "stock":
            results.ratio(f"{name}.stock_over.{who}", seconds["stock"], each)


class Chats(Bench):
    """A world whose data are completions of unequal length; the stock loop fills each batch up to its longest."""

    def __init__(self, world: World, k: int, *, pack: bool, stock: bool) -> None:
        super().__init__(world, k, stock=stock)
        from fedsim.runs import simulation

        task = {
            "kind": "language",
            "model": str(self.folder / "model"),
            "data": str(_data(world, self.folder)),
            "format": "completion",
            "sequence": world.sequence,
            "pack": pack,
            "generate": {"shown": 0},
        }
        local = {"optimizer": "adamw", "lr": recipe.LR, "epochs": 1, "batch": world.batch}
        blocks = {"task": task, "local": local}
        self.experiment = world.experiment(self.folder, numerics=self.experiment.numerics, **blocks)
        self.task = simulation.prepared(self.experiment).task

    def stock(self, clients: int) -> float:
        """Train clients one by one with stock PEFT; returns seconds per client update."""
        started = time.perf_counter()
        for client in range(clients):
            recipe.write(self.parameters, self.schedule.initial)
            self.stock_loss = self._trained(client % self.world.clients)
            self.stock_end: Vector = recipe.read(self.parameters)
        return (time.perf_counter() - started) / clients

    def _trained(self, client: int) -> float:
        import torch

        from fedsim.jobs import Job
        from fedsim.training import local

        optimizer = torch.optim.AdamW(self.parameters, lr=recipe.LR, weight_decay=0.0)
        rows = self.task.dealt.sequences[self.task.splits.training[client]]
        job = Job(client, 0, None, self.experiment.local, self.experiment.seed)
        total = tokens = 0.0
        for picked in local.batches(len(rows), job):
            part = rows[picked]
            ids, labels, mask = _stock_batch(part.tokens, part.learned, part.lengths)
            optimizer.zero_grad(set_to_none=True)
            value = self.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
            value.backward()
            optimizer.step()
            total, tokens = (
                total + float(value.detach()) * int(part.answers.sum()),
                tokens + int(part.answers.sum()),
            )
        return total / tokens


def _stock_batch(
    tokens: np.ndarray, learned: np.ndarray, lengths: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, labels (-100: not learned) and attention mask, (rows, longest), as data collators make them."""
    import torch

    ids, labels = (np.full((len(lengths), int(lengths.max())), fill) for fill in (0, -100))
    ends = np.cumsum(lengths)
    for row, (length, end) in enumerate(zip(lengths.tolist(), ends.tolist(), strict=True)):
        own, of_answer = tokens[end - length : end].astype(np.int64), learned[end - length : end]
        ids[row, :length], labels[row, :length] = own, np.where(of_answer, own, -100)
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    return torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(mask.astype(np.int64))


def _data(world: World, folder: Path) -> Path:
    """Write completions of lognormal lengths, and return their file."""
    path = CACHE / f"completions-{folder.name}.jsonl"
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(world.clients * ROWS * 10 // 8):
        length = int(np.clip(rng.lognormal(math.log(MEDIAN * world.sequence), SIGMA), 6, world.sequence - 1))
        words = [f"w{word}" for word in rng.integers(2, world.vocab, length)]
        at = max(1, round(QUESTION * length))
        row = {"prompt": " ".join(words[:at]), "completion": " " + " ".join(words[at:])}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path
