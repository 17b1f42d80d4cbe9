"""Transfers over one direction of the server's link: handshake, slow start, fair shares, last packet's way.

A transfer waits a round trip for its handshake, then takes part in the `MaxMinLink`, and its last byte
arrives half a round trip after it was sent. Its cap is the rate of the client's own link; slow start
lowers it: round k lets 2^k x 15,000 bytes through, one round a round trip, until the window covers the
link's bandwidth-delay product or the rest of the file. Alone on a link of constant rate this is
`fedsim.network.tcp.transfer_s`. Rates that change are followed exactly, step by step. Errors against real TCP:
0.9 % on average behind a fair queue; behind a drop-tail queue TCP itself is not fair, and no model of
fair shares can be right about a single transfer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Literal, NamedTuple, Protocol

from fedsim.network.max_min import MaxMinLink
from fedsim.network.tcp import FIRST_WINDOW_BYTES, ROUNDING_BYTES, SHORTEST_S

STALLED_S = 30 * 86_400.0
"""`predict` calls it for ever when nothing moves for so long: two looping rates that are never positive together
change without end."""


class Steps(Protocol):
    """A rate that changes in steps; `fedsim.network.traces` has traces and a generator."""

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on."""
        ...

    def next_change(self, t_s: float) -> float:
        """Return the next end of a step, later than `t_s`; inf if there is none."""
        ...


@dataclass(frozen=True)
class Constant:
    """A rate that never changes."""

    bytes_per_s: float

    def rate(self, t_s: float) -> float:
        """Return the bytes per second."""
        return self.bytes_per_s

    def next_change(self, t_s: float) -> float:
        """Return inf."""
        return math.inf


@dataclass(frozen=True)
class Slower:
    """The slower of two rates at any time."""

    one: Steps
    other: Steps

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on."""
        return min(self.one.rate(t_s), self.other.rate(t_s))

    def next_change(self, t_s: float) -> float:
        """Return the next end of a step of either."""
        return min(self.one.next_change(t_s), self.other.next_change(t_s))


@dataclass(frozen=True)
class Path:
    """A client's own link in one direction.

    Attributes:
        steps: its rate, headers included.
        rtt_s: round trip to the server.
        framing: bytes on the link per byte of payload.
        limit: most that one connection can hold, whatever the link (`fedsim.network.tcp.loss_limit`) [bytes/s].
    """

    steps: Steps
    rtt_s: float
    framing: float
    limit: float = math.inf


class Asked(NamedTuple):
    """A transfer to predict: who, how much payload, from when."""

    client: int
    n_bytes: int
    start_s: float


class Access:
    """A client's link while transfers use it; its own fair shares make the caps of several of them.

    Attributes:
        path: what it is.
        rate: of the link now [bytes/s], followed only while something moves over it.
        members: what moves over it.
        users: transfers under way on it, for whoever keeps it.
    """

    __slots__ = ("members", "path", "rate", "stamp", "users")

    def __init__(self, path: Path) -> None:
        """Nobody is on it yet."""
        self.path = path
        self.rate = 0.0
        self.stamp = self.users = 0
        self.members: dict[int, Flow] = {}


class Flow:
    """A transfer under way.

    Attributes:
        began_s, arrived_s: first SYN, and the last byte's arrival (NaN until then).
        place: handshake -> moving -> arriving -> arrived, or stopped.
        left: bytes on the link still to send; the star knows better while it is moving.
        window: of slow start, in bytes; infinite once it limits nothing.
    """

    __slots__ = ("access", "arrived_s", "began_s", "left", "n_bytes", "number", "place", "stamp", "window")

    def __init__(self, number: int, access: Access, n_bytes: int, began_s: float) -> None:
        """A transfer that has not begun."""
        self.number, self.access, self.n_bytes, self.began_s = number, access, n_bytes, began_s
        self.left = n_bytes * access.path.framing
        self.window = math.inf
        self.arrived_s = math.nan
        self.stamp = 0
        self.place: Literal["handshake", "moving", "arriving", "arrived", "stopped"] = "stopped"

    @property
    def limit(self) -> float:
        """Most that the connection itself allows now [bytes/s]: window over round trip, and losses."""
        path = self.access.path
        return min(path.limit, self.window / path.rtt_s) if path.rtt_s else path.limit


class Pipe:
    """One direction of the server's link and all that moves over it. Pure: the caller keeps the clock.

    Times given must not decrease; `run` to a time before changing anything at that time.
    """

    def __init__(self, capacity: Steps) -> None:
        """Take the server's rate (`Constant(math.inf)` if it limits nothing)."""
        self.stamp = 0
        self._capacity = capacity
        self._star: MaxMinLink | None = None
        self._agenda: list[tuple[float, int, Flow | Access | Pipe]] = []
        self._moving: dict[int, Flow] = {}
        self._numbers, self._stamps = count(), count(1)

    def open(self, access: Access, n_bytes: int, at_s: float) -> Flow:
        """Start a transfer; nothing to send arrives at once.

        Raises:
            ValueError: negative bytes.
        """
        if n_bytes < 0:
            raise ValueError(f"n_bytes must not be negative (got {n_bytes})")
        flow = Flow(next(self._numbers), access, n_bytes, at_s)
        if n_bytes:
            self.resume(flow, at_s)
        else:
            flow.place = "arriving"
            self._schedule(flow, at_s)
        return flow

    def resume(self, flow: Flow, at_s: float) -> None:
        """Let a stopped transfer go on with what it has left, on a new connection."""
        if flow.place == "stopped":
            flow.place = "handshake"
            self._schedule(flow, at_s + flow.access.path.rtt_s)

    def stop(self, flow: Flow, at_s: float) -> None:
        """Stop a transfer, which frees its share; what has arrived has arrived."""
        if flow.place == "arrived":
            return
        if flow.place == "moving":
            flow.left = self._on_star(at_s).remove(flow.number, at_s)
            self._leave(flow, at_s)
        flow.stamp = 0
        flow.place = "stopped"

    def sent(self, flow: Flow, at_s: float) -> int:
        """Return the payload that has left the sender by `at_s`, if nothing happens until then."""
        left = flow.left
        if flow.place == "moving" and self._star is not None and flow.number in self._star:
            left = self._star.left(flow.number, at_s)
        if left <= 0:
            return flow.n_bytes
        return max(0, min(flow.n_bytes, int(flow.n_bytes - left / flow.access.path.framing + ROUNDING_BYTES)))

    def next_s(self) -> float:
        """Return when something happens next; inf if nothing will."""
        return min(self._next())

    def _next(self) -> tuple[float, float]:
        """Return when the next transfer has been sent, and when the next thing noted happens."""
        agenda = self._agenda
        while agenda and agenda[0][2].stamp != agenda[0][1]:
            heappop(agenda)
        due = self._star.next_finish() if self._moving and self._star is not None else None
        return due[0] if due is not None else math.inf, agenda[0][0] if agenda else math.inf

    def run(self, to_s: float) -> list[Flow]:
        """Let everything happen until `to_s`, itself included; returns who has arrived, in that order."""
        arrived: list[Flow] = []
        while True:
            sent_s, at_s = self._next()
            if min(sent_s, at_s) > to_s or sent_s == at_s == math.inf:
                return arrived
            if sent_s <= at_s:  # before whatever else happens at that time
                self._all_sent(sent_s)
                continue
            _, _, what = heappop(self._agenda)
            if isinstance(what, Flow):
                self._happen(what, at_s, arrived)
            elif isinstance(what, Access):
                self._change(what, at_s)
            elif self._moving:
                self._on_star(at_s).set_capacity(self._capacity.rate(at_s), at_s)
                self._schedule(self, self._capacity.next_change(at_s))

    # what happens to a transfer -------------------------------------------------------------------

    def _happen(self, flow: Flow, at_s: float, arrived: list[Flow]) -> None:
        flow.stamp = 0
        if flow.place == "handshake":
            self._join(flow, at_s)
        elif flow.place == "moving":
            flow.window *= 2
            self._round(flow, at_s)
            self._share(flow.access, at_s)
        else:
            flow.place = "arrived"
            flow.arrived_s = at_s
            arrived.append(flow)

    def _join(self, flow: Flow, at_s: float) -> None:
        access = flow.access
        flow.place = "moving"
        flow.window = FIRST_WINDOW_BYTES
        if not access.members:
            access.rate = access.path.steps.rate(at_s)
            self._schedule(access, access.path.steps.next_change(at_s))
        star = self._on_star(at_s)
        self._moving[flow.number] = access.members[flow.number] = flow
        self._round(flow, at_s)
        star.add(flow.number, flow.left, min(access.rate, flow.limit), at_s)
        if len(access.members) > 1:
            self._share(access, at_s)

    def _round(self, flow: Flow, at_s: float) -> None:
        """Begin a round trip of slow start, or end it: the window covers the link, or what is left."""
        if math.isinf(flow.window):
            return
        path, rate = flow.access.path, min(flow.access.rate, flow.access.path.limit)
        if rate == 0:  # an outage: the next round begins after it
            return
        star = self._on_star(at_s)
        left = flow.left if flow.number not in star else star.left(flow.number, at_s)
        if flow.window >= rate * path.rtt_s or left <= flow.window + ROUNDING_BYTES:
            flow.window = math.inf
        else:
            self._schedule(flow, at_s + path.rtt_s)

    def _all_sent(self, at_s: float) -> None:
        _, number = self._on_star(at_s).finish()
        flow = self._moving[number]
        flow.left = 0.0
        self._leave(flow, at_s)
        flow.place = "arriving"
        self._schedule(flow, max(at_s + flow.access.path.rtt_s / 2, flow.began_s + SHORTEST_S))

    def _leave(self, flow: Flow, at_s: float) -> None:
        del self._moving[flow.number], flow.access.members[flow.number]
        if flow.access.members:
            self._share(flow.access, at_s)
        else:
            flow.access.stamp = 0

    # rates ----------------------------------------------------------------------------------------

    def _on_star(self, at_s: float) -> MaxMinLink:
        """Return the star; its capacity is followed only while somebody is on it."""
        if self._star is None:
            self._star = MaxMinLink(self._capacity.rate(at_s), at_s)
            self._schedule(self, self._capacity.next_change(at_s))
        elif not self._moving:
            self._star.set_capacity(self._capacity.rate(at_s), at_s)
            self._schedule(self, self._capacity.next_change(at_s))
        return self._star

    def _change(self, access: Access, at_s: float) -> None:
        """The client's own link has another rate from now on."""
        before, access.rate = access.rate, access.path.steps.rate(at_s)
        self._schedule(access, access.path.steps.next_change(at_s))
        if before == 0 < access.rate:
            for flow in access.members.values():
                if not flow.stamp:
                    self._round(flow, at_s)
        self._share(access, at_s)

    def _share(self, access: Access, at_s: float) -> None:
        """Give each transfer of a client its cap: the client's own link, shared max-min by their limits."""
        star = self._on_star(at_s)
        rate, n = access.rate, len(access.members)
        flows = access.members.values()
        for flow in sorted(flows, key=lambda flow: (flow.limit, flow.number)) if n > 1 else flows:
            cap = min(rate / n, flow.limit)
            star.set_cap(flow.number, cap, at_s)
            rate, n = rate - cap, n - 1

    def _schedule(self, what: Flow | Access | Pipe, at_s: float) -> None:
        """Note the next thing that happens to something; what was noted before is void."""
        what.stamp = next(self._stamps)
        if at_s < math.inf:
            heappush(self._agenda, (at_s, what.stamp, what))


def predict(asked: Sequence[Asked], paths: Mapping[int, Path] | Sequence[Path], server: Steps) -> list[float]:
    """Return the seconds that each of some transfers in one direction takes, beside the others.

    Args:
        asked: the transfers, in any order.
        paths: each client's own link.
        server: the rate of the server's link, headers included.

    Returns:
        Seconds from `start_s` to the last byte's arrival, one a transfer; inf where rates stay 0, or let
        nothing through for `STALLED_S`.
    """
    pipe = Pipe(server)
    accesses: dict[int, Access] = {}
    flows: dict[int, Flow] = {}
    for i in sorted(range(len(asked)), key=lambda i: (asked[i].start_s, i)):
        client, n_bytes, start_s = asked[i]
        pipe.run(start_s)
        if client not in accesses:
            accesses[client] = Access(paths[client])
        flows[i] = pipe.open(accesses[client], n_bytes, start_s)
    now_s, moved = max((one.start_s for one in asked), default=0.0), -1
    while (next_s := pipe.next_s()) < math.inf:
        now_s = max(now_s, next_s) + STALLED_S
        pipe.run(now_s)
        before, moved = moved, sum(pipe.sent(flow, now_s) for flow in flows.values())
        if moved == before:
            break
    took = (flows[i].arrived_s - flows[i].began_s for i in range(len(asked)))
    return [math.inf if math.isnan(s) else s for s in took]
