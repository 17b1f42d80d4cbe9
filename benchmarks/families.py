"""`python -m benchmarks families`: a visit of every written-out family, on one thread: written out, swapped, stock PEFT.

All have the sizes of one small model with random weights, so that the families differ by what they compute only. The
three paths train the same batches from the same adapter, which is checked, and take turns.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.harness import Results, interleaved, say
from benchmarks.inprocess import Bench, enough, per_update
from benchmarks.w1.world import ROTARY, World

SMALL = World(
    width=256,
    layers=6,
    heads=4,
    kv_heads=2,
    inner=768,
    vocab=4096,
    positions=256,
    window=32,
    batch=4,
    sequence=64,
    steps=4,
    clients=16,
    cohort=8,
)
TINY = replace(SMALL, width=64, layers=2, inner=96, vocab=1024, batch=1, sequence=16, window=8, steps=2)
"""A stand-in for a trial."""
FAMILIES = ("gpt2", *ROTARY)
K = 8
"""Clients of a batch."""
LEAST_S = 1.0
"""Least length of one timed run [s]."""
LOSS_APART = 1.0e-3
"""Between fedsim and stock training, mean loss of a visit [nats]."""


def run(results: Results) -> None:
    """Time the three paths on every family."""
    world = TINY if results.options.quick else SMALL
    for family in FAMILIES:
        _compare(results, family, replace(world, family=family))
    results.about = {"k": K, "world": vars(world), "families": FAMILIES}


def _compare(results: Results, family: str, world: World) -> None:
    say(f"  {family}")
    stock = Bench(world, K)
    move, loss = stock.apart()
    results.check(
        f"{family}: the loss of fedsim is that of stock PEFT to {LOSS_APART:g} nats",
        ok=loss <= LOSS_APART,
        seen=f"{loss:.1e} nats, {move:.1e} of the largest move",
    )
    swapped = Bench(world, K, training="swapped", stock=False)
    least_s = 0.0 if results.options.quick else LEAST_S
    runs = {
        "stock": partial(stock.stock, enough(partial(stock.stock, 1), 1, least_s)),
        "swapped": partial(swapped.batched, enough(swapped.batched, K, least_s)),
        "fused": partial(stock.batched, enough(stock.batched, K, least_s)),
    }
    found = interleaved(runs, results.options.counted, results.listen)
    for who, seconds in found.items():
        results.add(f"{family}.ms.{who}", per_update(seconds), "ms")
        if who != "stock":
            results.ratio(f"{family}.stock_over.{who}", found["stock"], seconds)
