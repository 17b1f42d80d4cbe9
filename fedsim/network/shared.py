"""Transfers as fluids: max-min fair shares of the server's link, and rates that change over time.

Clients may share links before the server's, too: those of a home, a cell, a region (`fedsim.network.sharing`).

Two pipes (`fedsim.network.pipe`), the server's uplink for downloads and its downlink for uploads. SimPy cannot take
an event back, so a pipe arms a wake-up only for what comes before all that it has armed; one that comes too
early looks, and arms the next. What falls due at an instant happens at `LANDING`, before the ends of
windows and the commits of that instant.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedsim.instants import At, Instant
from fedsim.network.base import DIRECTIONS, Direction, Groups, Links, Network, Rates, Transfer, mean_rate
from fedsim.network.pipe import Pipe
from fedsim.network.private import PrivateLinks
from fedsim.network.sharing.any_links import AnyLinks
from fedsim.network.sharing.flow import Flow, LinkInUse, OneWayLink
from fedsim.network.sharing.max_min_tree import Bottleneck, MaxMinTree
from fedsim.network.tcp import NEW, Connections, Opening, loss_limit
from fedsim.network.traces import ConstantRate, SlowerRate, refuse_endless
from fedsim.network.transport.cdn import InTurn

if TYPE_CHECKING:
    from collections.abc import Callable

    from simpy import Environment, Event

    from fedsim.network.transport.loss_bursts import Bursts


class FluidNetwork(Network):
    """Clients share the server's link fairly; their own links and the server's may change over time.

    With `isolated`, transfers do not slow each other down: the server's rate is the most that any of them
    gets, as on `PrivateLinks`, but rates that change over time are followed.
    """

    def __init__(
        self,
        env: Environment,
        links: Links,
        server_up: float | Rates,
        server_down: float | Rates,
        *,
        loss: float = 0.0,
        isolated: bool = False,
        connections: Connections | None = None,
        groups: Groups | None = None,
        bursts: Bursts | None = None,
        cdn: Connections | None = None,
    ) -> None:
        """Take the clock, the clients, and the server's own rates.

        Args:
            env: the clock.
            links: of the clients; `rates(client, direction)` gives those that change.
            server_up: the server's uplink, which feeds downloads [bytes/s].
            server_down: its downlink, which takes uploads [bytes/s].
            loss: share of packets lost under loss-based congestion control.
            isolated: nobody slows anybody down.
            connections: those that clients keep; None: every transfer opens its own.
            groups: who shares links between its own and the server's.
            bursts: spells in which more is lost.
            cdn: connections to a CDN whose downloads pass the links of `groups`, and not the server's.
        """
        self._env, self._links, self._groups, self._bursts = env, links, groups, bursts
        self._loss, self._isolated = loss, isolated
        self._connections = Connections() if connections is None else connections
        self._cdn = cdn
        sides: dict[Direction, float | Rates] = {"down": server_up, "up": server_down}
        self._server = {
            d: ConstantRate(side) if isinstance(side, (int, float)) else side for d, side in sides.items()
        }
        self._directions: dict[Direction, PrivateLinks | _PipeOnClock] = {
            direction: self._private(direction) or self._pipe(direction) for direction in DIRECTIONS
        }

    def _private(self, direction: Direction) -> PrivateLinks | None:
        """Return the closed form, where the server can never be the bottleneck and nothing changes."""
        server = self._server[direction]
        if self._links.varying or self._groups or self._bursts or not isinstance(server, ConstantRate):
            return None
        rate = server.bytes_per_s
        if not self._isolated and float(np.sum(self._links.mean_rates(direction))) > rate:
            return None
        return PrivateLinks(
            self._env, self._links, rate, rate, loss=self._loss, connections=self._connections
        )

    def _pipe(self, direction: Direction) -> _PipeOnClock:
        if self._cdn is not None and direction == "down":
            return _PipeOnClock(self._env, Pipe(ConstantRate(math.inf), AnyLinks), self._link)
        server = ConstantRate(math.inf) if self._isolated else self._server[direction]
        pipe = Pipe(server) if self._groups is None else Pipe(server, MaxMinTree)
        return _PipeOnClock(self._env, pipe, self._link)

    @property
    def private(self) -> dict[Direction, PrivateLinks]:
        """The directions in which nobody slows anybody down, at rates that never change."""
        sides = self._directions.items()
        return {direction: side for direction, side in sides if isinstance(side, PrivateLinks)}

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer now."""
        way = self._directions[direction]
        if isinstance(way, PrivateLinks):
            return way.transfer(direction, client, n_bytes)
        return way.transfer(_From(client, direction, self._connections), n_bytes)

    def download(self, client: int, n_bytes: int, cdn_bytes: int) -> Transfer:
        """Start a download now: `cdn_bytes` of it from the CDN, if there is one, and when they are there the rest."""
        way = self._directions["down"]
        if self._cdn is None or isinstance(way, PrivateLinks):
            return self.transfer("down", client, n_bytes)
        first = way.transfer(_From(client, "down", self._cdn, cdn=True), cdn_bytes)
        if cdn_bytes == n_bytes:
            return first
        return InTurn(self._env, first, lambda: self.transfer("down", client, n_bytes - cdn_bytes))

    def online_until(self, client: int, offline: Event) -> None:
        """A client is online until this event: its connection, if it keeps one, ends with it."""
        self._connections.online_until(client, offline)

    def _link(self, source: _From) -> OneWayLink:
        """Return a client's link in one direction, and what lies behind it."""
        client, direction = source.client, source.direction
        link = self._links.profile(client)
        rates: Rates = self._links.rates(client, direction) or ConstantRate(mean_rate(link, direction))
        if self._isolated:
            rates = SlowerRate(rates, self._server[direction])
        if self._bursts:
            rates = SlowerRate(rates, self._bursts.limit(client, self._loss, link.rtt_s))
        path = self._groups.path(client, direction) if self._groups else ()
        if self._cdn is not None and direction == "down" and not source.cdn:
            path = (*path, Bottleneck(("server", 0), self._server[direction].rate(0.0)))
        return OneWayLink(rates, link.rtt_s, link.framing, loss_limit(self._loss, link.rtt_s), path)


class _From(NamedTuple):
    """Whose transfers, in which direction, over which connections; and whether a CDN sends them."""

    client: int
    direction: Direction
    connections: Connections
    cdn: bool = False

    def opening(self, rtt_s: float, now_s: float) -> Opening:
        """Return how a transfer that starts now finds its connection."""
        return self.connections.opening(self.client, self.direction, rtt_s, now_s)


class _PipeOnClock:
    """One pipe, and the wake-ups that it needs."""

    def __init__(
        self,
        env: Environment,
        pipe: Pipe,
        link_of: Callable[[_From], OneWayLink],
    ) -> None:
        self.env, self.pipe, self._link_of = env, pipe, link_of
        self._in_use: dict[_From, LinkInUse] = {}
        self._under_way: dict[int, _Sharing] = {}
        self._armed: list[float] = []

    def transfer(self, source: _From, n_bytes: int) -> Transfer:
        self.let_happen()
        link = self._in_use.setdefault(source, LinkInUse(self._link_of(source)))
        refuse_endless(link.side.rates, n_bytes * link.side.framing)
        link.users += 1
        now_s = self.now_s
        opening = source.opening(link.side.rtt_s, now_s) if n_bytes else NEW
        flow = self.pipe.open(link, n_bytes, now_s, opening)
        self._under_way[flow.number] = transfer = _Sharing(self, flow, source)
        self.arm_wake_up()
        return transfer

    @property
    def now_s(self) -> float:
        """The clock's time [s]."""
        return float(self.env.now)

    def stop(self, transfer: _Sharing) -> None:
        """Break a transfer off, and its connection with it."""
        self.pipe.stop(transfer.flow, self.now_s)
        transfer.source.connections.break_off(transfer.source.client, self.now_s)
        self.arm_wake_up()

    def go_on(self, transfer: _Sharing) -> None:
        """Let a transfer that was stopped go on, on a new connection."""
        rtt_s, now_s = transfer.flow.link.side.rtt_s, self.now_s
        if transfer.flow.place == "stopped":
            source = transfer.source
            opening = source.connections.opened_anew(source.client, rtt_s, now_s)
            self.pipe.resume(transfer.flow, now_s, opening)

    def let_happen(self) -> None:
        """Let everything that is due happen."""
        for flow in self.pipe.run(self.now_s):
            transfer = self._under_way[flow.number]
            self.forget_transfer(transfer)
            if flow.n_bytes:
                rtt_s, at_s = flow.link.side.rtt_s, flow.arrived_s
                client, direction, connections, _ = transfer.source
                connections.used(client, direction, rtt_s, at_s, flow.reached)
            transfer.done.succeed(flow.arrived_s - flow.began_s)

    def forget_transfer(self, transfer: _Sharing) -> None:
        """A transfer is over; the client's link is let go with its last one."""
        if self._under_way.pop(transfer.flow.number, None) is None:
            return
        link = transfer.flow.link
        link.users -= 1
        if not link.users:
            del self._in_use[transfer.source]

    def arm_wake_up(self) -> None:
        """See to it that there is a wake-up when something happens next."""
        at_s = self.pipe.next_s()
        if at_s < (self._armed[0] if self._armed else math.inf):
            heappush(self._armed, at_s)
            At(self.env, at_s - self.env.now, Instant.LANDING).callbacks.append(self._wake)

    def _wake(self, _: Event) -> None:
        heappop(self._armed)
        self.let_happen()
        self.arm_wake_up()


class _Sharing:
    """A transfer in a pipe."""

    def __init__(self, on_clock: _PipeOnClock, flow: Flow, source: _From) -> None:
        self._on_clock, self.flow, self.source = on_clock, flow, source
        self.done = on_clock.env.event()
        self._over = False

    @property
    def due_s(self) -> float:
        return self._on_clock.pipe.due_s(self.flow)

    def sent_bytes(self, at_s: float | None = None) -> int:
        if at_s is None:
            self._on_clock.let_happen()
        return self._on_clock.pipe.sent(self.flow, self._on_clock.now_s if at_s is None else at_s)

    def pause(self) -> None:
        self._on_clock.let_happen()
        if not self.done.triggered:
            self._on_clock.stop(self)

    def resume(self) -> None:
        if not self._over and not self.done.triggered:
            self._on_clock.let_happen()
            self._on_clock.go_on(self)
            self._on_clock.arm_wake_up()

    def cancel(self) -> int:
        self.pause()
        self._over = True
        self._on_clock.forget_transfer(self)
        return self._on_clock.pipe.sent(self.flow, self._on_clock.now_s)
