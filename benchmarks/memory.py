"""`python -m benchmarks memory`: memory of the whole process tree, and its growth with the population.

Proportional set size: pages shared by k processes count 1/k in each, so the sum over the tree is what
the machine really holds. Ray's own processes are in it, what is mapped of its object store too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import processes
from benchmarks.harness import CACHE, Results, interleaved
from benchmarks.w1 import contestants as who
from benchmarks.w1.world import World, made

FEW, MANY = 100, 10_000


def run(results: Results) -> None:
    """Weigh every contestant of W1, fedsim each time, then fedsim with few and with many virtual clients."""
    quick, counted = results.options.quick, results.options.counted
    weights: dict[str, list[float]] = {}
    starts = who.contestants(2 if quick else 3, results.missing)
    starts.pop("fedsim_sequential", None)  # the same program
    for repetition in range(counted):
        for name, start in starts.items():
            if repetition and name != who.US:
                continue
            results.listen()
            try:
                weights.setdefault(name, []).append(start(weigh=True).peak_pss_mib)
            except processes.Failed as problem:
                processes.tried(name, results.missing, problem)
    for name, found_mib in weights.items():
        if found_mib:
            results.add(f"w1_mib.{name}", found_mib, "MiB")
    counts = {count: partial(_population, count, quick=quick) for count in (FEW, MANY)}
    found = interleaved({str(k): v for k, v in counts.items()}, counted, results.listen)
    peaks = {count: [o.peak_pss_mib for o in found[str(count)]] for count in (FEW, MANY)}
    for count in (FEW, MANY):
        results.add(f"clients_{count}_mib", peaks[count], "MiB")
    results.add("growth_mib", [b - a for a, b in zip(peaks[FEW], peaks[MANY], strict=True)], "MiB")
    results.about = {"said": who.SAID, "few": FEW, "many": MANY}


def _population(clients: int, *, quick: bool) -> processes.Outcome:
    """Run W1 on Ray with two workers and that many clients, each with a text of its own length."""
    world = World(clients=MANY, width=64, layers=2, sequence=32, batch=2, steps=1)
    folder = made(world, CACHE, 2, windows=4).resolve()
    script = Path(who.__file__).parent / "fedsim_run.py"
    options = ["--world", str(folder), "--rounds", "2" if quick else "4", "--clients", str(clients)]
    command = processes.ours(script, *options)
    return processes.run(f"clients_{clients}", command, weigh=True)
