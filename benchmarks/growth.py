"""`python -m benchmarks growth`: how the cost of an update grows with rank, K and width, one thread.

Clients per round is the fourth of these curves; `trivial` measures it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.harness import Results, interleaved, say
from benchmarks.inprocess import Bench, per_update
from benchmarks.w1.world import World

STEPS = 3
"""Local steps of a visit here, against 10 in W1: the curves are about proportions."""
RANKS = (2, 4, 8, 16, 32, 64)
KS = (1, 2, 4, 8, 16, 32, 64)
WIDTHS = (64, 128, 256, 512)
K = 8
W1 = World(steps=STEPS)
SMALL = World(batch=1, sequence=32, steps=STEPS)
NARROW = World(batch=4, steps=STEPS)


def run(results: Results) -> None:
    """Time the three curves, each interleaved."""
    quick = results.options.quick
    every = 3 if quick else 1
    _curve(results, "rank", {r: (replace(W1, r=r), K) for r in RANKS[::every]}, stock=True)
    _curve(results, "k_w1", {k: (W1, k) for k in KS[: 3 if quick else None]}, stock=False)
    _curve(results, "k_small", {k: (SMALL, k) for k in KS[: 3 if quick else None]}, stock=False)
    widths = {w: (replace(NARROW, width=w, heads=w // 32), K) for w in WIDTHS[::every]}
    _curve(results, "width", widths, stock=True)
    results.about = {
        "steps": STEPS,
        "k": K,
        "rank": "W1",
        "k_w1": "W1",
        "k_small": "hidden 128, 4 layers, batch 1, 32 tokens",
        "width": "4 layers, batch 4, 64 tokens",
    }


def _curve(results: Results, name: str, points: dict[int, tuple[World, int]], *, stock: bool) -> None:
    """Time fedsim, and stock PEFT where it depends on the variable, at every point."""
    say(f"  {name}")
    runs = {}
    for x, (world, k) in points.items():
        bench = Bench(world, k, stock=stock)
        runs[f"fedsim.{x}"] = partial(bench.batched, 1)
        if stock:
            runs[f"stock.{x}"] = partial(bench.stock, 2)
    for one in runs.values():
        one()
    found = interleaved(runs, results.options.counted, results.listen)
    for key, seconds in found.items():
        results.add(f"{name}.ms.{key}", per_update(seconds), "ms")
    if stock:
        for x in points:
            results.ratio(f"{name}.stock_over_us.{x}", found[f"stock.{x}"], found[f"fedsim.{x}"])
