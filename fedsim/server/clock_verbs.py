"""The verbs that are the clock's own: processes, events, and the places inside an instant."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import simpy

from fedsim.instants import At, Instant


class ClockVerbs:
    """Virtual time, as a protocol uses it."""

    def __init__(self, env: simpy.Environment) -> None:
        """Stand at the environment's time."""
        self.env = env

    @property
    def now_s(self) -> float:
        """The time now [virtual s]."""
        return float(self.env.now)

    def process(self, generator: Generator[Any, Any, Any]) -> simpy.Process:
        """Start a process."""
        return self.env.process(generator)

    def event(self) -> simpy.Event:
        """Return an event that happens when somebody says so (`succeed`)."""
        return self.env.event()

    def timeout(self, delay_s: float) -> simpy.Event:
        """Return an event `delay_s` from now [virtual s]."""
        return self.env.timeout(delay_s)

    def all_of(self, events: Iterable[simpy.Event]) -> simpy.Event:
        """Return the event that all have happened."""
        return self.env.all_of(events)

    def turn(self, instant: Instant, *, at_s: float | None = None) -> simpy.Event:
        """Return the event that an instant (None: this one) has come to its commits (or dispatches)."""
        return At(self.env, 0.0 if at_s is None else at_s - self.env.now, instant)
