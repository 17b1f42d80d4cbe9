"""The contestants of W1, each a function that runs it once and returns its outcome."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import peers, processes
from benchmarks.harness import CACHE
from benchmarks.w1.world import World, made

HERE = Path(__file__).parent
ROUNDS = 6
"""Of every run; the first is not timed."""
US = "fedsim"
FLOOR = "stock_2x1"
SAID = {
    "stock_1x2": "stock PEFT, 1 process x 2 threads",
    "stock_2x1": "stock PEFT, 2 processes x 1 thread (the floor)",
    "fedsim": "fedsim, whole run, Ray, 2 workers",
    "fedsim_sequential": "the same with `numerics.training: sequential`",
    "fedsim_inline": "fedsim, whole run, inline, 1 thread",
    "inline": "fedsim, inline, 1 thread",
    "timeline": "fedsim, the built-in task, timeline only, to its first event",
    "flower": "Flower 1.41 simulation engine, 2 actors x 1 thread",
    "pfl": "pfl-research 0.6 `SimulatedBackend`, 2 processes x 1 thread",
}

Contestant = Callable[..., processes.Outcome]


def world_folder() -> Path:
    """Return the folder of W1, written if it is not there yet."""
    return made(World(), CACHE, ROUNDS).resolve()


def contestants(rounds: int, missing: dict[str, str]) -> dict[str, Contestant]:
    """Return the contestants by name, peers last; a peer that cannot be installed is named in `missing`.

    Each takes `weigh=True` to sample the memory of its process tree.
    """
    common = ["--world", str(world_folder()), "--rounds", str(rounds)]

    def stock(name: str, count: int, threads: int) -> Contestant:
        command = processes.ours(
            HERE / "stock.py", *common, "--processes", str(count), "--threads", str(threads)
        )
        return partial(processes.run, name, command, threads=threads)

    def fedsim(name: str, *options: str) -> Contestant:
        command = processes.ours(HERE / "fedsim_run.py", *common, *options)
        return partial(processes.run, name, command)

    found: dict[str, Contestant] = {
        "stock_1x2": stock("stock_1x2", 1, 2),
        "stock_2x1": stock("stock_2x1", 2, 1),
        "fedsim": fedsim("fedsim"),
        "fedsim_sequential": fedsim("fedsim_sequential", "--training", "sequential"),
        "fedsim_inline": fedsim("fedsim_inline", "--executor", "inline"),
    }
    for name, python in peers.available(missing).items():
        scripts = {
            "flower": [str(python), str(HERE / "flower_run.py"), *common, "--actors", "2"],
            "pfl": [str(python), *_TWICE, str(HERE / "pfl_run.py"), *common, "--threads", "1"],
        }
        found[name] = partial(processes.run, name, scripts[name])
    return found


_TWICE = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def startup_of_ours(executor: str = "ray") -> Contestant:
    """Return a fedsim run whose first round is one client, so that its commit is the first update."""
    common = ["--world", str(world_folder()), "--rounds", "1", "--cohort", "1", "--executor", executor]
    command = processes.ours(HERE / "fedsim_run.py", *common)
    return partial(processes.run, f"startup_{executor}", command)
