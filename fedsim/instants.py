"""The order inside one virtual instant, and which times are one instant: landings, commits, evaluations, dispatches.

SimPy orders events by (time, priority, order of scheduling). Everything that happens *to* a visit
has SimPy's normal priority; the end of a client's window comes just after it (so a transfer that
completes at the last moment counts); then the server commits, evaluates and dispatches.

Times are sums of floats: two sums that are equal on paper differ in their last bits. What is due at most `tie_s` after
the end of a stretch of time (a window, a deadline, a beat, the budget) is in time: one rule for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from heapq import heappush

import simpy


class Instant(IntEnum):
    """Priorities of events at one time; smaller goes first."""

    LANDING = 1  # SimPy's NORMAL
    OFFLINE = 2
    COMMIT = 3
    EVALUATE = 4
    DISPATCH = 5


TIE_S, TIE_SHARE = 1e-9, 1e-12
"""Times are one instant if they differ by a nanosecond at most or, after 1,000 s, by this share of themselves."""


def tie_s(at_s: float) -> float:
    """Return how far from `at_s` is still the same instant [s]: some thousand last bits of a float, and 1e-9 at least."""
    return max(TIE_S, TIE_SHARE * abs(at_s))


def in_time(at_s: float, limit_s: float) -> bool:
    """Tell whether what happens at `at_s` happens by `limit_s`.

    >>> in_time(0.1 + 0.2, 0.3), in_time(0.300001, 0.3)
    (True, False)
    """
    return at_s <= limit_s + tie_s(limit_s)


class Clock(simpy.Environment):
    """SimPy's environment, on which something can happen at a time that is known to the bit.

    SimPy takes delays, and now + (time - now) is not always that time.
    """

    def put(self, event: simpy.Event, instant: Instant, at_s: float) -> None:
        """Have an event happen at `at_s`, not before now, in its place inside that instant."""
        heappush(self._queue, (at_s, instant, next(self._eid), event))  # type: ignore[misc]


class Due(simpy.Event):
    """An event at a time that is known to the bit."""

    def __init__(
        self,
        clock: Clock,
        instant: Instant,
        at_s: float,
        callback: Callable[[simpy.Event], None] | None = None,
    ) -> None:
        super().__init__(clock)
        self._ok, self._value = True, None
        if callback is not None:
            self.callbacks.append(callback)
        clock.put(self, instant, at_s)


class At(simpy.Event):
    """An event `delay_s` from now, in its place inside that instant."""

    def __init__(self, env: simpy.Environment, delay_s: float, instant: Instant) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority=instant, delay=max(0.0, delay_s))  # type: ignore[arg-type]


class Closing(simpy.Event):
    """The end of a stretch of time, in its place inside that instant; what is due in the same instant comes first."""

    def __init__(
        self, env: simpy.Environment, delay_s: float, instant: Instant, due_s: Callable[[], float]
    ) -> None:
        """Begin now.

        Args:
            env: the clock.
            delay_s: after which the time is over [s].
            instant: its place among what happens then.
            due_s: tells, when asked, what is due next of that which has to come by then [virtual s]; inf: nothing.
        """
        super().__init__(env)
        end_s = env.now + delay_s
        self._instant, self._due_s, self._latest_s = instant, due_s, end_s + tie_s(end_s)
        self._arm(delay_s)

    def _arm(self, delay_s: float) -> None:
        At(self.env, delay_s, self._instant).callbacks.append(self._look)

    def _look(self, _: simpy.Event) -> None:
        due_s = self._due_s()
        if self.env.now < due_s <= self._latest_s:
            self._arm(due_s - self.env.now)  # exact: the two are almost equal
            return
        self._ok, self._value = True, None
        self.env.schedule(self, priority=self._instant)  # type: ignore[arg-type]


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
