"""What a measurement ran on, and how quiet it was there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

QUIET_CORES = 0.25
"""Cores that others may use before a measurement counts as disturbed."""
PACKAGES = ("torch", "transformers", "peft", "ray", "numpy")


def described() -> dict[str, Any]:
    """Return processor, cores, memory [GiB], accelerators, operating system and versions."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def revision(folder: Path) -> str:
    """Return the commit that a working tree holds, with a `+` if it holds more; empty without git."""
    git = ["git", "-C", str(folder)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True
        )
        code = [*git, "status", "--porcelain", "--", "fedsim", "benchmarks/*.py"]
        changed = subprocess.run(code, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or "unknown"
    lines = info.read_text(encoding="utf-8").splitlines()
    parts = [line.split(":", 1) for line in lines if ":" in line]
    fields = {key.strip(): value.strip() for key, value in parts}
    name = fields.get("model name", "unknown")
    if name != "unknown" and any(c.isdigit() for c in name):
        return name
    return f"{name}, family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def busy_cores(for_s: float = 1.0) -> float | None:
    """Return how many cores were busy while this process slept; None where /proc does not tell."""
    before = _ticks()
    if before is None:
        return None
    started = time.monotonic()
    time.sleep(for_s)
    after = _ticks()
    assert after is not None
    return (after - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - started)


def _ticks() -> int | None:
    """Return the clock ticks that all cores together have worked."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return user + nice + system + irq + soft


def peak_rss_mib() -> float:
    """Return the most memory that this process has held [MiB], as Linux counts it (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
