"""Transfers as fluids: max-min fair shares of the server's link, and rates that change over time.

Two pipes (`fedsim.network.pipe`), the server's uplink for downloads and its downlink for uploads. SimPy cannot take
an event back, so a pipe arms a wake-up only for what comes before all that it has armed; one that comes too
early looks, and arms the next. What falls due at an instant happens at `LANDING`, before the ends of
windows and the commits of that instant.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from fedsim.instants import At, Instant
from fedsim.network.base import DIRECTIONS, Direction, Links, Rates, Transfer, mean_rate
from fedsim.network.pipe import Flow, LinkInUse, OneWayLink, Pipe
from fedsim.network.private import PrivateLinks
from fedsim.network.tcp import Connections, loss_limit
from fedsim.network.traces import ConstantRate, SlowerRate, refuse_endless

if TYPE_CHECKING:
    from collections.abc import Callable

    from simpy import Environment, Event


class FluidNetwork:
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
        """
        self._env, self._links = env, links
        self._loss, self._isolated = loss, isolated
        self._connections = Connections() if connections is None else connections
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
        if self._links.varying or not isinstance(server, ConstantRate):
            return None
        rate = server.bytes_per_s
        if not self._isolated and float(np.sum(self._links.mean_rates(direction))) > rate:
            return None
        return PrivateLinks(
            self._env, self._links, rate, rate, loss=self._loss, connections=self._connections
        )

    def _pipe(self, direction: Direction) -> _PipeOnClock:
        server = ConstantRate(math.inf) if self._isolated else self._server[direction]
        return _PipeOnClock(self._env, Pipe(server), self._link, self._connections)

    @property
    def private(self) -> dict[Direction, PrivateLinks]:
        """The directions in which nobody slows anybody down, at rates that never change."""
        sides = self._directions.items()
        return {direction: side for direction, side in sides if isinstance(side, PrivateLinks)}

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer now."""
        return self._directions[direction].transfer(direction, client, n_bytes)

    def online_until(self, client: int, offline: Event) -> None:
        """A client is online until this event: its connection, if it keeps one, ends with it."""
        self._connections.online_until(client, offline)

    def _link(self, direction: Direction, client: int) -> OneWayLink:
        """Return a client's link in one direction."""
        link = self._links.profile(client)
        rates: Rates = self._links.rates(client, direction) or ConstantRate(mean_rate(link, direction))
        if self._isolated:
            rates = SlowerRate(rates, self._server[direction])
        return OneWayLink(rates, link.rtt_s, link.framing, loss_limit(self._loss, link.rtt_s))


class _PipeOnClock:
    """One pipe, and the wake-ups that it needs."""

    def __init__(
        self,
        env: Environment,
        pipe: Pipe,
        link_of: Callable[[Direction, int], OneWayLink],
        connections: Connections,
    ) -> None:
        self.env, self.pipe, self._link_of, self._connections = env, pipe, link_of, connections
        self._in_use: dict[int, LinkInUse] = {}
        self._under_way: dict[int, _Sharing] = {}
        self._armed: list[float] = []

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        self.let_happen()
        link = self._in_use.setdefault(client, LinkInUse(self._link_of(direction, client)))
        refuse_endless(link.side.rates, n_bytes * link.side.framing)
        link.users += 1
        now_s = self.now_s
        opening = self._connections.opening(client, direction, link.side.rtt_s, now_s)
        flow = self.pipe.open(link, n_bytes, now_s, opening)
        self._under_way[flow.number] = transfer = _Sharing(self, flow, client, direction)
        self.arm_wake_up()
        return transfer

    @property
    def now_s(self) -> float:
        """The clock's time [s]."""
        return float(self.env.now)

    def stop(self, transfer: _Sharing) -> None:
        """Break a transfer off, and its connection with it."""
        self.pipe.stop(transfer.flow, self.now_s)
        self._connections.break_off(transfer.client)
        self.arm_wake_up()

    def let_happen(self) -> None:
        """Let everything that is due happen."""
        for flow in self.pipe.run(self.now_s):
            transfer = self._under_way[flow.number]
            self.forget_transfer(transfer)
            if flow.n_bytes:
                rtt_s, at_s = flow.link.side.rtt_s, flow.arrived_s
                self._connections.used(transfer.client, transfer.direction, rtt_s, at_s, flow.reached)
            transfer.done.succeed(flow.arrived_s - flow.began_s)

    def forget_transfer(self, transfer: _Sharing) -> None:
        """A transfer is over; the client's link is let go with its last one."""
        if self._under_way.pop(transfer.flow.number, None) is None:
            return
        link = transfer.flow.link
        link.users -= 1
        if not link.users:
            del self._in_use[transfer.client]

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

    def __init__(self, on_clock: _PipeOnClock, flow: Flow, client: int, direction: Direction) -> None:
        self._on_clock, self.flow, self.client, self.direction = on_clock, flow, client, direction
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
            self._on_clock.pipe.resume(self.flow, self._on_clock.now_s)
            self._on_clock.arm_wake_up()

    def cancel(self) -> int:
        self.pause()
        self._over = True
        self._on_clock.forget_transfer(self)
        return self._on_clock.pipe.sent(self.flow, self._on_clock.now_s)
