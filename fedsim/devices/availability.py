"""When clients are online: windows of virtual time, and pure functions of the clock over them."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from fedsim.arrays import Bools, Floats, Ints
from fedsim.devices.tables import WindowTable
from fedsim.devices.windows import Growing, normal_form
from fedsim.rng import stream

BLOCK = 4096
"""Clients that share one address of randomness; part of every population, so it must not change."""


class WhoIsOnline(Protocol):
    """Who is online, for all clients at once; times do not decrease from one question to the next."""

    @property
    def n(self) -> int:
        """Number of clients."""
        ...

    @property
    def constant(self) -> bool:
        """Whether everybody is always online."""
        ...

    def online(self, now_s: float) -> Bools:
        """Return who is online now, (n,)."""
        ...

    def next_start_s(self, now_s: float) -> float:
        """Return a time after `now_s` before which nobody comes online; inf if nobody will."""
        ...

    def share(self) -> Floats:
        """Return each client's share of time online by windows and outages, (n,)."""
        ...


class OnlineTimes(WhoIsOnline, Protocol):
    """When clients are online, as a pure function of the clock: plain windows, or windows less outages."""

    @property
    def plain(self) -> Availability:
        """The windows without outages: all that a client can tell of its own future, since outages come by chance."""
        ...

    def window(self, client: int, now_s: float) -> tuple[float, float]:
        """Return the stretch [start, stop) that holds `now_s`, else the next one; (inf, inf) if there is none."""
        ...

    def reason(self, client: int, now_s: float) -> Literal["window", "outage"]:
        """Return why a client is offline."""
        ...


@dataclass(frozen=True, eq=False)
class Availability:
    """For every client, the windows [start, stop) in which it is online; virtual seconds.

    Build one with `always`, `from_windows`, `windows_of` or `fedsim.devices.charging.charging`; the arrays are in the normal
    form of `fedsim.devices.windows`. Everything is a pure function of (client, now): asking changes nothing.

    Attributes:
        starts_s, stops_s: (m,) windows, client after client, ascending.
        offsets: (n + 1,) windows of client c are [offsets[c], offsets[c + 1]).
        period_s: windows repeat with this period; inf: they do not.
    """

    starts_s: Floats
    stops_s: Floats
    offsets: Ints
    period_s: float = math.inf

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for array in (self.starts_s, self.stops_s, self.offsets):
            array.flags.writeable = False

    @classmethod
    def always(cls, n: int) -> Availability:
        """Return n clients that are always online."""
        return cls(np.zeros(n), np.full(n, math.inf), np.arange(n + 1, dtype=np.int64))

    @classmethod
    def from_windows(
        cls,
        client: Ints,
        start_s: Floats,
        stop_s: Floats,
        *,
        n: int,
        period_s: float = math.inf,
        gap_s: float = 0.0,
    ) -> Availability:
        """Return the availability of n clients from windows in any order; see `normal_form`."""
        return cls(*normal_form(client, start_s, stop_s, n=n, period_s=period_s, gap_s=gap_s), period_s)

    @classmethod
    def joined(cls, parts: Iterable[Availability]) -> Availability:
        """Return the clients of the first part, then those of the second, and so on; all of one period.

        Parts are taken one after the other and let go: what is being made is never there twice.

        Raises:
            ValueError: no part, or parts of several periods.
        """
        starts, stops = Growing(), Growing()
        counts: list[Ints] = []
        periods: set[float] = set()
        for part in parts:
            starts.append(part.starts_s)
            stops.append(part.stops_s)
            counts.append(np.diff(part.offsets))
            periods.add(part.period_s)
        if len(periods) != 1:
            raise ValueError("parts of one period are needed, at least one")
        offsets = np.append(0, np.cumsum(np.concatenate(counts))).astype(np.int64)
        return cls(starts.whole(), stops.whole(), offsets, periods.pop())

    @property
    def n(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def plain(self) -> Availability:
        """These windows: there are no outages in them."""
        return self

    @cached_property
    def constant(self) -> bool:
        """Whether everybody is always online."""
        return bool(np.isinf(self.period_s)) and bool(np.all(np.isinf(self.stops_s)))

    def reason(self, client: int, now_s: float) -> Literal["window", "outage"]:
        """Return why a client is offline: its window is closed."""
        return "window"

    def _base(self, now_s: float) -> tuple[float, float, float]:
        """Return when the previous, this and the next period begin, as one formula so that they agree."""
        period_s = self.period_s
        if period_s == math.inf:
            return -math.inf, 0.0, math.inf
        k = math.floor(now_s / period_s)
        if k * period_s <= now_s < (k + 1) * period_s:
            return (k - 1) * period_s, k * period_s, (k + 1) * period_s
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
        first, end = self.offsets.item(client), self.offsets.item(client + 1)
        if first == end:
            return math.inf, math.inf
        start_of, stop_of = self.starts_s.item, self.stops_s.item
        if stop_of(first) == math.inf:
            return start_of(first), math.inf
        before_s, base_s, after_s = self._base(now_s)
        at = first + self._begun(first, end, base_s, now_s)
        if at > first and now_s < (until_s := base_s + stop_of(at - 1)):
            return base_s + start_of(at - 1), until_s
        if at == first and now_s < before_s + stop_of(end - 1):
            return max(0.0, before_s + start_of(end - 1)), before_s + stop_of(end - 1)
        if at < end:
            return base_s + start_of(at), base_s + stop_of(at)
        return after_s + start_of(first), after_s + stop_of(first)

    def _begun(self, first: int, end: int, base_s: float, now_s: float) -> int:
        """Return how many of some windows begin by now in the period from `base_s` on."""
        starts = self.starts_s.data  # of which single numbers are read fastest
        return bisect.bisect_right(starts, now_s, first, end, key=float(base_s).__add__) - first

    def online(self, now_s: float) -> Bools:
        """Return who is online now, (n,); agrees with `window` to the last bit."""
        before_s, base_s, _ = self._base(now_s)
        first, end = self.offsets[:-1], self.offsets[1:]
        has_windows = end > first
        low, high = first.copy(), end.copy()
        # Binary search for all clients at once: the first window of each that starts after now.
        while np.any(open_ := low < high):
            middle = (low + high) // 2
            begun = open_.copy()
            begun[open_] = base_s + self.starts_s[middle[open_]] <= now_s
            low = np.where(begun, middle + 1, low)
            high = np.where(open_ & ~begun, middle, high)
        online = np.zeros(self.n, dtype=np.bool_)
        inside = low > first
        online[inside] = now_s < base_s + self.stops_s[low[inside] - 1]
        wrapped = has_windows & ~inside & math.isfinite(self.period_s)
        online[wrapped] = now_s < before_s + self.stops_s[end[wrapped] - 1]
        return online

    @cached_property
    def _all_starts_s(self) -> Floats:
        """Starts of the windows that recur, ascending."""
        recurring = np.isfinite(self.stops_s) | (math.isinf(self.period_s))
        return np.unique(self.starts_s[recurring])

    def next_start_s(self, now_s: float) -> float:
        """Return the earliest start of a window after `now_s`, over all clients; inf if there is none."""
        _, base_s, after_s = self._base(now_s)
        starts_s = self._all_starts_s
        at = bisect.bisect_right(starts_s, now_s, key=lambda start: base_s + start)
        if at < len(starts_s):
            return base_s + float(starts_s[at])
        return after_s + float(starts_s[0]) if len(starts_s) else math.inf

    def shifted(self, shift_s: Floats) -> Availability:
        """Return the same windows, those of client c `shift_s[c]` later (earlier if negative).

        Raises:
            ValueError: the windows do not repeat, so what comes before them is not known.
        """
        if math.isinf(self.period_s):
            raise ValueError("only windows that repeat can be shifted")
        return Availability.joined(self._shifted(first, shift_s) for first in self._firsts())

    def _shifted(self, first: int, shift_s: Floats) -> Availability:
        """Return the same windows of the block of clients from `first` on, each shifted by its own `shift_s`."""
        owner, mine = self._block(first)
        length_s = self.stops_s[mine] - self.starts_s[mine]
        start_s = np.mod(self.starts_s[mine] + shift_s[first:][owner], self.period_s)
        n = min(BLOCK, self.n - first)
        return Availability.from_windows(owner, start_s, start_s + length_s, n=n, period_s=self.period_s)

    def _firsts(self) -> range:
        """Return the first client of each block, at least one."""
        return range(0, max(self.n, 1), BLOCK)

    def _block(self, first: int) -> tuple[Ints, slice]:
        """Return who owns each window of the block of clients from `first` on, counted from it, and where these lie."""
        offsets = self.offsets[first : first + BLOCK + 1]
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        return owner, slice(int(offsets[0]), int(offsets[-1]))

    def share(self) -> Floats:
        """Return each client's share of time online, (n,).

        Windows that do not repeat are held against the time from 0 to the last stop of any client.
        """
        total_s, whole_s = np.zeros(self.n), self.period_s
        for first in self._firsts():
            owner, mine = self._block(first)
            n = min(BLOCK, self.n - first)
            length_s = self.stops_s[mine] - self.starts_s[mine]
            total_s[first : first + n] = np.bincount(owner, weights=length_s, minlength=n)
        if math.isinf(whole_s):
            whole_s = float(self.stops_s[np.isfinite(self.stops_s)].max(initial=0.0))
        return np.where(np.isinf(total_s), 1.0, total_s / (whole_s or 1.0))


def windows_of(table: WindowTable, n: int, seed: int) -> Availability:
    """Return the availability of n clients from a table of windows.

    Client c has the windows of client c, or of the c-th trace in order of appearance; a client that the table does
    not name has those of one that it names, drawn by address.
    """
    named, place = np.unique(table.trace, return_inverse=True)
    drawn = np.concatenate(
        [stream(seed, "traces", block).integers(len(named), size=BLOCK) for block in range(-(-n // BLOCK))]
    )[:n]
    clients = named[named < n]
    drawn[clients] = np.arange(len(clients))
    starts_s, stops_s, offsets = normal_form(
        place.astype(np.int64), table.start_s, table.stop_s, n=len(named), period_s=table.period_s
    )
    counts = np.diff(offsets)[drawn]
    ends = np.cumsum(counts)
    rows = np.arange(counts.sum()) + np.repeat(offsets[drawn] - (ends - counts), counts)
    return Availability(starts_s[rows], stops_s[rows], np.append(0, ends).astype(np.int64), table.period_s)
