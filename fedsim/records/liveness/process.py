"""Which process is meant by a number: the process ids of a machine are used again, its boots and start times are not."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_START = 22
"""The field of `/proc/PID/stat` (proc(5), counted from 1) that holds when a process began, in ticks since the boot."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, named so that no other one has ever the same name.

    Attributes:
        boot: the kernel's id of this boot; empty where it has none (it is Linux's).
        namespace: which numbering of processes `pid` is of: containers have one each.
        began_ticks: when it began, in clock ticks since the boot; None where that is unknown.
    """

    boot: str = ""
    namespace: str = ""
    began_ticks: int | None = None


def this_process() -> Process:
    """Return the name of the process that asks."""
    return Process(_boot(), _namespace(), _began_ticks(os.getpid()))


def is_this_machine(boot: str, host: str) -> bool:
    """Tell whether a boot and a host name are those of the machine that asks, as it runs now."""
    return boot == _boot() if boot else host == socket.gethostname()


def is_there(pid: int, process: Process) -> bool | None:
    """Tell whether a process of this machine still works; None: it cannot be told from here.

    A zombie does not: it has ended, and only its parent has not looked yet.
    """
    if os.name == "nt" or process.namespace != _namespace():
        return None
    try:
        os.kill(pid, 0)  # signal 0 only asks (on Windows it would not)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's process
        pass
    if _state(pid) in ("Z", "X"):
        return False
    now_ticks = _began_ticks(pid)
    if process.began_ticks is None or now_ticks is None:
        return True
    return now_ticks == process.began_ticks


def booted_s() -> float | None:
    """Return when this machine was started [s since 1970]; None where that is unknown."""
    try:
        lines = (_PROC / "stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)


@cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return ""


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def _fields(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` from the third on; the second, a name, may hold anything."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _state(pid: int) -> str:
    return next(iter(_fields(pid)), "")


def _began_ticks(pid: int) -> int | None:
    fields = _fields(pid)
    return int(fields[_START - 3]) if len(fields) > _START - 3 else None
