"""Transfers over one direction of the server's link: handshake, slow start, fair shares, last packet's way.

A transfer waits a round trip (or more, with TLS) for its handshake, then takes part in the `MaxMinLink`, or in the
`MaxMinTree` where clients share links before the server's, and its last byte
arrives half a round trip after it was sent. Its cap is the rate of the client's own link; slow start
lowers it: round k lets 2^k x 15,000 bytes through, one round a round trip, until the window covers the
link's bandwidth-delay product or the rest of the file. Alone on a link of constant rate this is
`fedsim.network.tcp.transfer_s`. Rates that change are followed exactly, step by step. Errors against real TCP:
0.9 % on average behind a fair queue; behind a drop-tail queue TCP itself is not fair, and no model of
fair shares can be right about a single transfer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from fedsim.network.base import Rates
from fedsim.network.max_min import MaxMinLink
from fedsim.network.sharing.any_links import AnyLinks
from fedsim.network.sharing.flow import Flow, LinkInUse
from fedsim.network.sharing.max_min_tree import MaxMinTree
from fedsim.network.tcp import NEW, ROUNDING_BYTES, SHORTEST_S, Opening

Shares = MaxMinLink | MaxMinTree | AnyLinks
"""What shares the links among the transfers."""


class Pipe:
    """One direction of the server's link and all that moves over it. Pure: the caller keeps the clock.

    Times given must not decrease; `run` to a time before changing anything at that time.
    """

    def __init__(self, capacity: Rates, shares: Callable[[float, float], Shares] = MaxMinLink) -> None:
        """Take the server's rate (`ConstantRate(math.inf)` if it limits nothing).

        Args:
            capacity: over time.
            shares: makes the shares at a capacity and a time; other ones than of a single link where links lie between
                the clients' own and the server's (`OneWayLink.path`).
        """
        self.stamp = 0
        self._capacity, self._shares_of = capacity, shares
        self._shares: Shares | None = None
        self._agenda: list[tuple[float, int, Flow | LinkInUse | Pipe]] = []
        self._moving: dict[int, Flow] = {}
        self._numbers, self._stamps = count(), count(1)

    def open(self, link: LinkInUse, n_bytes: int, at_s: float, opening: Opening = NEW) -> Flow:
        """Start a transfer; nothing to send arrives at once.

        Args:
            link: of the client.
            n_bytes: payload.
            at_s: now.
            opening: whether there is a handshake, and the first window.

        Raises:
            ValueError: negative bytes.
        """
        if n_bytes < 0:
            raise ValueError(f"n_bytes must not be negative (got {n_bytes})")
        flow = Flow(next(self._numbers), link, n_bytes, at_s)
        if n_bytes:
            self.resume(flow, at_s, opening)
        else:
            self._arrive(flow, at_s)
        return flow

    def resume(self, flow: Flow, at_s: float, opening: Opening = NEW) -> None:
        """Let a stopped transfer go on with what it has left, by default on a new connection."""
        if flow.place == "stopped":
            flow.place, flow.reached = "handshake", opening.window_bytes
            self._schedule(flow, at_s + opening.handshake * flow.link.side.rtt_s)

    def stop(self, flow: Flow, at_s: float) -> None:
        """Stop a transfer, which frees its share; what has arrived has arrived."""
        if flow.place == "arrived":
            return
        if flow.place == "moving":
            flow.left = self._shares_at(at_s).remove(flow.number, at_s)
            self._leave(flow, at_s)
        flow.stamp = 0
        flow.place = "stopped"

    def sent(self, flow: Flow, at_s: float) -> int:
        """Return the payload that has left the sender by `at_s`, if nothing happens until then."""
        left = flow.left
        if flow.place == "moving" and self._shares is not None and flow.number in self._shares:
            left = self._shares.left(flow.number, at_s)
        if left <= 0:
            return flow.n_bytes
        return max(0, min(flow.n_bytes, int(flow.n_bytes - left / flow.link.side.framing + ROUNDING_BYTES)))

    def due_s(self, flow: Flow) -> float:
        """Return when a transfer arrives, if it has been sent or is the next to be; inf: it is not known."""
        if flow.place == "arriving":
            return flow.arrives_s
        due = self._shares.next_finish() if flow.place == "moving" and self._shares is not None else None
        return math.inf if due is None or due[1] != flow.number else self._arrival_s(flow, due[0])

    def next_s(self) -> float:
        """Return when something happens next; inf if nothing will."""
        return min(self._next())

    def _next(self) -> tuple[float, float]:
        """Return when the next transfer has been sent, and when the next thing noted happens."""
        agenda = self._agenda
        while agenda and agenda[0][2].stamp != agenda[0][1]:
            heappop(agenda)
        due = self._shares.next_finish() if self._moving and self._shares is not None else None
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
            elif isinstance(what, LinkInUse):
                self._change(what, at_s)
            elif self._moving:
                self._shares_at(at_s).set_capacity(self._capacity.rate(at_s), at_s)
                self._schedule(self, self._capacity.next_change(at_s))

    # what happens to a transfer -------------------------------------------------------------------

    def _happen(self, flow: Flow, at_s: float, arrived: list[Flow]) -> None:
        flow.stamp = 0
        if flow.place == "handshake":
            self._join(flow, at_s)
        elif flow.place == "moving":
            flow.window *= 2
            flow.reached = flow.window
            self._round(flow, at_s)
            self._share(flow.link, at_s)
        else:
            flow.place = "arrived"
            flow.arrived_s = at_s
            arrived.append(flow)

    def _join(self, flow: Flow, at_s: float) -> None:
        link = flow.link
        flow.place = "moving"
        flow.window = flow.reached
        if not link.flows:
            link.rate = link.side.rates.rate(at_s)
            self._schedule(link, link.side.rates.next_change(at_s))
        shares = self._shares_at(at_s)
        self._moving[flow.number] = link.flows[flow.number] = flow
        self._round(flow, at_s)
        cap = min(link.rate, flow.limit)
        if isinstance(shares, MaxMinLink):
            shares.add(flow.number, flow.left, cap, at_s)
        else:
            shares.add(flow.number, flow.left, cap, at_s, link.side.path)
        if len(link.flows) > 1:
            self._share(link, at_s)

    def _round(self, flow: Flow, at_s: float) -> None:
        """Begin a round trip of slow start, or end it: the window covers the link, or what is left."""
        if math.isinf(flow.window):
            return
        side, rate = flow.link.side, min(flow.link.rate, flow.link.side.limit)
        if rate == 0:  # an outage: the next round begins after it
            return
        shares = self._shares_at(at_s)
        left = flow.left if flow.number not in shares else shares.left(flow.number, at_s)
        if flow.window >= rate * side.rtt_s or left <= flow.window + ROUNDING_BYTES:
            flow.window = math.inf
        else:
            self._schedule(flow, at_s + side.rtt_s)

    def _all_sent(self, at_s: float) -> None:
        _, number = self._shares_at(at_s).finish()
        flow = self._moving[number]
        flow.left = 0.0
        self._leave(flow, at_s)
        self._arrive(flow, self._arrival_s(flow, at_s))

    def _arrive(self, flow: Flow, at_s: float) -> None:
        flow.place, flow.arrives_s = "arriving", at_s
        self._schedule(flow, at_s)

    def _arrival_s(self, flow: Flow, sent_s: float) -> float:
        return max(sent_s + flow.link.side.rtt_s / 2, flow.began_s + SHORTEST_S)

    def _leave(self, flow: Flow, at_s: float) -> None:
        del self._moving[flow.number], flow.link.flows[flow.number]
        if flow.link.flows:
            self._share(flow.link, at_s)
        else:
            flow.link.stamp = 0

    # rates ----------------------------------------------------------------------------------------

    def _shares_at(self, at_s: float) -> Shares:
        """Return the fair shares; their capacity is followed only while somebody has one."""
        if self._shares is None:
            self._shares = self._shares_of(self._capacity.rate(at_s), at_s)
            self._schedule(self, self._capacity.next_change(at_s))
        elif not self._moving:
            self._shares.set_capacity(self._capacity.rate(at_s), at_s)
            self._schedule(self, self._capacity.next_change(at_s))
        return self._shares

    def _change(self, link: LinkInUse, at_s: float) -> None:
        """The client's own link has another rate from now on."""
        before, link.rate = link.rate, link.side.rates.rate(at_s)
        self._schedule(link, link.side.rates.next_change(at_s))
        if before == 0 < link.rate:
            for flow in link.flows.values():
                if not flow.stamp:
                    self._round(flow, at_s)
        self._share(link, at_s)

    def _share(self, link: LinkInUse, at_s: float) -> None:
        """Give each transfer of a client its cap: the client's own link, shared max-min by their limits."""
        shares = self._shares_at(at_s)
        rate, n = link.rate, len(link.flows)
        flows = link.flows.values()
        for flow in sorted(flows, key=lambda flow: (flow.limit, flow.number)) if n > 1 else flows:
            cap = min(rate / n, flow.limit)
            shares.set_cap(flow.number, cap, at_s)
            rate, n = rate - cap, n - 1

    def _schedule(self, what: Flow | LinkInUse | Pipe, at_s: float) -> None:
        """Note the next thing that happens to something; what was noted before is void."""
        what.stamp = next(self._stamps)
        if at_s < math.inf:
            heappush(self._agenda, (at_s, what.stamp, what))
