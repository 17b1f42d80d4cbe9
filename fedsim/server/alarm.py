"""When the desk is looked at: in the dispatches of an instant in which something has changed, and when somebody comes."""

from __future__ import annotations

import math

import simpy

from fedsim.instants import At, Instant, in_time
from fedsim.server.requests import Desk


class DeskAlarm:
    """Has the desk serve its requests at the right instants, once in each."""

    def __init__(self, env: simpy.Environment, desk: Desk, end_s: float = math.inf) -> None:
        """Start with nothing to do; nobody is served in the instant in which the run ends, `end_s`."""
        self._env, self._desk, self._end_s = env, desk, end_s
        self._rung_s: float | None = None
        self._next_s: float | None = None
        self._ready_s = 0.0
        self._stopped = False

    def ring(self) -> None:
        """Have requests served in this instant's dispatches; ringing again in the same instant changes nothing."""
        now_s = float(self._env.now)
        at_s = max(now_s, self._ready_s)
        if self._desk.waiting and self._rung_s != at_s:
            self._rung_s = at_s
            At(self._env, at_s - now_s, Instant.DISPATCH).callbacks.append(self._on_ring)

    def wait_until(self, ready_s: float) -> None:
        """Serve nobody before then: the server works on the version that is to be sent."""
        self._ready_s = ready_s

    def stop(self) -> None:
        """Serve nobody any more."""
        self._stopped = True

    def _on_ring(self, _event: simpy.Event) -> None:
        self._rung_s = None
        now_s = float(self._env.now)
        if self._stopped or in_time(self._end_s, now_s):
            return
        if now_s < self._ready_s:  # another commit has come between
            self.ring()
            return
        next_s = self._desk.serve(now_s)
        if (
            math.isfinite(next_s) and self._next_s != next_s
        ):  # equal to the bit: one and the same window's start
            self._next_s = next_s
            At(self._env, next_s - now_s, Instant.LANDING).callbacks.append(self._on_window)

    def _on_window(self, _event: simpy.Event) -> None:
        self._next_s = None  # now + (next - now) may round to just before the window: then wait once more
        self.ring()
