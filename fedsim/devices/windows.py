"""Windows of time as arrays: sorted, apart from each other, joined across the end of the period."""

from __future__ import annotations

import math

import numpy as np

from fedsim.arrays import Bools, Floats, Ints


def normal_form(
    owner: Ints, start_s: Floats, stop_s: Floats, *, n: int, period_s: float = math.inf, gap_s: float = 0.0
) -> tuple[Floats, Floats, Ints]:
    """Return windows as CSR arrays: starts (m,), stops (m,), offsets (n + 1,), ascending for each owner.

    Windows of one owner that overlap, touch, or lie at most `gap_s` apart become one. With a finite
    period every start lies in [0, period); the last window of an owner may run past the end of the
    period, into the next one. An owner that is always online has the single window [0, inf).

    Args:
        owner: (k,) who each window belongs to, 0 <= owner < n, in any order.
        start_s: (k,) where the half-open windows [start, stop) begin, >= 0.
        stop_s: (k,) where they end, > start; any length.
        n: number of owners.
        period_s: windows repeat with this period; inf: they do not.
        gap_s: gaps up to this long are closed.
    """
    periodic = math.isfinite(period_s)
    full = np.zeros(n, dtype=np.bool_)
    if periodic:
        full[owner[stop_s - start_s >= period_s]] = True
        owner, start_s, stop_s = _folded(owner, start_s, stop_s, period_s)
    owner, start_s, stop_s = _merged(owner, start_s, stop_s, gap_s)
    if periodic:
        owner, start_s, stop_s, around = _joined(owner, start_s, stop_s, period_s, gap_s)
        full[around] = True
        owner, start_s, stop_s = _with_always(owner, start_s, stop_s, full)
    offsets = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner, minlength=n), out=offsets[1:])
    return start_s, stop_s, offsets


def _folded(owner: Ints, start_s: Floats, stop_s: Floats, period_s: float) -> tuple[Ints, Floats, Floats]:
    """Move windows into [0, period), cutting those that cross its end in two."""
    shift = np.floor(start_s / period_s) * period_s
    length_s = np.minimum(stop_s - start_s, period_s)
    # Rounding can put a start an ulp outside of the period.
    start_s = np.clip(start_s - shift, 0.0, np.nextafter(period_s, 0.0))
    stop_s = start_s + length_s
    cut = stop_s > period_s
    return (
        np.concatenate([owner, owner[cut]]),
        np.concatenate([start_s, np.zeros(int(cut.sum()))]),
        np.concatenate([np.minimum(stop_s, period_s), stop_s[cut] - period_s]),
    )


def _merged(owner: Ints, start_s: Floats, stop_s: Floats, gap_s: float) -> tuple[Ints, Floats, Floats]:
    """Sort by owner and start, and make one window of those that meet."""
    if len(owner) == 0:
        return owner, start_s, stop_s
    order = _by_owner_and_start(owner, start_s)
    owner, start_s, stop_s = owner[order], start_s[order], stop_s[order]
    until_s = _reached(owner, stop_s)
    first = np.ones(len(owner), dtype=np.bool_)
    first[1:] = (owner[1:] != owner[:-1]) | (start_s[1:] - until_s[:-1] > gap_s)
    last = np.append(np.flatnonzero(first)[1:] - 1, len(owner) - 1)
    return owner[first], start_s[first], until_s[last]


def _by_owner_and_start(owner: Ints, start_s: Floats) -> Ints:
    """Return the order by owner, then start, then place; few owners are sorted by their digits."""
    order = np.argsort(start_s, kind="stable")
    owners = owner[order]
    few = int(owner.max(initial=0)) <= np.iinfo(np.uint16).max
    return order[np.argsort(owners.astype(np.uint16) if few else owners, kind="stable")]


def _reached(owner: Ints, stop_s: Floats) -> Floats:
    """Return the running maximum of the stops within each owner, whose windows lie together: by doubling the reach."""
    until_s, ahead = stop_s.copy(), 1
    while ahead < len(owner) and (same := owner[ahead:] == owner[:-ahead]).any():
        np.maximum(until_s[ahead:], np.where(same, until_s[:-ahead], -math.inf), out=until_s[ahead:])
        ahead *= 2
    return until_s


def _with_always(owner: Ints, start_s: Floats, stop_s: Floats, full: Bools) -> tuple[Ints, Floats, Floats]:
    """Give those who are always online their one window in place of all others."""
    always = np.flatnonzero(full)
    if not len(always):
        return owner, start_s, stop_s
    keep = ~full[owner]
    owner = np.concatenate([owner[keep], always])
    start_s = np.concatenate([start_s[keep], np.zeros(len(always))])
    stop_s = np.concatenate([stop_s[keep], np.full(len(always), math.inf)])
    order = _by_owner_and_start(owner, start_s)
    return owner[order], start_s[order], stop_s[order]


def _joined(
    owner: Ints, start_s: Floats, stop_s: Floats, period_s: float, gap_s: float
) -> tuple[Ints, Floats, Floats, Ints]:
    """Join each owner's last window with its first across the end of the period.

    Also returns the owners whose windows go all the way round.
    """
    if len(owner) == 0:
        return owner, start_s, stop_s, owner
    first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    last = np.append(first[1:] - 1, len(owner) - 1)
    meets = period_s - stop_s[last] + start_s[first] <= gap_s
    around = owner[first[meets & (first == last)]]
    join = meets & (first != last)
    stop_s = stop_s.copy()
    stop_s[last[join]] = period_s + stop_s[first[join]]
    keep = np.ones(len(owner), dtype=np.bool_)
    keep[first[join]] = False
    return owner[keep], start_s[keep], stop_s[keep], around


class Growing:
    """An array that grows where it lies: large ones are moved by the system's page tables, and never there twice."""

    def __init__(self) -> None:
        self._array, self._n = np.empty(0), 0

    def append(self, part: Floats) -> None:
        """Add some numbers."""
        end = self._n + len(part)
        if end > len(self._array):
            self._array.resize(end + end // 8, refcheck=False)
        self._array[self._n : end] = part
        self._n = end

    def whole(self) -> Floats:
        """Return all of it; nothing may be added after that."""
        self._array.resize(self._n, refcheck=False)
        return self._array
