"""`python -m benchmarks small`: client batches against stock PEFT one by one, one thread, one process."""

from __future__ import annotations

from benchmarks.harness import Results, say
from benchmarks.inprocess import Bench, per_update, stock_and_batches
from benchmarks.w1.world import World

GOAL = World(width=128, layers=4, batch=1, sequence=32)
"""The small client of the goals."""
KS = (1, 2, 4, 8, 10, 16, 32, 64)
GRID = (
    World(width=64, layers=2, batch=1, sequence=16),
    World(width=64, layers=2, batch=2, sequence=32),
    World(width=128, layers=4, batch=2, sequence=64),
    World(steps=4),
    World(width=256, layers=4, batch=4, sequence=64, steps=4),
    World(width=512, layers=6, heads=8, batch=2, sequence=64, steps=4),
)
"""Other sizes; the larger ones with four steps a visit instead of ten, to take less time."""
GRID_KS = (1, 10, 32)
BIG = 16_384
"""Floats of a client's activations (batch x tokens x hidden size) above which K = 32 is left out."""
LEAST_S = 0.4
"""Least length of one timed run [s]."""
LOSS_APART = 1.0e-3
"""Between batched and stock training, mean loss of a visit [nats]."""


def key(world: World) -> str:
    """Return a world's name in the results: `d128_l4_b1_t32`."""
    return f"d{world.width}_l{world.layers}_b{world.batch}_t{world.sequence}"


def run(results: Results) -> None:
    """Time the goal's small client at every K, then the grid."""
    quick = results.options.quick
    worlds = (GOAL,) if quick else (GOAL, *GRID)
    for world in worlds:
        big = world.batch * world.sequence * world.width > BIG
        ks = (KS if world is GOAL else GRID_KS[: -1 if big else None])[:: 4 if quick else 1]
        compare(results, world, ks)
    results.about = {"goal": key(GOAL), "grid": [key(w) for w in worlds], "ks": KS}


def compare(results: Results, world: World, ks: tuple[int, ...]) -> None:
    """Time stock PEFT and every K on one world, interleaved, and check that they compute the same."""
    say(f"  {key(world)}")
    reference = Bench(world, ks[-1])
    move, loss = reference.apart()
    results.check(
        f"{key(world)}: batched training of {ks[-1]} ends with the loss of stock PEFT to {LOSS_APART:g} nats",
        ok=loss <= LOSS_APART,
        seen=f"{loss:.1e} nats, {move:.1e} of the largest move",
    )
    found = stock_and_batches(results, reference, ks, LEAST_S)
    for name, seconds in found.items():
        results.add(f"{key(world)}.ms.{name}", per_update(seconds), "ms")
        if name != "stock":
            results.ratio(f"{key(world)}.stock_over.{name}", found["stock"], seconds)
