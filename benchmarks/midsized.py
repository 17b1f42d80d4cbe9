"""`python -m benchmarks midsized`: the models that people use, with random weights, on one thread: fused and batched against stock PEFT.

GPT-2 small's and SmolLM2-135M's shapes. A visit is a few AdamW steps; the time of a token is that of a visit over its
tokens. Stock PEFT and every K train the same batches from the same adapter, which is checked.
"""

from __future__ import annotations

from benchmarks.harness import Results, say
from benchmarks.inprocess import Bench, per_update, stock_and_batches
from benchmarks.w1.world import World

SHAPES = {
    "gpt2_small": World(
        width=768,
        layers=12,
        heads=12,
        vocab=50_257,
        positions=1024,
        batch=4,
        sequence=128,
        steps=2,
        clients=8,
        cohort=4,
    ),
    "smollm2_135m": World(
        family="llama",
        width=576,
        layers=30,
        heads=9,
        kv_heads=3,
        inner=1536,
        vocab=49_152,
        positions=2048,
        batch=4,
        sequence=128,
        steps=2,
        clients=8,
        cohort=4,
    ),
}
TINY = {
    "gpt2_small": World(width=64, layers=2, batch=1, sequence=16, steps=2, clients=4, cohort=2),
    "smollm2_135m": World(
        family="llama",
        width=64,
        layers=2,
        heads=4,
        kv_heads=2,
        inner=96,
        batch=1,
        sequence=16,
        steps=2,
        clients=4,
        cohort=2,
    ),
}
"""Stand-ins for a trial."""
KS = (1, 2, 4)
LEAST_S = 2.0
"""Least length of one timed run [s]."""
LOSS_APART = 1.0e-3
"""Between fedsim and stock training, mean loss of a visit [nats]."""


def run(results: Results) -> None:
    """Time stock PEFT and every K on both shapes."""
    quick = results.options.quick
    worlds, ks = (TINY, KS[:2]) if quick else (SHAPES, KS)
    for name, world in worlds.items():
        _compare(results, name, world, ks)
    results.about = {"ks": ks, "worlds": {name: vars(world) for name, world in worlds.items()}}


def _compare(results: Results, name: str, world: World, ks: tuple[int, ...]) -> None:
    say(f"  {name}")
    reference = Bench(world, ks[-1])
    move, loss = reference.apart()
    results.check(
        f"{name}: the loss of fedsim is that of stock PEFT to {LOSS_APART:g} nats",
        ok=loss <= LOSS_APART,
        seen=f"{loss:.1e} nats, {move:.1e} of the largest move",
    )
    found = stock_and_batches(results, reference, ks, LEAST_S)
    tokens = world.steps * world.batch * world.sequence
    for who, seconds in found.items():
        results.add(f"{name}.ms.{who}", per_update(seconds), "ms")
        results.add(f"{name}.us_per_token.{who}", [1e6 * s / tokens for s in seconds], "us")
        if who != "stock":
            results.ratio(f"{name}.stock_over.{who}", found["stock"], seconds)
