"""Rates over time: constant, the slower of two, or a trace of measured steps.

All are pure functions of time: they can be asked at any time, in any order, and asking changes nothing. Rates that
are generated are in `fedsim.network.generated`.
"""

from __future__ import annotations

import bisect
import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fedsim.arrays import Floats
from fedsim.errors import RunError, message
from fedsim.network.base import Rates

AtEnd = Literal["loop", "hold", "fail"]
MOST_STEPS = 300_000
"""Steps of a looping trace that a transfer may follow: ten seconds here, and three and a half days in steps of a second."""


@dataclass(frozen=True)
class ConstantRate:
    """A rate that never changes."""

    bytes_per_s: float

    def rate(self, t_s: float) -> float:
        """Return the bytes per second."""
        return self.bytes_per_s

    def next_change(self, t_s: float) -> float:
        """Return inf."""
        return math.inf


@dataclass(frozen=True)
class SlowerRate:
    """The slower of two rates at any time."""

    first: Rates
    second: Rates

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on."""
        return min(self.first.rate(t_s), self.second.rate(t_s))

    def next_change(self, t_s: float) -> float:
        """Return the next end of a step of either."""
        return min(self.first.next_change(t_s), self.second.next_change(t_s))


@dataclass(frozen=True, eq=False)
class RateTrace:
    """A step function of time, and what follows its end.

    >>> link = RateTrace(np.array([0.0, 4, 9]), np.array([1.0, 0, 3]), "hold")
    >>> link.rate(5.0), link.next_change(5.0)
    (0.0, 9.0)

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
    def _steps(self) -> tuple[list[float], list[float]]:
        """Times and rates, unscaled."""
        return self.times_s.tolist(), self.bytes_per_s.tolist()

    @cached_property
    def mean_bytes_per_s(self) -> float:
        """Mean rate over the length of the trace."""
        if len(self.times_s) == 1:
            return self.scale * float(self.bytes_per_s[0])
        carried_bytes = float(np.cumsum(self.bytes_per_s[:-1] * np.diff(self.times_s))[-1])
        return self.scale * (carried_bytes / float(self.times_s[-1]))

    def steps_of(self, wire_bytes: float) -> float:
        """Return how many steps pass while so many bytes do, at the mean rate; 0 if the trace does not loop."""
        if self.at_end != "loop":
            return 0.0
        return wire_bytes / self.mean_bytes_per_s * ((len(self.times_s) - 1) / float(self.times_s[-1]))

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


def refuse_endless(rates: Rates, wire_bytes: float) -> None:
    """Refuse a transfer that would follow more steps of a looping trace than anybody waits for.

    Raises:
        RunError: it would.
    """
    if isinstance(rates, SlowerRate):
        refuse_endless(rates.first, wire_bytes)
        refuse_endless(rates.second, wire_bytes)
    elif isinstance(rates, RateTrace) and (steps := rates.steps_of(wire_bytes)) > MOST_STEPS:
        days = wire_bytes / rates.mean_bytes_per_s / 86_400
        what = f"a transfer of {wire_bytes:.3g} bytes would take {steps:.3g} steps of the trace ({days:.3g} days)"
        fix = "leave out traces that carry next to nothing, write longer steps, or send less"
        raise RunError(message(rates.where, what, fix=fix))
