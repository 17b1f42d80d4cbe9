"""What is told of a run, as frozen values: virtual time, version, bytes and metrics as the tables have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from fedsim.records.info import Status
from fedsim.records.liveness.resumption import Resumption
from fedsim.records.resolved import Resolved


@dataclass(frozen=True, slots=True)
class Starting:
    """Workers are about to be started; nothing has begun, and what is refused now never does.

    Attributes:
        executor: `ray` or `inline`.
    """

    executor: str


@dataclass(frozen=True, slots=True)
class RunBegun:
    """A run begins, or one that goes on is about to replay its schedule; told once.

    Attributes:
        name: of the run.
        folder: of the run; None: its tables stay in memory.
        clients: how many there are.
        workers: that train; 0: nothing is trained.
        budget: limit -> its value, None where there is none: time_s [virtual s], commits, up_bytes.
        settings: the whole experiment as plain values.
        resolved: who was drawn, and which settings follow from others; None if that is not known here.
        visits_after: trainings that follow the last version, in visits.
    """

    name: str
    folder: Path | None
    clients: int
    workers: int
    budget: Mapping[str, float | None]
    settings: Mapping[str, object] = field(repr=False)
    resolved: Resolved | None = field(default=None, repr=False)
    visits_after: float = 0.0


@dataclass(frozen=True, slots=True)
class RunResumed:
    """The schedule was replayed and compared: the run goes on, and what comes is told as in any run.

    Attributes:
        version: of the checkpoint; everything up to it was told before. 0: the run begins again.
        visits, commits: rows that were compared.
        seconds: that took here [s].
        cpu: the processor here; cpu_before: that of the checkpoint, empty if there is none.
    """

    version: int
    visits: int
    commits: int
    seconds: float
    cpu: str = ""
    cpu_before: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """The server has made a version: a row of `commits`.

    Attributes:
        version: its number; time_s: when it is ready [virtual s].
        updates: that it took; mean_staleness, max_staleness: theirs, in versions.
        up_bytes, down_bytes, joules: of all visits that had ended by then, as `total_*` of the table.
        update_norm: length of the change of the adapter; NaN if nothing was trained.
    """

    version: int
    time_s: float
    updates: int
    mean_staleness: float
    max_staleness: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    joules: float = 0.0
    update_norm: float = float("nan")

    @property
    def used(self) -> dict[str, float]:
        """What is used of a budget by now, as `fedsim.records.watching.pace.shares_of` takes it."""
        return {"time_s": self.time_s, "version": self.version, "total_up_bytes": self.up_bytes}


@dataclass(frozen=True, slots=True)
class Scored:
    """A version was scored on a split: rows of `scores`. Scores come in the order of the versions, maybe some commits later.

    Attributes:
        version: which; time_s: of its commit [virtual s], 0 of version 0.
        split: `test`, `valid`, `clients`, `samples` or `answers`.
        metrics: metric -> value, the headline first.
        up_bytes, down_bytes, joules: what the run had spent at its commit, as in `Committed`.
    """

    version: int
    time_s: float
    split: str
    metrics: Mapping[str, float]
    up_bytes: int = 0
    down_bytes: int = 0
    joules: float = 0.0

    def __post_init__(self) -> None:
        """Keep the metrics as they are told, whoever else holds them."""
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))


@dataclass(frozen=True, slots=True)
class Scoring:
    """The run waits for scores: so many of so many rows of a split are there."""

    version: int
    split: str
    done: int
    of: int

    def __str__(self) -> str:
        return f"scoring v{self.version}: {self.done:,} of {self.of:,} of {self.split}"


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Virtual time has come so far [s]: told once in 60 virtual seconds at most, also between commits."""

    time_s: float

    @property
    def used(self) -> dict[str, float]:
        """What is used of a budget by now, as far as this tells."""
        return {"time_s": self.time_s}


@dataclass(frozen=True, slots=True)
class Refused:
    """An update arrived and was not taken, and why."""

    client: int
    visit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint was written: what a run goes on from after a kill.

    Attributes:
        version: of the model in it; path: its file; size_bytes: how large that is.
        seconds: that it took here [s].
    """

    version: int
    path: Path
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Noted:
    """Something to know, in a sentence: there are no checkpoints and why, there is nothing to do."""

    text: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run has ended and its tables are written; told once, after any end that is not a kill.

    Attributes:
        status: `done`, `failed` or `interrupted`; reason: why, in a sentence.
        time_s: virtual time of the end [s]; version: the last.
        up_bytes, down_bytes, joules: of all visits.
        folder: of the run; None: its tables stay in memory.
    """

    status: Status
    reason: str = ""
    time_s: float = 0.0
    version: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    joules: float = 0.0
    folder: Path | None = None


Event: TypeAlias = (
    Starting
    | RunBegun
    | RunResumed
    | Committed
    | Scored
    | Scoring
    | TimePassed
    | Refused
    | Checkpointed
    | Noted
    | RunEnded
)
"""All that is told."""


def resumed(again: Resumption, cpu_before: str = "") -> RunResumed:
    """Return what is told of a run that goes on, of what `run.json` says of it."""
    return RunResumed(again.version, again.visits, again.commits, again.seconds, again.cpu, cpu_before)
