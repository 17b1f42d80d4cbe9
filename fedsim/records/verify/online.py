"""Who was online when: visits against the windows of their clients, and why devices went away against the settings."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pandas as pd

from fedsim.arrays import Bools, Floats
from fedsim.records.verify.books import Books
from fedsim.records.verify.invariants import Invariant

Window = tuple[float, float]
SLACK_S = 1e-6
"""By how much an instant may lie outside a window: rounding of periods."""
MANY = 8
"""Instants that are held at once against a window that is the only one."""


@lru_cache(maxsize=2**16)  # most clients have visits in many blocks
def windows_of(text: str) -> tuple[Window, ...] | None:
    """Return the windows that a text of the clients' table holds; None if it holds a SHA-256, or no windows at all."""
    try:
        pairs = [tuple(map(float, span.split(":"))) for span in text.split()]
    except ValueError:
        return None
    good = all(len(pair) == 2 and pair[0] < pair[1] for pair in pairs)
    return tuple((pair[0], pair[1]) for pair in pairs) if good else None


def closes_s(windows: tuple[Window, ...], period_s: float, now_s: float) -> float | None:
    """Return when the window closes that is open at an instant [s]; None if none is open then."""
    if math.isfinite(period_s) and period_s > 0:
        turn = math.floor(now_s / period_s)
        shifts = [turn * period_s, (turn - 1) * period_s, (turn + 1) * period_s]
    else:
        shifts = [0.0]
    spans = sorted((shift + start, shift + stop) for shift in shifts for start, stop in windows)
    end_s: float | None = None
    for start_s, stop_s in spans:
        if start_s - SLACK_S <= (now_s if end_s is None else end_s) and stop_s > now_s:
            end_s = stop_s if end_s is None else max(end_s, stop_s)  # windows that touch are one
    return end_s


@lru_cache(maxsize=1)  # several rules ask for those of one run
def _closings(books: Books) -> tuple[Bools, Floats]:
    """Return which visits begin in no window, and when the window of the others closes (inf: not known; NaN: of these), (visits,)."""
    clients = books.rows["client"]
    known = books.known.column("windows"), books.known.column("window_period_s")
    texts, period_s = clients.map(known[0]), clients.map(known[1]).to_numpy(dtype=float)
    now_s = books.rows["dispatched_s"].to_numpy(dtype=float)
    closing_s = np.full(len(now_s), math.inf)
    codes, names = pd.factorize(texts)
    order = np.lexsort([period_s, codes])
    new = np.flatnonzero((np.diff(codes[order]) != 0) | (np.diff(period_s[order]) != 0)) + 1
    for rows in np.split(order, new) if len(order) else ():
        code, period = int(codes[rows[0]]), float(period_s[rows[0]])
        windows = None if code < 0 or math.isnan(period) else windows_of(str(names[code]))
        if windows is not None:
            closing_s[rows] = _closings_s(windows, period, now_s[rows])
    return np.isnan(closing_s), closing_s


def _closings_s(windows: tuple[Window, ...], period_s: float, now_s: Floats) -> Floats:
    """Return `closes_s` of each instant, NaN where no window is open."""
    if len(now_s) < MANY or len(windows) != 1 or math.isfinite(period_s):
        ends = (closes_s(windows, period_s, now) for now in now_s.tolist())
        return np.array([math.nan if end_s is None else end_s for end_s in ends])
    ((start_s, stop_s),) = windows
    return np.where((start_s - SLACK_S <= now_s) & (stop_s > now_s), stop_s, math.nan)


def _outside(books: Books) -> Bools:
    return _closings(books)[0]


def _overrun(books: Books) -> Bools:
    _, closing_s = _closings(books)
    return np.asarray(books.unpaused & (books.visits["ended_s"].to_numpy(dtype=float) > closing_s + SLACK_S))


def _window_did_not_close(books: Books) -> Bools:
    """Find visits that were lost to a window, which did not close then."""
    v, (_, closing_s) = books.visits, _closings(books)
    lost = (v["outcome"] == "offline") & (v["away"] == "window") & books.unpaused
    known = books.known.column("window_period_s").notna().any()
    return np.asarray(lost.to_numpy() & known & ~(np.abs(v["ended_s"].to_numpy() - closing_s) <= SLACK_S))


def _impossible_cause(books: Books) -> Bools:
    away = books.visits["away"]
    wrong = books.nothing.copy()
    if "energy" in books.run.experiment and books.block("energy").get("battery") is None:
        wrong |= (away == "battery").to_numpy()
    if books.block("compute").get("thermal") == "none":
        wrong |= (away == "heat").to_numpy()
    if "outages" in books.block("population") and books.block("population").get("outages") is None:
        wrong |= (away == "outage").to_numpy()
    return wrong


def _battery_of_none(books: Books) -> Bools:
    if "energy" not in books.run.experiment or books.block("energy").get("battery") is not None:
        return books.nothing
    return np.asarray(books.visits["battery"].notna())


ONLINE = (
    Invariant(
        "who is asked is online",
        _outside,
        lambda r: f"has dispatched_s {r['dispatched_s']:.9g}, when no window of its client is open",
    ),
    Invariant(
        "visits end with their window",
        _overrun,
        lambda r: f"has ended_s {r['ended_s']:.9g}, after the end of its client's window",
    ),
    Invariant(
        "who is lost to a window is lost at its end",
        _window_did_not_close,
        lambda r: (
            f"has away 'window' and ended_s {r['ended_s']:.9g}, and no window of its client closes then"
        ),
    ),
    Invariant(
        "causes are those of the settings",
        _impossible_cause,
        lambda r: f"has away {r['away']!r}, and the settings know no such cause",
    ),
    Invariant(
        "only batteries have a level",
        _battery_of_none,
        lambda r: f"has battery {r['battery']:.9g}, and no batteries are followed",
    ),
)
