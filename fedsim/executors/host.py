"""What this machine has for workers: cores and free memory."""

from __future__ import annotations

import os
from pathlib import Path

INLINE = "-s runtime.executor=inline"
"""The way out where worker processes are the trouble."""
WORKER_BYTES = 450 * 2**20
"""Resident memory of one Ray actor with torch, transformers and peft (426 MiB measured, rounded up)."""


_VERSION_1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
"""Files of the first version of control groups."""
_UNLIMITED = 2**60
"""What the first version writes where there is no limit is larger."""


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
    container = _container_room_bytes(Path("/sys/fs/cgroup"))
    return min(limits if container is None else [*limits, container], default=None)


def _container_room_bytes(root: Path) -> int | None:
    """Return what a container may still use; None where nothing limits it. Pages of files that it can drop count as free."""
    for most, used in (("memory.max", "memory.current"), _VERSION_1):
        try:
            limit, now = (int((root / name).read_text()) for name in (most, used))
            stat = (root / used).with_name("memory.stat").read_text()
        except (OSError, ValueError):  # not of this version, or `max`
            continue
        if limit >= _UNLIMITED:
            continue
        fields = dict(line.split(" ", 1) for line in stat.splitlines() if " " in line)
        droppable = int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
        return max(0, limit - max(0, now - droppable))
    return None
