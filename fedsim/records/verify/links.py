"""What the auditor knows of links: no transfer beats its own, and all together not the server's nor one that they share.

Nothing of the simulator is used: size over rate and round trips bound a transfer from below, however links
are shared, and while anybody transfers, a shared link lets no more through than its rate times the time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedsim.arrays import Bools, Floats, Ints

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
    from_cdn = network.get("backbone_from") == "cdn"
    kinds = _kinds(books.run.info.population.get("shared_links", ""))
    for direction, began, done, server in DIRECTIONS if constant or shared or kinds else ():
        v = books.frame(*dict.fromkeys(("visit", "client", began, done, "ended_s", f"{direction}_bytes")))
        v = v[v[began].notna()]
        limit = (books.number("network", server) or math.inf) * BYTES_PER_S
        if from_cdn and direction == "down":  # part of it never used the server's link
            limit = math.inf
        amount = v[f"{direction}_bytes"].to_numpy(dtype=float)
        begin, end = v[began].to_numpy(dtype=float), v[done].fillna(v["ended_s"]).to_numpy(dtype=float)
        if constant:
            rate = v["client"].map(books.known.column(f"{direction}_bytes_per_s")).to_numpy(dtype=float)
            rtt_s = v["client"].map(books.known.column("rtt_s")).to_numpy(dtype=float)
            least = np.where(amount > 0, amount / np.minimum(rate, limit) + trips * rtt_s, 0.0)
            early = v[done].notna().to_numpy() & (end - begin < least - _rounding(end))
            yield v.assign(took=end - begin, amount=amount, least=least), early, _too_fast(direction)
        moved = _Moved(v, amount, begin, end)
        if shared:
            yield _together(moved, [_Link("the server's link", limit)], np.zeros(len(v), np.int64), direction)
        for kind in kinds:
            yield _together(moved, kind.links(direction), kind.of(v["client"].tolist()), direction)


class _Link(NamedTuple):
    """A link: what it is called, and what it lets through [bytes/s]."""

    name: str
    bytes_per_s: float


class _Moved(NamedTuple):
    """Visits, what each moved in one direction [bytes], and from when to when [s]."""

    visits: pd.DataFrame
    amount: Floats
    begin: Floats
    end: Floats


class _Kind(NamedTuple):
    """Links of one kind that clients share: name, bytes/s down and up, and clients, of each."""

    rows: list[tuple[str, float, float, list[int]]]

    def links(self, direction: str) -> list[_Link]:
        """Return the links in one direction."""
        return [
            _Link(f"the link of {name}", down if direction == "down" else up)
            for name, down, up, _ in self.rows
        ]

    def of(self, clients: list[int]) -> Ints:
        """Return the place of each client's link, -1 for who has none, (n,)."""
        place = {client: k for k, row in enumerate(self.rows) for client in row[3]}
        return np.array([place.get(client, -1) for client in clients], dtype=np.int64)


def _kinds(text: str) -> list[_Kind]:
    """Return who shares which links, kind by kind, as a run has it; nothing where it has no more than a SHA-256 of that."""
    kinds: dict[str, list[tuple[str, float, float, list[int]]]] = {}
    try:
        for name, down, up, clients in json.loads(text) if text.startswith("[") else ():
            row = (str(name), float(down), float(up), [int(client) for client in clients])
            kinds.setdefault(row[0].partition(" ")[0], []).append(row)
    except (ValueError, TypeError, RecursionError):  # somebody has written in it: the seals tell
        return []
    return [_Kind(rows) for rows in kinds.values()]


def _too_fast(direction: str) -> Callable[[Any], str]:
    return lambda r: (
        f"moved {r['amount']:.0f} bytes {direction} in {r['took']:.6g} s, and its link needs {r['least']:.6g} s"
    )


def _together(moved: _Moved, links: Sequence[_Link], place: Ints, direction: str) -> Finding:
    """Compare the bytes of each unbroken stretch of transfers over a link with what that lets through.

    Args:
        moved: by the visits.
        links: that are shared.
        place: of each visit's link among them, -1: none, (visits,).
        direction: of the transfers.
    """
    n = len(place)
    since, until, sums, most = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, np.inf)
    order = np.argsort(place, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(place[order])) + 1):
        if len(mine) and place[mine[0]] >= 0:
            since[mine], until[mine], sums[mine] = _stretches(
                moved.amount[mine], moved.begin[mine], moved.end[mine]
            )
            most[mine] = links[place[mine[0]]].bytes_per_s
    most = most * (until - since + _rounding(until))
    over = sums > most * (1 + 1e-9)
    names = [links[k].name if k >= 0 else "" for k in place.tolist()]
    shown = moved.visits.assign(since=since, until=until, moved=sums, most=most, link=names)
    return (
        shown,
        over,
        lambda r: (
            f"is in a stretch from {r['since']:.6g} s to {r['until']:.6g} s in which {r['moved']:.0f} bytes went "
            f"{direction}, and {r['link']} lets {r['most']:.0f} through"
        ),
    )


def _stretches(amount: Floats, begin: Floats, end: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the beginning, the end and the bytes of the unbroken stretch of transfers that each is in, (n,) each."""
    order = np.argsort(begin, kind="stable")
    until = np.asarray(np.maximum.accumulate(end[order]), dtype=np.float64)
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = begin[order][1:] > until[:-1]
    stretch = np.empty(len(order), dtype=np.int64)
    stretch[order] = np.cumsum(first) - 1
    last = np.append(np.flatnonzero(first)[1:] - 1, len(order) - 1)
    moved = np.bincount(stretch, weights=amount).astype(np.float64)
    return begin[order][first][stretch], until[last][stretch], moved[stretch]


def _rounding(time_s: Floats) -> Floats:
    """Return the seconds by which a difference of such times may be off."""
    return 1e-9 + 1e-12 * np.abs(time_s)
