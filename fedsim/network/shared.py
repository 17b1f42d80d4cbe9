"""The network on which transfers slow each other down: max-min fair shares of the server's link.

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
from fedsim.network.base import Direction, Transfer
from fedsim.network.pipe import Access, Asked, Constant, Flow, Path, Pipe, Slower, Steps, predict
from fedsim.network.private import PrivateLinks
from fedsim.network.tcp import loss_limit

if TYPE_CHECKING:
    from simpy import Environment, Event

    from fedsim.devices.population import Population


class FluidNetwork:
    """Clients share the server's link fairly; their own links and the server's may change over time.

    With `isolated`, transfers do not slow each other down: the server's rate is the most that any of them
    gets, as on `PrivateLinks`, but rates that change over time are followed.
    """

    def __init__(
        self,
        env: Environment,
        population: Population,
        server_up: float | Steps,
        server_down: float | Steps,
        *,
        loss: float = 0.0,
        isolated: bool = False,
    ) -> None:
        """Take the clock, the clients, and the server's own rates.

        Args:
            env: the clock.
            population: whose links; `rates(client, direction)` gives those that change.
            server_up: the server's uplink, which feeds downloads [bytes/s].
            server_down: its downlink, which takes uploads [bytes/s].
            loss: share of packets lost under loss-based congestion control.
            isolated: nobody slows anybody down.
        """
        self._env, self._population = env, population
        self._loss, self._isolated = loss, isolated
        sides: dict[Direction, float | Steps] = {"down": server_up, "up": server_down}
        self._server = {
            d: Constant(side) if isinstance(side, (int, float)) else side for d, side in sides.items()
        }
        self._lines: dict[Direction, _Line | PrivateLinks] = {
            direction: self._private(direction)
            or _Line(env, Pipe(Constant(math.inf) if isolated else server))
            for direction, server in self._server.items()
        }

    def _private(self, direction: Direction) -> PrivateLinks | None:
        """Return the closed form, where the server can never be the bottleneck and nothing changes."""
        server = self._server[direction]
        if self._population.varying or not isinstance(server, Constant):
            return None
        rates = np.asarray(self._population.columns()[f"{direction}_bytes_per_s"])
        if not self._isolated and float(np.sum(rates)) > server.bytes_per_s:
            return None
        rate = server.bytes_per_s
        return PrivateLinks(self._env, self._population, rate, rate, loss=self._loss)

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer now."""
        line = self._lines[direction]
        if isinstance(line, PrivateLinks):
            return line.transfer(direction, client, n_bytes)
        return line.transfer(client, self._path(direction, client), n_bytes)

    def duration_s(self, direction: Direction, client: int, n_bytes: int) -> float:
        """Return how long the transfer would take from now if the client were alone; inf for ever."""
        line = self._lines[direction]
        if isinstance(line, PrivateLinks):
            return line.duration_s(direction, client, n_bytes)
        server = Constant(math.inf) if self._isolated else self._server[direction]
        asked = Asked(client, n_bytes, float(self._env.now))
        return predict([asked], {client: self._path(direction, client)}, server)[0]

    def bytes_per_s(self, direction: Direction, client: int) -> float:
        """Return the mean rate of that transfer if the client were alone: the slowest of what it meets."""
        profile = self._population.profile(client)
        own = profile.down_bytes_per_s if direction == "down" else profile.up_bytes_per_s
        server = self._server[direction]
        return min(own, server.rate(float(self._env.now)), loss_limit(self._loss, profile.rtt_s))

    def _path(self, direction: Direction, client: int) -> Path:
        profile = self._population.profile(client)
        own = profile.down_bytes_per_s if direction == "down" else profile.up_bytes_per_s
        steps: Steps = self._population.rates(client, direction) or Constant(own)
        if self._isolated:
            steps = Slower(steps, self._server[direction])
        return Path(steps, profile.rtt_s, profile.framing, loss_limit(self._loss, profile.rtt_s))


class _Line:
    """One pipe on the clock."""

    def __init__(self, env: Environment, pipe: Pipe) -> None:
        self._env, self._pipe = env, pipe
        self._accesses: dict[int, Access] = {}
        self._under_way: dict[int, _Sharing] = {}
        self._armed: list[float] = []

    def transfer(self, client: int, path: Path, n_bytes: int) -> _Sharing:
        self.look()
        access = self._accesses.setdefault(client, Access(path))
        access.users += 1
        flow = self._pipe.open(access, n_bytes, float(self._env.now))
        self._under_way[flow.number] = transfer = _Sharing(self._env, self, self._pipe, flow, client)
        self.arm()
        return transfer

    def look(self) -> None:
        """Let everything that is due happen."""
        for flow in self._pipe.run(float(self._env.now)):
            transfer = self._under_way[flow.number]
            self.forget(transfer)
            transfer.done.succeed(flow.arrived_s - flow.began_s)

    def forget(self, transfer: _Sharing) -> None:
        """A transfer is over; the client's link is let go with its last one."""
        if self._under_way.pop(transfer.flow.number, None) is None:
            return
        access = transfer.flow.access
        access.users -= 1
        if not access.users:
            del self._accesses[transfer.client]

    def arm(self) -> None:
        """See to it that there is a wake-up when something happens next."""
        at_s = self._pipe.next_s()
        if at_s < (self._armed[0] if self._armed else math.inf):
            heappush(self._armed, at_s)
            At(self._env, at_s - self._env.now, Instant.LANDING).callbacks.append(self._wake)

    def _wake(self, _: Event) -> None:
        heappop(self._armed)
        self.look()
        self.arm()


class _Sharing:
    """A transfer on a line."""

    def __init__(self, env: Environment, line: _Line, pipe: Pipe, flow: Flow, client: int) -> None:
        self._env, self._line, self._pipe, self.flow, self.client = env, line, pipe, flow, client
        self.done = env.event()
        self._over = False

    def sent_bytes(self, at_s: float | None = None) -> int:
        if at_s is None:
            self._line.look()
        return self._pipe.sent(self.flow, float(self._env.now) if at_s is None else at_s)

    def pause(self) -> None:
        self._line.look()
        if not self.done.triggered:
            self._pipe.stop(self.flow, float(self._env.now))
            self._line.arm()

    def resume(self) -> None:
        if not self._over and not self.done.triggered:
            self._line.look()
            self._pipe.resume(self.flow, float(self._env.now))
            self._line.arm()

    def cancel(self) -> int:
        self.pause()
        self._over = True
        self._line.forget(self)
        return self._pipe.sent(self.flow, float(self._env.now))
