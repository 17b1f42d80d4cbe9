"""`python -m benchmarks startup`: from the command to the first finished update, on Ray."""

from __future__ import annotations

from benchmarks.harness import Results, interleaved
from benchmarks.w1 import contestants as who


def run(results: Results) -> None:
    """Time fedsim (a cohort of one, so that its first commit is the first update), and the peers."""
    every = who.contestants(1, results.missing)
    runs: dict[str, who.Contestant] = {"fedsim": who.startup_of_ours()}
    runs |= {name: every[name] for name in ("flower", "pfl") if name in every}
    for start in runs.values():
        start()
    found = interleaved(runs, results.options.counted, results.listen)
    first = {name: [o.first_update_s for o in outcomes] for name, outcomes in found.items()}
    for name, seconds in first.items():
        results.add(f"{name}_s", seconds, "s")
    for name in found.keys() - {"fedsim"}:
        results.ratio(f"{name}_over_us", first[name], first["fedsim"])
    results.about = {"said": {name: who.SAID[name] for name in found}}
