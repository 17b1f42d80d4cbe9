"""CPU quotas by cgroups, version 1 or 2."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PREFIX = "fedsim-fidelity"
SHARES = 262_144
"""The largest weight: the measured processes come before everybody else's."""
_MADE = count()
"""Numbers the groups: one whose processes are slow to die is in nobody's way."""


def root(base: Path = CGROUPS) -> Path | None:
    """Return the cgroup under which quotas can be made, or None: v1 `cpu`, else v2 with its controller."""
    if (base / "cpu" / "cpu.cfs_quota_us").exists() or (base / "cpu" / "cpu.shares").exists():
        return base / "cpu" if os.access(base / "cpu", os.W_OK) else None
    with suppress(OSError):
        if "cpu" in (base / "cgroup.controllers").read_text().split() and os.access(base, os.W_OK):
            return base
    return None


@contextmanager
def group(base: Path, name: str, share: float, period_s: float) -> Iterator[Path]:
    """Make a cgroup with a quota; yields its `cgroup.procs`, and removes it when its processes are gone.

    Args:
        base: as `root` returns it.
        name: for people who look at the groups.
        share: cores; below one.
        period_s: enforcement period, 1 ms to 1 s.
    """
    folder = base / f"{PREFIX}-{os.getpid()}-{name}-{next(_MADE)}"
    folder.mkdir()
    period_us = round(period_s * 1e6)
    quota_us = round(share * period_us)
    try:
        if (base / "cgroup.controllers").exists():
            _enable(base)
            (folder / "cpu.max").write_text(f"{quota_us} {period_us}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(period_us))
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
            (folder / "cpu.shares").write_text(str(SHARES))
        yield folder / "cgroup.procs"
    finally:
        _remove(folder)


def _enable(base: Path) -> None:
    control = base / "cgroup.subtree_control"
    if "cpu" not in control.read_text().split():
        control.write_text("+cpu")


def _remove(folder: Path) -> None:
    """Remove a cgroup; a process that has just died still counts for an instant, a large one for seconds."""
    for _ in range(500):
        with suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.02)


def sweep(base: Path) -> None:
    """Remove cgroups that a killed run left behind: its process is gone, its groups are empty."""
    for folder in base.glob(f"{PREFIX}-*"):
        owner = folder.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with suppress(OSError):
                folder.rmdir()
