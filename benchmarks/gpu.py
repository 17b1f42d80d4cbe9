"""`python -m benchmarks gpu`: client batches on one GPU against stock PEFT one client at a time on it.

Inline, without Ray, which need not be installed. W1, and a backbone of GPT-2 small's shape (random
weights), K = 1..128, backbone in float32 and in bfloat16. Without a GPU it says so and stops;
`--device cpu --quick` tries the script itself.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.harness import Options, Results, interleaved, say
from benchmarks.inprocess import Bench, enough
from benchmarks.w1.world import World

KS = (1, 2, 4, 8, 16, 32, 64, 128)
WORLDS = {
    "w1": World(clients=128, cohort=10),
    "gpt2_small": World(
        width=768, layers=12, heads=12, vocab=50_257, positions=1024, batch=1, clients=128, cohort=10
    ),
}
TINY = {
    "w1": World(clients=8, cohort=2, steps=2, layers=2),
    "gpt2_small": World(clients=8, cohort=2, steps=2),
}
"""Stand-ins for a trial on a processor."""
LEAST_S = 1.0
"""Least length of one timed run [s]."""
LOSS_APART = {"float32": 1.0e-3, "bfloat16": 3.0e-2}
"""Between fedsim and stock float32 training, mean loss of a visit [nats]."""


class NoDevice(SystemExit):
    """There is nothing to measure on."""


def run(results: Results) -> None:
    """Measure every world, dtype and K.

    Raises:
        NoDevice: there is no GPU (exit code 2; with `--quick` 0, for scripts that try everything).
    """
    import torch

    options = results.options
    if options.device != "cpu" and not torch.cuda.is_available():
        say("gpu: this machine has no GPU that torch can use; run `python -m benchmarks gpu` on one that has")
        raise NoDevice(0 if options.quick else 2)
    if options.device != "cpu":
        results.about["gpu"] = torch.cuda.get_device_name(0)
        results.about["cuda"] = torch.version.cuda
    ks = KS[:2] if options.quick else KS
    for name, world in (TINY if options.quick else WORLDS).items():
        for dtype in ("float32", "bfloat16"):
            _compare(results, name, world, dtype, ks)
    results.about |= {"ks": ks, "device": options.device, "worlds": {n: vars(w) for n, w in WORLDS.items()}}


def _compare(results: Results, name: str, world: World, dtype: str, ks: tuple[int, ...]) -> None:
    """Interleave stock PEFT (float32) and every K, then watch each by itself."""
    options = results.options
    say(f"  {name}, {dtype} backbone")
    reference = Bench(world, ks[-1], dtype=dtype, device=options.device)
    move, loss = reference.apart()
    results.check(
        f"{name}, {dtype}: the loss of fedsim is that of stock PEFT to {LOSS_APART[dtype]:g} nats",
        ok=loss <= LOSS_APART[dtype],
        seen=f"{loss:.1e} nats, {move:.1e} of the largest move",
    )
    runs = {"stock": partial(reference.stock, _often(partial(reference.stock, 1), 1, options))}
    for k in ks:
        try:
            bench = Bench(world, k, dtype=dtype, device=options.device, stock=False)
            runs[f"k{k}"] = partial(bench.batched, _often(bench.batched, k, options))
        except RuntimeError as problem:
            if "out of memory" not in str(problem):
                raise
            results.missing[f"{name}.{dtype}.k{k}"] = "out of memory"
    found = interleaved(runs, options.counted)
    for who, seconds in found.items():
        results.add(f"{name}.{dtype}.per_s.{who}", [1 / s for s in seconds], "updates/s")
        if who != "stock":
            results.ratio(f"{name}.{dtype}.over_stock.{who}", found["stock"], seconds)
    for who, one in runs.items():
        _watch(results, f"{name}.{dtype}.{who}", one, options)


def _often(one: Any, updates: int, options: Options) -> int:
    one()  # the first call compiles and allocates
    return 1 if options.quick else enough(one, updates, LEAST_S)


def _watch(results: Results, key: str, one: Any, options: Options) -> None:
    """Say what bounds it: utilisation as the driver counts it, kernels' share of the time, peak memory."""
    if options.device == "cpu":
        return
    import torch

    torch.cuda.reset_peak_memory_stats()
    with _utilisation() as seen:
        one()
    if seen:
        results.add(f"{key}.utilisation", [sum(seen) / len(seen)], "%")
    results.add(f"{key}.peak_gib", [torch.cuda.max_memory_allocated() / 2**30], "GiB")
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    short = partial(one.func, 1)
    with torch.profiler.profile(activities=kinds) as profile:
        began.record()
        short()
        ended.record()
        torch.cuda.synchronize()
    events = [e for e in profile.events() if str(e.device_type).endswith("CUDA")]
    kernels_ms = sum(e.self_device_time_total for e in events) / 1e3
    results.add(f"{key}.kernel_share", [kernels_ms / began.elapsed_time(ended)], "share")
    results.add(f"{key}.kernels", [float(len(events))], "launches")


@contextmanager
def _utilisation(every_s: float = 0.1) -> Iterator[list[float]]:
    """Collect what `nvidia-smi` calls utilisation [%] while the block runs."""
    seen: list[float] = []
    stop = threading.Event()
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

    def ask() -> None:
        while not stop.wait(every_s):
            try:
                answer = subprocess.run(query, check=True, capture_output=True, text=True).stdout
                seen.append(float(answer.split()[0]))
            except (OSError, subprocess.CalledProcessError, ValueError):
                return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
