"""`python -m benchmarks startup`: from the command to the first finished update, to a timeline's first event, to the help.

Beside the seconds, which a busy machine stretches, stand the CPU seconds of the whole process tree, and the heavy
libraries that a driver has imported when its first event is there.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks import processes
from benchmarks.harness import CACHE, Results, interleaved
from benchmarks.w1 import contestants as who

FIRST_EVENT = Path(__file__).parent / "w1" / "first_event.py"


def run(results: Results) -> None:
    """Time fedsim (a cohort of one, so that its first commit is the first update), and the peers."""
    every = who.contestants(1, results.missing)
    runs: dict[str, who.Contestant] = {
        "fedsim": who.startup_of_ours(),
        "inline": who.startup_of_ours("inline"),
    }
    runs["timeline"] = _first_event()
    runs |= {name: every[name] for name in ("flower", "pfl") if name in every}
    for start in runs.values():
        start()
    found = interleaved(runs, results.options.counted, results.listen)
    first = {name: [o.first_update_s for o in outcomes] for name, outcomes in found.items()}
    for name, seconds in first.items():
        results.add(f"{name}_s", seconds, "s")
        results.add(f"{name}_cpu_s", [o.cpu_s for o in found[name]], "s")
    for name in found.keys() & {"flower", "pfl"}:
        results.ratio(f"{name}_over_us", first[name], first["fedsim"])
    results.add("help_s", [_help_s() for _ in range(1 + results.options.counted)][1:], "s")
    results.about = {"said": {name: who.SAID.get(name, name) for name in found}}


def _first_event() -> who.Contestant:
    """Return a timeline of the built-in task that is stopped at its first event."""
    command = processes.ours(FIRST_EVENT)
    return lambda **options: processes.run("first_event", command, **options)


def _help_s() -> float:
    """Return how long `fedsim --help` takes [s]."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "fedsim", "--help"], check=True, capture_output=True, cwd=CACHE.parent.parent
    )
    return time.perf_counter() - began
