"""The order inside one virtual instant: landings, commits, evaluations, dispatches.

SimPy orders events by (time, priority, order of scheduling). Everything that happens *to* a visit
has SimPy's normal priority; the end of a client's window comes just after it (so a transfer that
completes at the last moment counts); then the server commits, evaluates and dispatches.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import simpy


class Instant(IntEnum):
    """Priorities of events at one time; smaller goes first."""

    LANDING = 1  # SimPy's NORMAL
    OFFLINE = 2
    COMMIT = 3
    EVALUATE = 4
    DISPATCH = 5


class At(simpy.Event):
    """An event `delay_s` from now, in its place inside that instant."""

    def __init__(self, env: simpy.Environment, delay_s: float, instant: Instant) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority=instant, delay=max(0.0, delay_s))  # type: ignore[arg-type]


class First(simpy.Event):
    """Happens, without a value, as soon as one of some events has: `simpy.AnyOf` for those that never fail."""

    def __init__(self, env: simpy.Environment, events: Sequence[simpy.Event]) -> None:
        super().__init__(env)
        self._events = events
        for event in events:
            if event.processed:
                self._happen(event)
                return
            event.callbacks.append(self._happen)

    def _happen(self, _: simpy.Event) -> None:
        """Happen, and let go of the other events: one that waits for long must not collect what waited for it."""
        self.succeed()
        for event in self._events:
            if not event.processed and self._happen in event.callbacks:
                event.callbacks.remove(self._happen)
