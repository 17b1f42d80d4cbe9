"""The listener of all trackers: which values of which events stand under which name, against which axis."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fedsim.callbacks import Callback, Committed, RunBegun, RunEnded, Scored

Axis: TypeAlias = Literal["time", "rounds", "bytes"]
AXES: Mapping[Axis, str] = {"time": "time_s", "rounds": "version", "bytes": "up_bytes"}
"""What the x axis is -> the fact of an event that stands on it: virtual seconds, commits, uploaded bytes."""
COMMIT = ("updates", "mean_staleness", "max_staleness", "down_bytes", "joules", "update_norm")
"""Facts of a commit that are shown beside those of the axes."""


@dataclass(frozen=True)
class Point:
    """Where values stand.

    Attributes:
        facts: time_s [virtual s], version and up_bytes: all axes.
        axis: the one that is the step.
    """

    facts: Mapping[str, float]
    axis: Axis

    @property
    def step(self) -> int:
        """The place on the x axis as a whole number: seconds, commits or bytes."""
        return round(self.facts[AXES[self.axis]])

    @property
    def time_s(self) -> float:
        """Virtual time [s], whatever the axis."""
        return self.facts["time_s"]


def identity(event: RunBegun) -> str:
    """Return what tells a run from others, the same each time that it is begun, goes on or is exported."""
    memory = f"{event.name}\0{event.settings.get('seed')}"
    where = memory if event.folder is None else str(event.folder.absolute())
    return hashlib.sha256(where.encode()).hexdigest()[:16]


class Tracker(ABC):
    """What writes to one program."""

    @abstractmethod
    def remove(self, event: RunBegun) -> None:
        """Remove what was written of a run before, so that it is not there twice."""

    @abstractmethod
    def begin(self, event: RunBegun) -> None:
        """Begin a run, or go on with it, and keep its settings."""

    @abstractmethod
    def write(self, point: Point, values: Mapping[str, float]) -> None:
        """Write finite values, by name."""

    @abstractmethod
    def end(self, event: RunEnded) -> None:
        """Write what is not written yet, and close."""


class Tracked(Callback):
    """Hands what a run tells to a tracker: `commit/...` of each commit, `score/SPLIT/METRIC` of each score.

    Attributes:
        tracker: which; points: values that were written.
    """

    def __init__(self, tracker: Tracker, axis: Axis = "time", name: str | None = None) -> None:
        """Take where to write, what the x axis is, and what the run is called; None: as its folder, or as its experiment."""
        self.tracker, self._axis, self._name = tracker, axis, name
        self.points = 0

    def on_begin(self, event: RunBegun) -> None:
        """Begin."""
        self.tracker.begin(self.called(event))

    def called(self, event: RunBegun) -> RunBegun:
        """Return the event with the name that the run has in the program."""
        folder = event.name if event.folder is None else event.folder.absolute().name
        return replace(event, name=self._name or folder)

    def on_commit(self, event: Committed) -> None:
        """Write a commit."""
        facts = {
            **event.used,
            "up_bytes": event.up_bytes,
            "updates": event.updates,
            "mean_staleness": event.mean_staleness,
            "max_staleness": event.max_staleness,
            "down_bytes": event.down_bytes,
            "joules": event.joules,
            "update_norm": event.update_norm,
        }
        names = (*AXES.values(), *COMMIT)
        self._write(facts, {f"commit/{name}": facts[name] for name in names})

    def on_score(self, event: Scored) -> None:
        """Write the metrics of a version, where its commit stands."""
        facts = {"time_s": event.time_s, "version": event.version, "up_bytes": event.up_bytes}
        self._write(facts, {f"score/{event.split}/{name}": value for name, value in event.metrics.items()})

    def on_end(self, event: RunEnded) -> None:
        """End."""
        self.tracker.end(event)

    def _write(self, facts: Mapping[str, float], values: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        point = Point({fact: facts[fact] for fact in AXES.values()}, self._axis)
        self.tracker.write(point, finite)
        self.points += len(finite)
