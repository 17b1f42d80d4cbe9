"""What the auditor knows of links: no transfer beats its own, and all of them together not the server's.

Nothing of the simulator is used: size over rate and round trips bound a transfer from below, however links
are shared, and while anybody transfers, a shared link lets no more through than its rate times the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.arrays import Bools, Floats

if TYPE_CHECKING:
    import pandas as pd

    from fedsim.records.verify.books import Books

Finding = tuple["pd.DataFrame", Bools, Callable[[Any], str]]
"""Visits, which of them are wrong, and what is wrong with one."""

BYTES_PER_S = 1e6 / 8  # of one Mbit/s
ROUND_TRIPS = {"tcp": 1.5, "size-over-rate": 0.0}
"""Handshake and the last packet's way, in round trips, by `network.model`."""
HANDSHAKE = 1.0
"""Of these, what a connection saves that is kept."""
DIRECTIONS = (
    ("down", "dispatched_s", "downloaded_s", "server_up_mbps"),
    ("up", "trained_s", "landed_s", "server_down_mbps"),
)


def links(books: Books) -> Iterator[Finding]:
    """Check transfers against the rates and round trips of the clients and the rates of the server."""
    network = books.block("network")
    block = books.block("population")
    constant = block.get("rates", "constant") == "constant" and block.get("links", "one") == "one"
    shared = network.get("sharing", "private") != "private"
    trips = ROUND_TRIPS.get(str(network.get("model", "tcp")), 0.0)
    if network.get("connection") == "persistent":
        trips -= HANDSHAKE
    for direction, began, done, server in DIRECTIONS if constant or shared else ():
        v = books.frame(*dict.fromkeys(("visit", "client", began, done, "ended_s", f"{direction}_bytes")))
        v = v[v[began].notna()]
        limit = (books.number("network", server) or math.inf) * BYTES_PER_S
        amount = v[f"{direction}_bytes"].to_numpy(dtype=float)
        begin, end = v[began].to_numpy(dtype=float), v[done].fillna(v["ended_s"]).to_numpy(dtype=float)
        if constant:
            rate = v["client"].map(books.known.column(f"{direction}_bytes_per_s")).to_numpy(dtype=float)
            rtt_s = v["client"].map(books.known.column("rtt_s")).to_numpy(dtype=float)
            least = np.where(amount > 0, amount / np.minimum(rate, limit) + trips * rtt_s, 0.0)
            early = v[done].notna().to_numpy() & (end - begin < least - _rounding(end))
            yield v.assign(took=end - begin, amount=amount, least=least), early, _too_fast(direction)
        if shared:
            yield _together(v, amount, begin, end, limit, direction)


def _too_fast(direction: str) -> Callable[[Any], str]:
    return lambda r: (
        f"moved {r['amount']:.0f} bytes {direction} in {r['took']:.6g} s, and its link needs {r['least']:.6g} s"
    )


def _together(
    v: pd.DataFrame, amount: Floats, begin: Floats, end: Floats, limit: float, direction: str
) -> Finding:
    """Compare the bytes of each unbroken stretch of transfers with what the server's link lets through."""
    order = np.argsort(begin, kind="stable")
    until = np.maximum.accumulate(end[order])
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = begin[order][1:] > until[:-1]
    stretch = np.empty(len(order), dtype=np.int64)
    stretch[order] = np.cumsum(first) - 1
    since = begin[order][first]
    last = np.append(np.flatnonzero(first)[1:] - 1, len(order) - 1) if len(order) else np.empty(0, np.int64)
    length = until[last] - since
    moved = np.bincount(stretch, weights=amount, minlength=len(since))
    over = moved > limit * (length + _rounding(until[last])) * (1 + 1e-9)
    shown = v.assign(
        since=since[stretch], until=until[last][stretch], moved=moved[stretch], most=limit * length[stretch]
    )
    return (
        shown,
        over[stretch],
        lambda r: (
            f"is in a stretch from {r['since']:.6g} s to {r['until']:.6g} s in which {r['moved']:.0f} bytes went "
            f"{direction}, and the server's link lets {r['most']:.0f} through"
        ),
    )


def _rounding(time_s: Floats) -> Floats:
    """Return the seconds by which a difference of such times may be off."""
    return 1e-9 + 1e-12 * np.abs(time_s)
