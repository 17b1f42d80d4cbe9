"""`python -m benchmarks trivial`: what an update costs when training costs nothing.

Clock, roster, deltas, aggregation and rows included. Every round of a run is one sample, the first
one apart: a run of 10,000 clients is too long to repeat.
"""

from __future__ import annotations

import statistics

from benchmarks import peers, processes
from benchmarks.harness import HERE, Results, say

CLIENTS = (10, 100, 1_000, 10_000)
FLOWER = (10, 100, 1_000)
ROUNDS = {10: 21, 100: 11, 1_000: 6, 10_000: 6}
"""Of a run, the first untimed."""
SAID = {
    "ray": "fedsim, Ray, 2 workers",
    "inline": "fedsim, inline",
    "flower": "Flower 1.41, 2 actors",
}


def run(results: Results) -> None:
    """Time whole runs by the number of clients a round."""
    quick, wrong = results.options.quick, 0.0
    found: dict[str, dict[int, list[float]]] = {}
    python = peers.available(results.missing).get("flower")
    for clients in CLIENTS[:2] if quick else CLIENTS:
        rounds = 3 if quick else ROUNDS[clients]
        common = ["--clients", str(clients), "--rounds", str(rounds)]
        commands = {
            executor: processes.ours(HERE / "trivial_run.py", *common, "--executor", executor)
            for executor in ("ray", "inline")
        }
        if python is not None and clients in FLOWER:
            commands["flower"] = [str(python), str(HERE / "trivial_flower.py"), *common]
        for name, command in commands.items():
            results.listen()
            try:
                outcome = processes.run(f"trivial_{name}_{clients}", command)
            except processes.Failed as problem:
                processes.tried(f"{name}_{clients}", results.missing, problem)
                continue
            ms = [1e3 * s / clients for s in outcome.rounds_s]
            found.setdefault(name, {})[clients] = ms
            results.add(f"{name}_{clients}", ms, "ms")
            say(f"  {name}, {clients} a round: {statistics.median(ms):.3f} ms")
            wrong = max(wrong, abs(outcome.losses[-1] / rounds - 1))
    for clients, ms in found.get("flower", {}).items():
        ours = found.get("ray", {}).get(clients)
        if ours:
            results.ratio(f"flower_over_us_{clients}", ms, ours)
    seen = f"{len(found)} programs, at most {wrong:.1e} away"
    results.check("after n rounds every array holds n, to 1e-5", ok=wrong <= 1e-5, seen=seen)
    results.about = {"said": SAID, "floats": 45_056, "arrays": 24, "clients": CLIENTS, "rounds": ROUNDS}
