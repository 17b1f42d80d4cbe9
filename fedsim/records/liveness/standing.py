"""How a run stands whose `run.json` says `running`: whether somebody is at work on it, how sure that is, and in which words.

What counts first is the lock on its folder, which the kernel takes from a process however it ends. Where a file system
knows no locks, the process counts, with its boot and its start. Of a host that cannot be asked from here, its last beat
counts.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

from fedsim.records.info import RunInfo
from fedsim.records.liveness.hold import Mark, is_copied, is_held, mark_of
from fedsim.records.liveness.process import booted_s, is_there, is_this_machine, this_process
from fedsim.records.quantities import duration

STALE_S = 300.0
"""Seconds without a beat from another host after which its run counts as killed: twenty beats, and clocks that differ."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a run is going.

    Attributes:
        alive: somebody is, or may be, at work on it.
        sure: this cannot be wrong; only then another process may tidy the folder up.
        words: how that is known, a clause.
    """

    alive: bool
    sure: bool
    words: str


def standing(folder: Path | None, info: RunInfo) -> Standing:
    """Return how a run stands that has not been closed.

    Args:
        folder: its folder; None: judge by `run.json` alone.
        info: its `run.json`.
    """
    mark = None if folder is None else mark_of(folder)
    if folder is None or mark is None:
        return _by_process(info)
    who = f"process {mark.pid} on {mark.host}"
    if is_held(folder):
        return Standing(alive=True, sure=True, words=f"{who} is at work on it")
    if is_copied(folder, mark):  # or its disk numbers files anew for each host: then its beat goes on
        return Standing(
            False, sure=_silent_s(mark) > STALE_S, words="the folder is a copy, and nobody writes to it"
        )
    here = is_this_machine(mark.process.boot, mark.host)
    if here and mark.locked:
        return Standing(alive=False, sure=True, words=f"{who} has ended")
    if not here and mark.host == socket.gethostname() and mark.beat < (booted_s() or 0.0):
        return Standing(alive=False, sure=True, words=f"{mark.host} has been started again since {who} wrote")
    there = is_there(mark.pid, mark.process) if here else None
    return _by_beat(mark, who) if there is None else _told(who, alive=there)


def _by_process(info: RunInfo) -> Standing:
    """Judge a run without a lock file by the process that its `run.json` names."""
    who = f"process {info.pid} on {info.host}"
    unknown = Standing(alive=True, sure=False, words=f"{who} may be at work on it")
    process = info.process
    if info.pid is None or not is_this_machine("" if process is None else process.boot, info.host):
        return unknown
    there = is_there(info.pid, process or replace(this_process(), began_ticks=None))
    return unknown if there is None else _told(who, alive=there)


def _told(who: str, *, alive: bool) -> Standing:
    return Standing(alive, sure=True, words=f"{who} is at work on it" if alive else f"{who} has ended")


def _by_beat(mark: Mark, who: str) -> Standing:
    silent_s = _silent_s(mark)
    if silent_s <= STALE_S:
        words = f"{who} was at work on it {duration(silent_s)} ago"
        return Standing(alive=True, sure=False, words=words)
    words = f"{who} has shown no sign of life for {duration(silent_s)}"
    return Standing(alive=False, sure=False, words=words)


def _silent_s(mark: Mark) -> float:
    """Return the seconds since the last beat; a beat in the future is as far from now."""
    return abs(time.time() - mark.beat)
