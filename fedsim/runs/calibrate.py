"""Measure this machine at the real task, and write what was found as a row of a device table.

One visit's local training is run again and again, on one thread, as a worker runs it. Its speed is the
FLOPs that the clock would charge over the median seconds; lo and hi are the 5 % and 95 % points. Under a
CPU quota the speed is that of a second of CPU, since the clock adds the pauses itself.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import hetero_profiles
from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig
from fedsim.cost.formulas import layer_passes, train_flops
from fedsim.devices.schemas.devices import DEVICE_COLUMNS, OPTIONAL_DEVICE_COLUMNS
from fedsim.errors import HostError, message
from fedsim.executors.inline import Inline
from fedsim.files.user_tables import read_rows
from fedsim.jobs import Job
from fedsim.runs.row_names import like_row

COPIED_BYTES = 2**26
"""Copied to measure the memory's bandwidth: larger than any cache of a CPU core."""


@dataclass(frozen=True)
class Measured:
    """What a machine did.

    Attributes:
        model: name of the model that trained.
        sequence, batch: tokens of a sequence, sequences in one pass.
        flops: of one step, as the clock charges them.
        step_s: seconds of a step in each repetition; of CPU under a quota.
        layer_passes: layers times how often each is passed in a step.
        overhead_s: fixed time of a pass: what a step of one sequence takes beyond its share of a full one.
        memory_bytes, memory_bytes_per_s: RAM, and its bandwidth to one thread.
    """

    model: str
    sequence: int
    batch: int
    flops: float
    step_s: tuple[float, ...]
    overhead_s: float
    memory_bytes: int
    memory_bytes_per_s: float
    layer_passes: float = 0.0

    def flops_per_s(self, q: float) -> float:
        """Return a quantile of the speed over the repetitions."""
        return self.flops / float(np.quantile(self.step_s, 1 - q))

    @property
    def median_s(self) -> float:
        """Median seconds of a step."""
        return float(np.median(self.step_s))

    @property
    def gain_without_overhead(self) -> float:
        """How many times as fast a step is without its fixed time."""
        return self.median_s / (self.median_s - self.overhead_s)


def measure(
    plan: Plan, *, repeats: int = 7, steps: int = 4, quota: bool = False, batch: int | None = None
) -> Measured:
    """Train on this machine, on one thread, and time it.

    Args:
        plan: the task, and which batch and FLOP count to use; `charge_as` is left aside.
        repeats: visits timed, after one that warms up.
        steps: optimiser steps of each.
        quota: whether this process runs under a CPU quota: CPU time is counted instead of time.
        batch: sequences in one pass, instead of the experiment's.
    """
    task, experiment = plan.task, plan.experiment
    clock = time.process_time if quota else time.perf_counter
    batch = experiment.local.batch if batch is None else batch
    executor = Inline()
    executor.open(task)
    try:
        start = executor.share(task.initial())
        job = Job(0, 0, start, _local(experiment, steps, batch), experiment.training_seed, "calibrate")
        step_s = _step_seconds(executor, job, repeats, clock)
        overhead_s = 0.0
        if batch > 1:
            single = replace(job, local=_local(experiment, steps, 1))
            single_s = float(np.median(_step_seconds(executor, single, repeats, clock)))
            overhead_s = max(0.0, (batch * single_s - float(np.median(step_s))) / (batch - 1))
    finally:
        executor.close()
    tokens = task.tokens(0, _local(experiment, 1, batch))
    return Measured(
        model=Path(plan.parts.task.sources().get("model", task.shape.name)).name,
        sequence=task.shape.sequence,
        batch=batch,
        flops=train_flops(task.shape, tokens, layered=experiment.compute.flops == "layers"),
        layer_passes=layer_passes(task.shape),
        step_s=tuple(step_s),
        overhead_s=overhead_s,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        memory_bytes_per_s=_bandwidth(),
    )


def _local(experiment: Experiment, steps: int, batch: int) -> LocalConfig:
    """Return the experiment's local training with other steps and another batch."""
    changes = {"epochs": None, "steps": steps, "batch": batch}
    return LocalConfig.model_validate(experiment.local.model_dump() | changes)


def _step_seconds(executor: Inline, job: Job, visits: int, clock: Callable[[], float]) -> list[float]:
    """Return the seconds of a step of a job in each of some visits, after one that warms up."""
    assert job.local.steps is not None
    calls = [[replace(job, visit=visit)] for visit in range(visits + 1)]
    seconds = [_seconds(clock, executor.train(call).result) for call in calls]
    return [visit_s / job.local.steps for visit_s in seconds[1:]]


def default() -> Experiment:
    """Return the experiment whose task is measured when none is named: the built-in model and text."""
    return Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": 10},
            "task": {"kind": "language"},
            "budget": {"commits": 1},
        }
    )


def _seconds(clock: Callable[[], float], call: Callable[[], Any]) -> float:
    began = clock()
    call()
    return clock() - began


def _bandwidth() -> float:
    """Return the bytes a second of a copy, read and written; the best of five."""
    source = np.ones(COPIED_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    best_s = min(_seconds(time.perf_counter, lambda: np.copyto(target, source)) for _ in range(6))
    return 2 * COPIED_BYTES / best_s


def row(measured: Measured, device: str, like: str, quota: float | None = None) -> dict[str, str]:
    """Return a row of a device table.

    Args:
        measured: what `measure` found.
        device: its name.
        like: the row of the shipped table whose class, power and battery are taken: they were not measured.
        quota: the CPU quota that it ran under, 0..1; None: none.

    Raises:
        ProfileError: no such row.
    """
    other = like_row("devices.csv", like)
    seconds = "s of CPU" if quota is not None else "s"
    source = (
        f"measured by fedsim profiles calibrate on {processor()}, one thread, {torch_version()}: {measured.model}, "
        f"batch {measured.batch} of {measured.sequence} tokens, median {measured.median_s:.4g} {seconds} a step of "
        f"{len(measured.step_s)} visits, {measured.overhead_s:.2g} s of it fixed; "
        f"class, power and battery not measured, as {like}"
    )
    row = {
        "device": device,
        "class": other["class"],
        "eff_lora_lo_gflop_per_s": f"{measured.flops_per_s(0.05) / 1e9:.6g}",
        "eff_lora_gflop_per_s": f"{measured.flops_per_s(0.5) / 1e9:.6g}",
        "eff_lora_hi_gflop_per_s": f"{measured.flops_per_s(0.95) / 1e9:.6g}",
        "ram_gb": f"{measured.memory_bytes / 1e9:.4g}",
        "memory_bandwidth_gb_per_s": f"{measured.memory_bytes_per_s / 1e9:.4g}",
        **{name: other[name] for name in ("train_w", "idle_w", "battery_wh")},
    }
    if quota is not None:
        row |= {"cpu_quota": f"{quota:g}", "cpu_period_ms": "100"}
    return row | {"share": "1", "source": source}


def table(rows: list[dict[str, str]]) -> str:
    """Return rows as the CSV of a device table."""
    whole = {"cpu_quota": "1", "cpu_period_ms": "100"}
    optional = [c.name for c in OPTIONAL_DEVICE_COLUMNS if any(c.name in cells for cells in rows)]
    header = [*(c.name for c in DEVICE_COLUMNS), *optional, "share", "source"]
    text = io.StringIO()
    text.write("# source: fedsim profiles calibrate; each row says what was measured\n")
    text.write("# licence: yours\n")
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: (whole | cells)[name] for name in header} for cells in rows)
    return text.getvalue()


def refuse_existing(path: Path) -> None:
    """Refuse to write over a file.

    Raises:
        HostError: the file exists.
    """
    if path.exists():
        fix = "give another name; rows of several measurements may be joined in one table"
        raise HostError(message("--out", "the file exists", got=str(path), fix=fix))


def write(text: str, path: Path) -> None:
    """Write a table that is not there yet.

    Raises:
        HostError: the file exists, or cannot be written.
    """
    refuse_existing(path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        said = message("--out", f"cannot be written ({problem.strerror})", got=str(path))
        raise HostError(said) from problem


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or "an unknown processor")


def torch_version() -> str:
    """Return torch and its version."""
    from importlib.metadata import version

    return f"torch {version('torch')}"


def measurement(plan: Plan, measured: Measured, hardware: str) -> dict[str, str]:
    """Return a row of a table of measurements, as `hetero_profiles/measurements` has them.

    Args:
        plan: what was trained.
        measured: how fast.
        hardware: name of the device, as its maker has it.
    """
    tokens, lora = measured.batch * measured.sequence, plan.experiment.lora
    targets = lora.targets if isinstance(lora.targets, str) else " ".join(lora.targets)
    return {
        "hardware": hardware,
        "unit": "cpu",
        "os": {"Darwin": "macos"}.get(platform.system(), platform.system().lower()),
        "software": "fedsim profiles contribute, one thread",
        "software_version": torch_version(),
        "model": measured.model,
        "rank": "" if lora.full else str(lora.r),
        "targets": "all weights" if lora.full else targets,
        "all_weights": "yes" if lora.full else "no",
        "batch": str(measured.batch),
        "sequence": str(measured.sequence),
        "accumulate": "1",
        "tokens_a_pass": str(tokens),
        "checkpointing": "no",
        "precision": "float32",
        "weight_bytes": "4",
        "tokens_per_s": f"{tokens / measured.median_s:.6g}",
        "s_per_step": f"{measured.median_s:.6g}",
        "s_per_pass": f"{measured.median_s:.6g}",
        "fit": "no",
        "why_not": "own measurement, not reviewed",
        "source": f"fedsim profiles contribute: median of {len(measured.step_s)} visits",
        "url": "none: own measurement",
        "date": time.strftime("%Y-%m-%d"),
        "quality": "own",
        "notes": f"{measured.flops / tokens:.6g} FLOPs a token as fedsim charges them",
    }


def measurements(rows: list[dict[str, str]]) -> str:
    """Return rows as the CSV of a table of measurements."""
    header = list(read_rows(hetero_profiles.locate("measurements/public.csv")).cells)
    text = io.StringIO()
    text.write("# source: fedsim profiles contribute; each row says what was measured\n# licence: yours\n")
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
