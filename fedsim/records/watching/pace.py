"""How long a run will still take, learnt from how fast it has used up its budget so far.

A run ends when the first of its limits is reached. Each limit has a speed: the share of it that was used per real second,
averaged with weights that fall by half in a sixth of the run's age (at least `HALF_S`). So a run that has become
slower is believed after a few minutes in its first hour, and after a few hours in its second day. Scores and checkpoints
that the run waits for are part of its speed. What comes after the budget (clients' own models) is so many visits at
what a visit has taken.

The band is what the speeds of the stretches so far leave open: `WIDE` standard deviations of the mean of as many further
stretches as there will be.

Errors, held by `tests/spec/records/test_pace.py` on made-up runs: none at a constant speed. Of noisy commits (log-normal,
sigma 1, 400 of them) the end is inside the band nine times of ten. When the speed has halved, the estimate is a third too
short after a quarter of the run's age, a fifth after half of it. After a pause of a tenth of the run's age it is half as
long again as it should be, a sixth too long a fifth of the age later.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

MOST = 64
"""Stretches that are remembered; the older half is made coarser when there are more."""
AGE, HALF_S = 6.0, 15.0
"""A weight's half-life is the run's age divided by `AGE`, at least `HALF_S` [real s]."""
YOUNG_S = 2.0
"""Real seconds of a run before there is an estimate."""
WIDE = 2.5
"""Standard deviations of the band."""
LEAST_SPREAD = 0.04
"""Relative standard deviation that the band has at least."""
LATELY = 12
"""Points among which the longest silence so far is looked for."""
USED = {"time_s": "time_s", "commits": "version", "up_bytes": "total_up_bytes"}
"""Limit of a budget -> the fact of an event that uses it up."""


@dataclass(frozen=True)
class Left:
    """Real seconds until the end: the middle of what is expected, and a band [s]; none is below 0."""

    middle_s: float
    least_s: float
    most_s: float


@dataclass(frozen=True)
class _Point:
    """Where a run was at a real time [s]: shares of its limits, visits in its versions."""

    at_s: float
    shares: Mapping[str, float]
    visits: float


@dataclass(frozen=True)
class _Stretch:
    """What happened between two points, and its weight now."""

    took_s: float
    shares: Mapping[str, float]
    visits: float
    weight: float


def shares_of(budget: Mapping[str, float | None], facts: Mapping[str, float]) -> dict[str, float]:
    """Return which share of each limit is used, between 0 and 1, as far as the facts of an event tell.

    >>> shares_of({"commits": 10, "time_s": None}, {"version": 4, "time_s": 60.0})
    {'commits': 0.4}
    """
    shares = {}
    for limit, fact in USED.items():
        most = budget.get(limit)
        if most and fact in facts:
            shares[limit] = min(1.0, facts[fact] / most)
    return shares


class Pace:
    """How fast a run goes.

    Args:
        visits_after: visits' worth of training that follow the last version.
    """

    def __init__(self, visits_after: float = 0.0) -> None:
        self.visits_after = visits_after
        self._points: list[_Point] = []

    def restart(self, at_s: float) -> None:
        """Forget how fast it went: from here on it is something else (a replay is over, a run was resumed)."""
        last = self._points[-1:]
        self._points = [_Point(at_s, point.shares, point.visits) for point in last]

    def note(self, at_s: float, shares: Mapping[str, float], visits: float = 0.0) -> None:
        """Take where the run is.

        Args:
            at_s: real time [s], from any zero; one that goes back counts as no time passed.
            shares: of each limit, as `shares_of` gives them; what an event does not tell stays.
            visits: that are in its versions since the last note.
        """
        last = self._points[-1] if self._points else _Point(at_s, {}, 0.0)
        at_s = max(at_s, last.at_s)
        known = {name: max(share, last.shares.get(name, 0.0)) for name, share in shares.items()}
        point = _Point(at_s, {**last.shares, **known}, last.visits + visits)
        if self._points and self._grows(at_s):
            self._points[-1] = point
        else:
            self._points.append(point)
        if len(self._points) > MOST:
            older = self._points[: MOST // 2]
            self._points[: MOST // 2] = [*older[:-1:2], older[-1]]

    def left(self, at_s: float) -> Left | None:
        """Return what is left at a real time; None as long as nobody can know."""
        if len(self._points) < 2:
            return None
        first, last = self._points[0], self._points[-1]
        if last.at_s - first.at_s < YOUNG_S:
            return None
        stretches = self._stretches(at_s)
        limits = [limit for limit in last.shares if sum(s.shares[limit] for s in stretches) > 0]
        if not limits:
            return None
        budget_s, limit = min((self._seconds(limit, stretches), limit) for limit in limits)
        spread = _spread(stretches, limit, budget_s)
        after_s = self._after_s(stretches)
        waited_s = 0.0 if self._stalls(at_s) else max(0.0, at_s - last.at_s)
        middle_s = max(0.0, budget_s - waited_s) + after_s
        apart_s = WIDE * math.hypot(spread * budget_s, 0.2 * after_s)
        return Left(middle_s, max(0.0, middle_s - apart_s), middle_s + apart_s)

    @property
    def share(self) -> float:
        """Used share of the limit that is nearest to its end."""
        return max(self._points[-1].shares.values(), default=0.0) if self._points else 0.0

    def _grows(self, at_s: float) -> bool:
        """Tell whether a time belongs to the last point: nothing has passed since, or its stretch is still short."""
        width_s, last_s = self._width_s(at_s), self._points[-1].at_s
        short = len(self._points) > 1 and last_s - self._points[-2].at_s < width_s
        return short or at_s - last_s < 0.01 * width_s

    def _width_s(self, at_s: float) -> float:
        return max(0.25, (at_s - self._points[0].at_s) / MOST)

    def _stalls(self, at_s: float) -> bool:
        """Tell whether the run has said nothing for much longer than it ever did."""
        recent = self._points[-LATELY:]
        longest_s = max(b.at_s - a.at_s for a, b in pairwise(recent))
        return at_s - recent[-1].at_s > 3.0 * longest_s

    def _stretches(self, at_s: float) -> list[_Stretch]:
        """Return the stretches with their weights; silence counts as one once it is longer than any before."""
        points = [*self._points]
        if self._stalls(at_s):
            points.append(_Point(at_s, points[-1].shares, points[-1].visits))
        now_s = points[-1].at_s
        half_s = max(HALF_S, (now_s - points[0].at_s) / AGE)
        return list(_between(points, now_s, half_s))

    def _seconds(self, limit: str, stretches: list[_Stretch]) -> float:
        """Return the seconds until a limit is reached at the weighted mean speed."""
        speed = sum(s.weight * s.shares[limit] for s in stretches) / sum(
            s.weight * s.took_s for s in stretches
        )
        return (1.0 - self._points[-1].shares[limit]) / speed if speed > 0 else math.inf

    def _after_s(self, stretches: list[_Stretch]) -> float:
        visits = sum(s.weight * s.visits for s in stretches)
        if not self.visits_after or visits <= 0:
            return 0.0
        return self.visits_after * sum(s.weight * s.took_s for s in stretches) / visits


def _between(points: list[_Point], now_s: float, half_s: float) -> Iterator[_Stretch]:
    for a, b in pairwise(points):
        took_s = b.at_s - a.at_s
        age_s = now_s - (a.at_s + b.at_s) / 2.0
        shares = {name: b.shares.get(name, 0.0) - a.shares.get(name, 0.0) for name in points[-1].shares}
        yield _Stretch(took_s, shares, b.visits - a.visits, 0.5 ** (age_s / half_s))


def _spread(stretches: list[_Stretch], limit: str, left_s: float) -> float:
    """Return the relative standard deviation of `left_s`, of how unequal the stretches were."""
    timed = [s for s in stretches if s.took_s > 0]
    seconds = sum(s.weight * s.took_s for s in timed)
    mean = sum(s.weight * s.shares[limit] for s in timed) / seconds
    weights = [s.weight * s.took_s / seconds for s in timed]
    speeds = [s.shares[limit] / s.took_s for s in timed]
    variance = sum(w * (v - mean) ** 2 for w, v in zip(weights, speeds, strict=True))
    so_far = 1.0 / sum(w * w for w in weights)
    width_s = sum(w * s.took_s for w, s in zip(weights, timed, strict=True))
    to_come = max(1.0, left_s / width_s)
    return max(LEAST_SPREAD, math.sqrt(variance) / mean * math.sqrt(1.0 / so_far + 1.0 / to_come))
