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
from fedsim.network.base import DIRECTIONS, Direction, Links, Network, Rates, Transfer, mean_rate
from fedsim.network.pipe import Flow, LinkInUse, OneWayLink, Pipe
from fedsim.network.private import PrivateLinks
from fedsim.network.tcp import loss_limit
from fedsim.network.traces import ConstantRate, SlowerRate

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
    ) -> None:
        """Take the clock, the clients, and the server's own rates.

        Args:
            env: the clock.
            links: of the clients; `rates(client, direction)` gives those that change.
            server_up: the server's uplink, which feeds downloads [bytes/s].
            server_down: its downlink, which takes uploads [bytes/s].
            loss: share of packets lost under loss-based congestion control.
            isolated: nobody slows anybody down.
        """
        self._env, self._links = env, links
        self._loss, self._isolated = loss, isolated
        sides: dict[Direction, float | Rates] = {"down": server_up, "up": server_down}
        self._server = {
            d: ConstantRate(side) if isinstance(side, (int, float)) else side for d, side in sides.items()
        }
        self._directions: dict[Direction, Network] = {
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
        return PrivateLinks(self._env, self._links, rate, rate, loss=self._loss)

    def _pipe(self, direction: Direction) -> _PipeOnClock:
        server = ConstantRate(math.inf) if self._isolated else self._server[direction]
        return _PipeOnClock(self._env, Pipe(server), self._link)

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer now."""
        return self._directions[direction].transfer(direction, client, n_bytes)

    def _link(self, direction: Direction, client: int) -> OneWayLink:
        """Return a client's link in one direction."""
        link = self._links.profile(client)
        rates: Rates = self._links.rates(client, direction) or ConstantRate(mean_rate(link, direction))
        if self._isolated:
            rates = SlowerRate(rates, self._server[direction])
        return OneWayLink(rates, link.rtt_s, link.framing, loss_limit(self._loss, link.rtt_s))


class _PipeOnClock:
    """One pipe, and the wake-ups that it needs."""

    def __init__(self, env: Environment, pipe: Pipe, link_of: Callable[[Direction, int], OneWayLink]) -> None:
        self._env, self._pipe, self._link_of = env, pipe, link_of
        self._in_use: dict[int, LinkInUse] = {}
        self._under_way: dict[int, _Sharing] = {}
        self._armed: list[float] = []

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        self.let_happen()
        link = self._in_use.setdefault(client, LinkInUse(self._link_of(direction, client)))
        link.users += 1
        flow = self._pipe.open(link, n_bytes, float(self._env.now))
        self._under_way[flow.number] = transfer = _Sharing(self._env, self, self._pipe, flow, client)
        self.arm_wake_up()
        return transfer

    def let_happen(self) -> None:
        """Let everything that is due happen."""
        for flow in self._pipe.run(float(self._env.now)):
            transfer = self._under_way[flow.number]
            self.forget_transfer(transfer)
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
        at_s = self._pipe.next_s()
        if at_s < (self._armed[0] if self._armed else math.inf):
            heappush(self._armed, at_s)
            At(self._env, at_s - self._env.now, Instant.LANDING).callbacks.append(self._wake)

    def _wake(self, _: Event) -> None:
        heappop(self._armed)
        self.let_happen()
        self.arm_wake_up()


class _Sharing:
    """A transfer in a pipe."""

    def __init__(self, env: Environment, on_clock: _PipeOnClock, pipe: Pipe, flow: Flow, client: int) -> None:
        self._env, self._on_clock, self._pipe, self.flow, self.client = env, on_clock, pipe, flow, client
        self.done = env.event()
        self._over = False

    @property
    def due_s(self) -> float:
        return self._pipe.due_s(self.flow)

    def sent_bytes(self, at_s: float | None = None) -> int:
        if at_s is None:
            self._on_clock.let_happen()
        return self._pipe.sent(self.flow, float(self._env.now) if at_s is None else at_s)

    def pause(self) -> None:
        self._on_clock.let_happen()
        if not self.done.triggered:
            self._pipe.stop(self.flow, float(self._env.now))
            self._on_clock.arm_wake_up()

    def resume(self) -> None:
        if not self._over and not self.done.triggered:
            self._on_clock.let_happen()
            self._pipe.resume(self.flow, float(self._env.now))
            self._on_clock.arm_wake_up()

    def cancel(self) -> int:
        self.pause()
        self._over = True
        self._on_clock.forget_transfer(self)
        return self._pipe.sent(self.flow, float(self._env.now))
