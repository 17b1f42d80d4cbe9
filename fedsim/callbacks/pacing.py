"""What every display of a running run knows: how much of its budget is used, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Mapping

from fedsim.callbacks.base import Callback
from fedsim.callbacks.events import Committed, RunBegun, RunResumed, TimePassed
from fedsim.records.watching.pace import Pace, shares_of
from fedsim.records.watching.words import left_said

SOON_S = 1.0
"""Real seconds below which nothing is said of the rest."""


class Paced(Callback):
    """A callback that follows the pace of a run; classes of it call its methods first."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._budget: Mapping[str, float | None] = {}
        self._began_s, self._time_s, self._version = 0.0, 0.0, 0

    def on_begin(self, event: RunBegun) -> None:
        """Begin to measure."""
        self._budget, self._time_s, self._version = event.budget, 0.0, 0
        self._pace, self._began_s = Pace(event.visits_after), time.monotonic()
        self._pace.note(self._began_s, {})

    def on_resume(self, event: RunResumed) -> None:
        """Forget the speed of the replay."""
        self._pace = Pace(self._pace.visits_after)

    def on_commit(self, event: Committed) -> None:
        """Go on by a version."""
        self._pace.note(time.monotonic(), shares_of(self._budget, event.used), event.updates)
        self._time_s, self._version = event.time_s, event.version

    def on_time(self, event: TimePassed) -> None:
        """Go on in virtual time."""
        self._pace.note(time.monotonic(), shares_of(self._budget, event.used))
        self._time_s = event.time_s

    def _left_at(self, now_s: float) -> str:
        """Return how long the run will take, in words; nothing as long as nobody knows, and at its end."""
        left = self._pace.left(now_s)
        return "" if left is None or left.middle_s < SOON_S else left_said(left)
