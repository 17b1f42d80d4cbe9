"""`python -m benchmarks w1`: whole runs of W1, all contestants interleaved in one sitting."""

from __future__ import annotations

import statistics

from benchmarks import processes
from benchmarks.harness import Results, interleaved, say
from benchmarks.w1 import contestants as who
from benchmarks.w1.world import World

TOLERANCE = 1.0e-5
"""Between the checksums of two contestants, relative: AdamW amplifies the last bits of tiny gradients."""


def run(results: Results) -> None:
    """Time all contestants on W1."""
    rounds = 2 if results.options.quick else who.ROUNDS
    cohort = World().cohort
    runs = {}
    warming = who.contestants(2, results.missing)
    for name, start in who.contestants(rounds, {}).items():
        try:
            warm = warming[name]()  # fills the page cache; its figures are dropped
        except processes.Failed as problem:
            processes.tried(name, results.missing, problem)
            continue
        say(f"  warm-up {name}: {1e3 * statistics.mean(warm.rounds_s) / cohort:.0f} ms")
        runs[name] = start
    found = interleaved(runs, results.options.counted, results.listen)
    ms = {name: [1e3 * statistics.mean(o.rounds_s) / cohort for o in all_] for name, all_ in found.items()}
    for name, outcomes in found.items():
        results.add(f"ms.{name}", ms[name], "ms")
        results.add(f"first_update_s.{name}", [o.first_update_s for o in outcomes], "s")
        results.add(f"whole_run_s.{name}", [o.wall_s for o in outcomes], "s")
        results.add(f"checksum.{name}", [o.checksum for o in outcomes], "1")
        results.add(f"last_loss.{name}", [o.losses[-1] for o in outcomes], "nats")
    results.ratio("ratio_to_floor", ms[who.US], ms[who.FLOOR])
    results.ratio("sequential_over_us", ms["fedsim_sequential"], ms[who.US])
    for peer in ("flower", "pfl"):
        if peer in ms:
            results.ratio(f"{peer}_over_us", ms[peer], ms[who.US])
            results.ratio(f"{peer}_over_floor", ms[peer], ms[who.FLOOR])
    floor = found[who.FLOOR][0].checksum
    sums = {name: outcomes[0].checksum for name, outcomes in found.items()}
    apart = {name: abs(value / floor - 1) for name, value in sums.items()}
    worst = max(apart, key=lambda name: apart[name])
    results.check(
        f"after {rounds} rounds all contestants hold the same adapter: sum|adapter| agrees to {TOLERANCE:g}",
        ok=apart[worst] <= TOLERANCE,
        seen=f"{floor:.4f}; furthest {worst}: {apart[worst]:.1e} away",
    )
    same = all(
        len({o.checksum for o in outcomes}) == 1 for name, outcomes in found.items() if "fedsim" in name
    )
    results.check("fedsim's runs are equal to the bit", ok=same, seen=f"{results.options.counted} runs each")
    results.about = {
        "rounds": rounds,
        "updates_a_round": cohort,
        "said": {name: who.SAID[name] for name in found},
        "adapter_floats": 45_056,
    }
