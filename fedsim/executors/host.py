"""What this machine has for workers: cores and free memory."""

from __future__ import annotations

import os
from pathlib import Path

INLINE = "-s runtime.executor=inline"
"""The way out where worker processes are the trouble."""
WORKER_BYTES = 450 * 2**20
"""Resident memory of one Ray actor with torch, transformers and peft (426 MiB measured, rounded up)."""


def cores() -> int:
    """Return the cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def free_memory_bytes() -> int | None:
    """Return memory that can still be used: of the machine or of the container, the smaller; None if unknown."""
    limits: list[int] = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    most, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if most.is_file() and used.is_file() and most.read_text().strip().isdigit():
        limits.append(int(most.read_text()) - int(used.read_text()))
    return min(limits, default=None)
