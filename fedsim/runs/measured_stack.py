"""This machine as hardware, and what trains on it as a stack: rows that `population.devices` and `compute.stacks` take.

Batches of three sizes tell two numbers of the law in `fedsim.devices.stacks.law`: the speed with many tokens, and the floor of a
layer pass. The speed is written as a share of what a large matrix product reaches here, so that the row can be held against others.
"""

from __future__ import annotations

import csv
import io
import math
import platform
import time
from collections.abc import Sequence

import numpy as np

from fedsim.clock.plan import Plan
from fedsim.devices.stacks.fitting import MachineLaw, TimedPass, law_of
from fedsim.devices.stacks.hardware import HARDWARE_COLUMNS
from fedsim.devices.stacks.table import STACK_COLUMNS
from fedsim.runs.calibrate import Measured, measure, processor, torch_version
from fedsim.runs.row_names import like_row

TIMES = (1, 4, 16)
"""Batches that are measured, in those of the experiment."""
WIDTH = 1024
"""Rows and columns of the matrices whose product is timed."""
BANDWIDTH_SHARE = 0.7
"""Share of memory bandwidth at which weights are read: assumed, as in `stacks.csv`."""


def measure_batches(plan: Plan, *, repeats: int, steps: int, quota: bool = False) -> list[Measured]:
    """Train with batches of three sizes on this machine, on one thread, and time them; the experiment's own batch first.

    Args:
        plan: the task, and which batch and FLOP count to use.
        repeats: visits timed of each size, after one that warms up.
        steps: optimiser steps of each.
        quota: whether this process runs under a CPU quota: CPU time is counted instead of time.
    """
    batch = plan.experiment.local.batch
    return [measure(plan, repeats=repeats, steps=steps, quota=quota, batch=n * batch) for n in TIMES]


def machine_law(measured: Sequence[Measured]) -> MachineLaw:
    """Return the law that the batches tell."""
    return law_of([TimedPass(one.flops, one.layer_passes, one.median_s) for one in measured])


def told(law: MachineLaw) -> str:
    """Return a law in words."""
    return (
        f"law: {law.flops_per_s / 1e9:.4g} GFLOP/s with many tokens, {1e3 * law.launch_s:.3g} ms a layer pass; "
        f"within a factor of {law.worst:.3g} of what was measured"
    )


def product_flops_per_s() -> float:
    """Return what a large product of float32 matrices reaches here, by NumPy with as many threads as it takes; the best of five."""
    matrix = np.ones((WIDTH, WIDTH), dtype=np.float32)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - began)
    return 2.0 * WIDTH**3 / min(seconds)


def hardware_table(
    measured: Measured, device: str, like: str, peak_flops_per_s: float, quota: float | None = None
) -> str:
    """Return this machine as the CSV of a table of hardware, one row.

    Args:
        measured: memory and its bandwidth.
        device: its name, and that of its stack.
        like: the row of `devices_2026.csv` whose class, power and battery are taken: they are not measured.
        peak_flops_per_s: of a large matrix product.
        quota: the CPU quota that it ran under; None: none.

    Raises:
        ProfileError: no such row.
    """
    other = like_row("devices_2026.csv", like)
    row = {
        "device": device,
        "class": other["class"],
        "os": {"Darwin": "macos"}.get(platform.system(), platform.system().lower()),
        "stack": device,
        "memory_bandwidth_gb_per_s": f"{measured.memory_bytes_per_s / 1e9:.4g}",
        "ram_gb": f"{measured.memory_bytes / 1e9:.4g}",
        **{name: other[name] for name in ("train_w", "idle_w", "battery_wh")},
        "cpu_gflop_per_s": f"{peak_flops_per_s / 1e9:.6g}",
        "share": "1",
        "source": f"measured by fedsim profiles calibrate on {processor()}; class, power and battery not measured, as {like}",
    }
    if quota is not None:
        row |= {"cpu_quota": f"{quota:g}", "cpu_period_ms": "100"}
    columns = [column.name for column in HARDWARE_COLUMNS]
    header = [*columns, *(name for name in row if name not in columns)]
    return _csv("# source: fedsim profiles calibrate: this machine", header, row)


def stack_table(measured: Sequence[Measured], name: str, peak_flops_per_s: float) -> str:
    """Return what trains on this machine as the CSV of a table of stacks, one row.

    Args:
        measured: batches of at least two sizes.
        name: of the stack.
        peak_flops_per_s: of a large matrix product.
    """
    law = machine_law(measured)
    tokens = [one.batch * one.sequence for one in measured]
    spread = max(law.worst, *(one.flops_per_s(0.95) / one.flops_per_s(0.5) for one in measured))
    row = {
        "stack": name,
        "software": f"fedsim, {torch_version()}, one thread",
        "peak": "cpu",
        "os": {"Darwin": "macos"}.get(platform.system(), platform.system().lower()),
        "share_of_peak": f"{law.flops_per_s / peak_flops_per_s:.6g}",
        "share_sigma_ln": f"{math.log(spread):.3g}",
        "launch_s": f"{law.launch_s:.6g}",
        "launch_sigma_ln": f"{math.log(spread):.3g}",
        "pass_overhead_s": "0",
        "bandwidth_share": f"{BANDWIDTH_SHARE:g}",
        "expand_share": "0",
        "least_tokens": str(min(tokens)),
        "most_tokens": str(max(tokens)),
        "kind": "fitted",
        "memory": "pytorch-float32",
        "source": f"fedsim profiles calibrate on {processor()}: {measured[0].model}, {told(law)}; bandwidth_share assumed",
    }
    columns = [column.name for column in STACK_COLUMNS]
    return _csv(
        "# source: fedsim profiles calibrate: what trains on this machine",
        [*columns, "memory", "source"],
        row,
    )


def _csv(heading: str, header: Sequence[str], row: dict[str, str]) -> str:
    text = io.StringIO()
    text.write(f"{heading}\n# licence: yours\n")
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    return text.getvalue()
