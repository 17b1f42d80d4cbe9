"""When clients are there: windows of virtual time, and pure functions of the clock over them."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

import hetero_profiles
from fedsim.elementary import exp
from fedsim.profile_tables import WindowTable, read_window_table
from fedsim.rng import stream
from fedsim.windows import Floats, normal_form

DAY_S = 86_400.0
BLOCK = 4096
"""Clients that share one address of randomness; part of every population, so it must not change."""


class There(Protocol):
    """Who is there, for all clients at once; times do not decrease from one question to the next."""

    @property
    def n(self) -> int:
        """Number of clients."""
        ...

    @property
    def constant(self) -> bool:
        """Whether everybody is always there."""
        ...

    def online(self, now_s: float) -> NDArray[np.bool_]:
        """Return who is there now, (n,)."""
        ...

    def next_start_s(self, now_s: float) -> float:
        """Return a time after `now_s` before which nobody comes; inf if nobody will."""
        ...

    def share(self) -> Floats:
        """Return each client's share of time there by windows and outages, (n,)."""
        ...


class Presence(There, Protocol):
    """When clients are there, as a pure function of the clock: plain windows, or windows less outages."""

    def window(self, client: int, now_s: float) -> tuple[float, float]:
        """Return the stretch [start, stop) that holds `now_s`, else the next one; (inf, inf) if there is none."""
        ...

    def reason(self, client: int, now_s: float) -> Literal["window", "outage"]:
        """Return why a client that is not there is away."""
        ...


@dataclass(frozen=True, eq=False)
class Availability:
    """For every client, the windows [start, stop) in which it is there; virtual seconds.

    Build one with `always`, `from_windows`, `charging` or `read_windows`; the arrays are in the normal
    form of `fedsim.windows`. Everything is a pure function of (client, now): asking changes nothing.

    Attributes:
        starts_s, stops_s: (m,) windows, client after client, ascending.
        offsets: (n + 1,) windows of client c are [offsets[c], offsets[c + 1]).
        period_s: windows repeat with this period; inf: they do not.
    """

    starts_s: Floats
    stops_s: Floats
    offsets: NDArray[np.int64]
    period_s: float = math.inf

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for array in (self.starts_s, self.stops_s, self.offsets):
            array.flags.writeable = False

    @classmethod
    def always(cls, n: int) -> Availability:
        """Return n clients that are always there."""
        return cls(np.zeros(n), np.full(n, math.inf), np.arange(n + 1, dtype=np.int64))

    @classmethod
    def from_windows(
        cls,
        client: NDArray[np.int64],
        start_s: Floats,
        stop_s: Floats,
        *,
        n: int,
        period_s: float = math.inf,
        gap_s: float = 0.0,
    ) -> Availability:
        """Return the availability of n clients from windows in any order; see `normal_form`."""
        return cls(*normal_form(client, start_s, stop_s, n=n, period_s=period_s, gap_s=gap_s), period_s)

    @property
    def n(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @cached_property
    def constant(self) -> bool:
        """Whether everybody is always there."""
        return bool(np.isinf(self.period_s)) and bool(np.all(np.isinf(self.stops_s)))

    def reason(self, client: int, now_s: float) -> Literal["window", "outage"]:
        """Return why a client that is not there is away: its window is closed."""
        return "window"

    def _base(self, now_s: float) -> tuple[float, float, float]:
        """Return when the previous, this and the next period begin, as one formula so that they agree."""
        if math.isinf(self.period_s):
            return -math.inf, 0.0, math.inf
        k = math.floor(now_s / self.period_s)
        while k * self.period_s > now_s:
            k -= 1
        while (k + 1) * self.period_s <= now_s:
            k += 1
        return (k - 1) * self.period_s, k * self.period_s, (k + 1) * self.period_s

    def window(self, client: int, now_s: float) -> tuple[float, float]:
        """Return the window that holds `now_s`, else the next one; (inf, inf) if there is none.

        A window that crosses the end of the period is one window. Online means start <= now < stop.

        >>> nights = Availability.from_windows(np.array([0]), np.array([80_000.0]), np.array([90_000.0]),
        ...                                    n=1, period_s=86_400.0)
        >>> nights.window(0, 85_000.0), nights.window(0, 10_000.0)
        ((80000.0, 90000.0), (80000.0, 90000.0))
        """
        first, end = int(self.offsets[client]), int(self.offsets[client + 1])
        if first == end:
            return math.inf, math.inf
        if math.isinf(self.stops_s[first]):
            return float(self.starts_s[first]), math.inf
        before_s, base_s, after_s = self._base(now_s)
        starts_s, stops_s = self.starts_s, self.stops_s
        at = bisect.bisect_right(starts_s, now_s, first, end, key=lambda start: base_s + float(start))
        if at > first and now_s < base_s + float(stops_s[at - 1]):
            return base_s + float(starts_s[at - 1]), base_s + float(stops_s[at - 1])
        if at == first and now_s < before_s + float(stops_s[end - 1]):
            return max(0.0, before_s + float(starts_s[end - 1])), before_s + float(stops_s[end - 1])
        if at < end:
            return base_s + float(starts_s[at]), base_s + float(stops_s[at])
        return after_s + float(starts_s[first]), after_s + float(stops_s[first])

    def online(self, now_s: float) -> NDArray[np.bool_]:
        """Return who is there now, (n,); agrees with `window` to the last bit."""
        before_s, base_s, _ = self._base(now_s)
        first, end = self.offsets[:-1], self.offsets[1:]
        some = end > first
        low, high = first.copy(), end.copy()
        # Binary search for all clients at once: the first window of each that starts after now.
        while np.any(open_ := low < high):
            middle = (low + high) // 2
            begun = open_.copy()
            begun[open_] = base_s + self.starts_s[middle[open_]] <= now_s
            low = np.where(begun, middle + 1, low)
            high = np.where(open_ & ~begun, middle, high)
        there = np.zeros(self.n, dtype=np.bool_)
        inside = low > first
        there[inside] = now_s < base_s + self.stops_s[low[inside] - 1]
        wrapped = some & ~inside & math.isfinite(self.period_s)
        there[wrapped] = now_s < before_s + self.stops_s[end[wrapped] - 1]
        return there

    @cached_property
    def _all_starts_s(self) -> list[float]:
        """Starts of the windows that recur, ascending."""
        recurring = np.isfinite(self.stops_s) | (math.isinf(self.period_s))
        starts_s: list[float] = np.unique(self.starts_s[recurring]).tolist()
        return starts_s

    def next_start_s(self, now_s: float) -> float:
        """Return the earliest start of a window after `now_s`, over all clients; inf if there is none."""
        _, base_s, after_s = self._base(now_s)
        starts_s = self._all_starts_s
        at = bisect.bisect_right(starts_s, now_s, key=lambda start: base_s + start)
        if at < len(starts_s):
            return base_s + starts_s[at]
        return after_s + starts_s[0] if starts_s else math.inf

    def shifted(self, shift_s: Floats) -> Availability:
        """Return the same windows, those of client c `shift_s[c]` later (earlier if negative).

        Raises:
            ValueError: the windows do not repeat, so what comes before them is not known.
        """
        if math.isinf(self.period_s):
            raise ValueError("only windows that repeat can be shifted")
        owner = np.repeat(np.arange(self.n), np.diff(self.offsets))
        length_s = self.stops_s - self.starts_s
        start_s = np.mod(self.starts_s + shift_s[owner], self.period_s)
        return Availability.from_windows(owner, start_s, start_s + length_s, n=self.n, period_s=self.period_s)

    def share(self) -> Floats:
        """Return each client's share of time online, (n,).

        Windows that do not repeat are held against the time from 0 to the last stop of any client.
        """
        owner = np.repeat(np.arange(self.n), np.diff(self.offsets))
        total_s = np.bincount(owner, weights=self.stops_s - self.starts_s, minlength=self.n)
        finite = self.stops_s[np.isfinite(self.stops_s)]
        whole_s = self.period_s if math.isfinite(self.period_s) else float(finite.max(initial=0.0))
        return np.where(np.isinf(total_s), 1.0, total_s / (whole_s or 1.0))


def charging(n: int, seed: int, days: int = 14, start_hour: float = 0.0) -> Availability:
    """Return when n phones charge: `days` drawn days that repeat.

    Sessions start as a Poisson process with a lognormal rate for each device and a hazard for each hour of
    the day; whether one is long depends on that hour. Overlapping sessions and those less than a minute
    apart are one. The figures and what they were fitted to are in hetero_profiles/charging.yaml.

    Args:
        n: number of clients; the first n of a larger draw are the same.
        seed: address of the randomness.
        days: whole days before the pattern repeats.
        start_hour: local hour of the day at virtual time 0.
    """
    figures = yaml.safe_load(hetero_profiles.locate("charging.yaml").read_text("utf-8"))
    period_s = days * DAY_S
    blocks = [_sessions(figures, seed, block, days) for block in range(-(-n // BLOCK))]
    owner, start_s, length_s = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    mine = owner < n
    start_s = np.mod(start_s[mine] - 3600.0 * start_hour, period_s)
    return Availability.from_windows(
        owner[mine],
        start_s,
        start_s + length_s[mine],
        n=n,
        period_s=period_s,
        gap_s=figures["merge_gap_s"],
    )


def _sessions(
    figures: Mapping[str, Any], seed: int, block: int, days: int
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return (device, start, length) of the raw sessions of one block of devices."""
    rng = stream(seed, "charging", days, block)
    z = rng.standard_normal(BLOCK)
    per_day = figures["start_rate_factor"] * exp(
        figures["start_rate_per_day_mu_ln"] + figures["start_rate_per_day_sigma_ln"] * z
    )
    hazard = np.tile(figures["start_hazard_by_hour"], days) / 24
    cumulated = np.append(0.0, np.cumsum(hazard))
    # A Poisson process: how many starts in all, then each placed by the hazard on its own.
    count = rng.poisson(per_day * cumulated[-1])
    device = np.repeat(np.arange(BLOCK, dtype=np.int64), count)
    draws = rng.random(len(device)) * cumulated[-1]
    start_s = 3600.0 * np.interp(draws, cumulated, np.arange(len(cumulated)))
    hour = (start_s // 3600).astype(np.int64) % 24
    long = rng.random(len(device)) < np.asarray(figures["long_probability_by_hour"])[hour]
    z = rng.standard_normal(len(device))
    length_s = np.where(
        long,
        exp(figures["long_session_s_mu_ln"] + figures["long_session_s_sigma_ln"] * z),
        exp(figures["short_session_s_mu_ln"] + figures["short_session_s_sigma_ln"] * z),
    )
    low_s = np.where(long, figures["long_session_min_s"], figures["short_session_min_s"])
    high_s = np.where(long, figures["session_max_s"], figures["short_session_max_s"])
    return block * BLOCK + device, start_s, np.clip(length_s, low_s, high_s)


def read_windows(path: Path | str, n: int, seed: int) -> Availability:
    """Return the availability of n clients from a CSV or Parquet table of windows.

    Columns: `client` (whole numbers from 0) or `trace` (any label), `start_s`, `stop_s`; a comment line
    `# period_s: P` makes them repeat. Client c has the windows of client c, or of the c-th trace in order of
    appearance; a client that the file does not name has those of one that it names, drawn by address.

    Raises:
        ProfileError: the first problem of the file, with its row and column.
    """
    return windows_of(read_window_table(Path(path)), n, seed)


def windows_of(table: WindowTable, n: int, seed: int) -> Availability:
    """Return the availability of n clients from a table that has been read; see `read_windows`."""
    named, place = np.unique(table.trace, return_inverse=True)
    drawn = np.concatenate(
        [stream(seed, "traces", block).integers(len(named), size=BLOCK) for block in range(-(-n // BLOCK))]
    )[:n]
    own = named[named < n]
    drawn[own] = np.arange(len(own))
    starts_s, stops_s, offsets = normal_form(
        place.astype(np.int64), table.start_s, table.stop_s, n=len(named), period_s=table.period_s
    )
    counts = np.diff(offsets)[drawn]
    ends = np.cumsum(counts)
    rows = np.arange(counts.sum()) + np.repeat(offsets[drawn] - (ends - counts), counts)
    return Availability(starts_s[rows], stops_s[rows], np.append(0, ends).astype(np.int64), table.period_s)
