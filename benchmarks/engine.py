"""`python -m benchmarks engine`: how fast and in how much memory the clock goes on with nothing to train, up to a million clients.

Every timeline is a process of its own, so that its peak of memory (VmHWM) is its own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import engine_run
from benchmarks.harness import Results, interleaved, say
from benchmarks.processes import told

SIZES = (10_000, 100_000, 1_000_000)
DAY_S = 86_400.0
MOST_S, MOST_MIB, ROUND_S = 180.0, 2048.0, 0.5
"""A virtual day of a million clients takes at most so long and so much; a round of 10,000 of them is planned in so long."""
FAR = {"batteries": 3600.0, "max-min": 7200.0}
"""Virtual seconds of what takes longer."""


def run(results: Results) -> None:
    """Time every world at every size."""
    quick = results.options.quick
    sizes = SIZES[:1] if quick else SIZES
    runs = {
        f"{world}.{clients}": partial(
            told,
            Path(engine_run.__file__),
            *("--world", world, "--clients", str(clients)),
            *("--time-s", str(600.0 if quick else FAR.get(world, DAY_S))),
        )
        for world in engine_run.WORLDS
        for clients in sizes
    }
    found = interleaved(runs, results.options.counted, results.listen)
    for key, outcomes in found.items():
        world, _, _ = key.partition(".")
        say(f"  {key}: {outcomes[-1]}")
        if world == "round":
            results.add(f"{key}.planned_s", [o["planned_s"] for o in outcomes], "s")
            continue
        results.add(f"{key}.wall_s", [o["wall_s"] for o in outcomes], "s")
        results.add(f"{key}.visits_per_s", [o["visits"] / o["loop_s"] for o in outcomes], "visits/s")
        results.add(f"{key}.events_per_s", [o["events"] / o["loop_s"] for o in outcomes], "events/s")
        results.add(f"{key}.peak_mib", [o["peak_mib"] for o in outcomes], "MiB")
        results.add(f"us_per_visit.{key}", [1e6 * o["loop_cpu_s"] / o["visits"] for o in outcomes], "us")
        results.add(f"mib.{key}", [o["peak_mib"] for o in outcomes], "MiB")
    if not quick:
        _check(results)
    worlds = [world for world in engine_run.WORLDS if world != "round"]
    results.about = {
        "sizes": list(sizes),
        "worlds": worlds,
        "share": engine_run.SHARE,
        "day_s": DAY_S,
        "far_s": FAR,
    }


def _check(results: Results) -> None:
    """Hold a million clients against what is promised."""
    million = f"engine.charging.{SIZES[-1]}"
    wall_s, peak_mib = (results.values[f"{million}.{name}"]["median"] for name in ("wall_s", "peak_mib"))
    planned_s = results.values[f"engine.round.{SIZES[-1]}.planned_s"]["median"]
    results.check(f"a virtual day within {MOST_S:.0f} s", ok=wall_s <= MOST_S, seen=f"{wall_s:.0f} s")
    results.check(f"in at most {MOST_MIB:.0f} MiB", ok=peak_mib <= MOST_MIB, seen=f"{peak_mib:.0f} MiB")
    what = f"a round of 10,000 of a million planned within {ROUND_S} s"
    results.check(what, ok=planned_s <= ROUND_S, seen=f"{planned_s:.2f} s")
