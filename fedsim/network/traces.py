"""Rates that change over time: bytes per second as a step function, and when so many bytes are through.

Two kinds: a trace of measured steps, and a generator (lognormal AR(1) with outages, steps of one second).
Both are pure functions of time: they can be asked at any time, in any order, and asking changes nothing.
"""

from __future__ import annotations

import bisect
import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import RunError, message

Floats = NDArray[np.float64]
AtEnd = Literal["loop", "hold", "fail"]
BLOCK = 2048
"""Seconds that share one address of randomness; part of every generated rate, so it must not change."""


class Rates(Protocol):
    """What the network asks of a link whose rate changes; bytes are those on the link, headers included."""

    @property
    def mean_bytes_per_s(self) -> float:
        """Mean rate over all time (generated) or over the length of the trace."""
        ...

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on; 0 in an outage."""
        ...

    def next_change(self, t_s: float) -> float:
        """Return the next end of a step, later than `t_s`; inf if there is none."""
        ...

    def finish_s(self, start_s: float, n_bytes: float) -> float:
        """Return the time at which n bytes that start at `start_s` are through; inf if never."""
        ...

    def carried_bytes(self, start_s: float, stop_s: float) -> float:
        """Return the bytes that the link carries from `start_s` to `stop_s`."""
        ...


@dataclass(frozen=True, eq=False)
class RateTrace:
    """A step function of time, and what follows its end.

    >>> link = RateTrace(np.array([0.0, 4, 9]), np.array([1.0, 0, 3]), "hold")
    >>> link.rate(5.0), link.next_change(5.0), link.finish_s(0.0, 10)
    (0.0, 9.0, 11.0)

    Attributes:
        times_s: (k,) where each step begins, ascending from 0; the last is the end of the trace.
        bytes_per_s: (k,) rate from each time on; the last is that from the end on, for `hold` only.
        at_end: begin again (`loop`), keep the last rate (`hold`), or raise an error (`fail`).
        where: file, trace and client, for the error.
        phase_s: time of the trace at virtual time 0; a trace that does not loop begins at its beginning.
        scale: factor on every rate.
    """

    times_s: Floats
    bytes_per_s: Floats
    at_end: AtEnd
    where: str = "rates"
    phase_s: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the steps.

        Raises:
            ValueError: times that do not ascend from 0, rates that are not finite and at least 0, one step
                that neither loops nor ends, a loop of nothing, or a phase without a loop.
        """
        times, rates = (np.array(side, dtype=np.float64) for side in (self.times_s, self.bytes_per_s))
        if len(times) == 0 or times.shape != rates.shape or times[0] != 0 or np.any(np.diff(times) <= 0):
            raise ValueError(f"{self.where}: times must ascend from 0, one a rate")
        if not (np.all(np.isfinite(times)) and np.all(np.isfinite(rates)) and np.all(rates >= 0)):
            raise ValueError(f"{self.where}: times and rates must be finite, rates at least 0")
        if self.at_end not in ("loop", "hold", "fail") or (self.at_end != "hold" and len(times) == 1):
            raise ValueError(f"{self.where}: {self.at_end} needs an end: a time after 0")
        if self.at_end == "loop" and not np.any(rates[:-1] > 0):
            raise ValueError(f"{self.where}: loops and never carries anything: no transfer would ever end")
        if not (0 <= self.phase_s < math.inf and 0 < self.scale < math.inf):
            raise ValueError(f"{self.where}: the phase must be at least 0 and the scale greater than 0")
        if self.phase_s and self.at_end != "loop":
            raise ValueError(f"{self.where}: only a trace that loops can begin elsewhere than at its start")
        for name, side in (("times_s", times), ("bytes_per_s", rates)):
            side.flags.writeable = False
            object.__setattr__(self, name, side)

    def of(self, *, phase_s: float = 0.0, scale: float = 1.0, where: str | None = None) -> RateTrace:
        """Return the same trace for one client: moved and scaled, sharing its arrays."""
        assert self._steps  # worked out once, for all
        other = copy.copy(self)
        for name, value in (("phase_s", phase_s), ("scale", scale), ("where", where or self.where)):
            object.__setattr__(other, name, value)
        other.__dict__.pop("mean_bytes_per_s", None)
        return other

    @cached_property
    def _steps(self) -> tuple[list[float], list[float], list[float]]:
        """Times, rates, and the bytes carried by each time, unscaled."""
        carried = np.append(0.0, np.cumsum(self.bytes_per_s[:-1] * np.diff(self.times_s)))
        return self.times_s.tolist(), self.bytes_per_s.tolist(), carried.tolist()

    @cached_property
    def mean_bytes_per_s(self) -> float:
        """Mean rate over the length of the trace."""
        times, rates, carried = self._steps
        return self.scale * (carried[-1] / times[-1] if len(times) > 1 else rates[0])

    def _base(self, lap: int) -> float:
        return lap * self._steps[0][-1] - self.phase_s

    def _place(self, t_s: float) -> tuple[int, float, int]:
        """Return the lap of the loop that holds `t_s`, when it began, and the step."""
        times = self._steps[0]
        if self.at_end == "loop":
            lap = math.floor((t_s + self.phase_s) / times[-1])
            while self._base(lap) > t_s:
                lap -= 1
            while self._base(lap + 1) <= t_s:
                lap += 1
            base, last = self._base(lap), len(times) - 2
        else:
            lap, base, last = 0, 0.0, len(times) - 1
            if self.at_end == "fail" and t_s >= times[-1]:
                raise self._ended(t_s)
        step = min(max(bisect.bisect_right(times, t_s - base) - 1, 0), last)
        while step < last and base + times[step + 1] <= t_s:  # what rounding did to t - base
            step += 1
        while step > 0 and base + times[step] > t_s:
            step -= 1
        return lap, base, step

    def _end_of(self, lap: int, base: float, step: int) -> float:
        times = self._steps[0]
        if step == len(times) - 1:
            return math.inf
        looped = self.at_end == "loop" and step == len(times) - 2
        return self._base(lap + 1) if looped else base + times[step + 1]

    def _ended(self, t_s: float) -> RunError:
        what = f"the trace ends at {self._steps[0][-1]:g} s, and the run needs it until at least {t_s:g} s"
        fix = "population.rates_at_end: loop or hold, a longer trace, or a smaller budget.time_s"
        return RunError(message(self.where, what, fix=fix))

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on.

        Raises:
            RunError: `at_end` is `fail` and the trace has ended.
        """
        return self.scale * self._steps[1][self._place(t_s)[2]]

    def next_change(self, t_s: float) -> float:
        """Return the next end of a step, later than `t_s`; inf if there is none (raises as `rate`)."""
        return self._end_of(*self._place(t_s))

    def finish_s(self, start_s: float, n_bytes: float) -> float:
        """Return the time at which n bytes that start at `start_s` are through; inf if never.

        The first instant at which the integral of the rate reaches n_bytes, in closed form, whatever the
        number of laps in between (raises as `rate`, where that instant lies beyond the end).
        """
        if n_bytes <= 0:
            return start_s
        times, rates, carried = self._steps
        lap, base, step = self._place(start_s)
        left, end_s = n_bytes / self.scale, self._end_of(lap, base, step)
        if rates[step] > 0 and left <= rates[step] * (end_s - start_s):
            return start_s + left / rates[step]
        if math.isinf(end_s):
            return math.inf
        target = carried[step + 1] + left - rates[step] * (end_s - start_s)
        if self.at_end == "loop":
            laps = math.ceil(target / carried[-1]) - 1
            base, target = self._base(lap + laps), target - laps * carried[-1]
        at = bisect.bisect_left(carried, target) - 1
        if at < len(times) - 1:
            return max(start_s, base + times[at] + (target - carried[at]) / rates[at] if at >= 0 else base)
        if self.at_end == "fail":
            raise self._ended(times[-1])
        if self.at_end == "loop":  # target is a lap to within rounding
            return self._base(lap + laps + 1)
        return base + times[-1] + (target - carried[-1]) / rates[-1] if rates[-1] else math.inf

    def carried_bytes(self, start_s: float, stop_s: float) -> float:
        """Return the bytes carried from `start_s` to `stop_s`, which must not come first (raises as `rate`)."""
        if stop_s <= start_s:
            return 0.0
        times, rates, carried = self._steps
        if self.at_end == "fail" and stop_s == times[-1]:
            stop = 0, carried[-1]
        else:
            lap, base, step = self._place(stop_s)
            stop = lap, carried[step] + rates[step] * (stop_s - base - times[step])
        lap, base, step = self._place(start_s)
        begun = carried[step] + rates[step] * (start_s - base - times[step])
        return self.scale * max(0.0, (stop[0] - lap) * carried[-1] + (stop[1] - begun))
