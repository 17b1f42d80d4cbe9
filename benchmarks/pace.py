"""`python -m benchmarks pace`: virtual hours in a real hour of whole runs, and where the real time goes.

The two runs of `fedsim demo`, with Ray and in one process, and two virtual hours of the Penn Treebank under FedBuff where its
text and model lie in `data/ptb` and `data/models/stories260K`. From the command to the end of the process, report included.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import pace_run
from benchmarks.harness import Results, interleaved, say
from benchmarks.processes import told

NEEDS = ("data/ptb/ptb.train.txt", "data/models/stories260K/config.json")


def run(results: Results) -> None:
    """Time every run, in turns."""
    there = all((pace_run.ROOT / need).is_file() for need in NEEDS)
    if not there:
        results.missing[pace_run.PTB] = f"{' and '.join(NEEDS)} are not there"
    demo, ptb = pace_run.DEMO, [pace_run.PTB] if there else []
    names = demo[:1] if results.options.quick else (*demo, *ptb)
    executors = ("inline",) if results.options.quick else ("inline", "ray")
    runs = {
        f"{name}.{how}": partial(told, Path(pace_run.__file__), name, "--executor", how)
        for name in names
        for how in executors
    }
    found = interleaved(runs, results.options.counted, results.listen)
    for key, outcomes in found.items():
        say(f"  {key}: {outcomes[-1]}")
        hours = [one["virtual_s"] / one["real_s"] for one in outcomes]
        results.add(f"{key}.virtual_h_per_h", hours, "h/h")
        results.add(f"{key}.real_s", [one["real_s"] for one in outcomes], "s")
        results.add(f"{key}.ms_per_update", [1e3 * one["real_s"] / one["updates"] for one in outcomes], "ms")
        for part in outcomes[0]["shares"]:
            results.add(f"{key}.share.{part}", [one["shares"][part] for one in outcomes], "share")
        results.check(
            f"{key}: the same virtual time in every repetition",
            ok=len({one["virtual_s"] for one in outcomes}) == 1,
            seen=f"{outcomes[0]['virtual_s'] / 3600:.2f} virtual hours",
        )
    results.about = {"runs": list(runs), "parts": [*pace_run.PARTS, "rest"]}
