"""The simplest network: every client alone on its own link of constant rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from fedsim.instants import At, Instant
from fedsim.network.base import ClientLink, Direction, Links, Network, Transfer, mean_rate
from fedsim.network.tcp import (
    NEW,
    SHORTEST_S,
    Connections,
    Opening,
    last_window,
    loss_limit,
    sent_bytes,
    transfer_s,
)

if TYPE_CHECKING:
    from simpy import Environment, Event


class PrivateLinks(Network):
    """Every client on its own link of constant rate, never slower for the others.

    The server caps each transfer's rate. Durations are those of `fedsim.network.tcp.transfer_s`, or with `naive`
    just size / rate, the formula of simulators that know no TCP.
    """

    def __init__(
        self,
        env: Environment,
        links: Links,
        server_up_bytes_per_s: float,
        server_down_bytes_per_s: float,
        *,
        loss: float = 0.0,
        naive: bool = False,
        connections: Connections | None = None,
    ) -> None:
        """Take the clock, the clients, the server's own rates (its uplink feeds downloads), and how links err.

        Args:
            env: the clock.
            links: of the clients.
            server_up_bytes_per_s: most that any download gets of the server.
            server_down_bytes_per_s: most that any upload gets of it.
            loss: share of packets lost under loss-based congestion control.
            naive: take size / rate for the duration.
            connections: those that clients keep; None: every transfer opens its own.
        """
        self._env = env
        self._links = links
        self._server = {"down": server_up_bytes_per_s, "up": server_down_bytes_per_s}
        self._loss, self._naive = loss, naive
        self._connections = Connections() if connections is None else connections

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer now: its duration is positive for any payload, 0 for none."""
        path = self._path(direction, self._links.profile(client))
        return _Alone(self._env, n_bytes, path, _Owner(self._connections, client, direction))

    def online_until(self, client: int, offline: Event) -> None:
        """A client is online until this event: its connection, if it keeps one, ends with it."""
        self._connections.online_until(client, offline)

    @property
    def foresees(self) -> bool:
        """Whether a transfer is known when it begins: all are, but for connections that are kept, and TLS."""
        return self._connections.plain

    def foreseen(self, direction: Direction, link: ClientLink, n_bytes: int) -> KnownTransfer:
        """Return how a transfer over a client's link will go, on a connection of its own."""
        path = self._path(direction, link)
        seconds = transfer_s(n_bytes, path[0], path[1], path[2])
        if seconds < SHORTEST_S and n_bytes:
            seconds = SHORTEST_S
        return KnownTransfer(n_bytes, path, seconds)

    def _path(self, direction: Direction, link: ClientLink) -> Path:
        """Return the path of a transfer: the slower of the client's and the server's side, less by losses."""
        rate = min(mean_rate(link, direction), self._server[direction])
        return path_alone(rate, link.rtt_s, link.framing, loss=self._loss, naive=self._naive)


class Path(NamedTuple):
    """What a transfer goes over, as `fedsim.network.tcp` takes it: a rate [bytes/s, headers included], a round trip [s], bytes sent a byte."""

    bytes_per_s: float
    rtt_s: float
    framing: float


def path_alone(bytes_per_s: float, rtt_s: float, framing: float, *, loss: float, naive: bool) -> Path:
    """Return the path of a transfer with nobody beside it: less by losses, and a rate alone with `naive`."""
    rate = min(bytes_per_s, loss_limit(loss, rtt_s)) if loss else bytes_per_s
    return Path(rate, 0.0, 1.0) if naive else Path(rate, rtt_s, framing)


class KnownTransfer(NamedTuple):
    """A transfer that will go as foreseen, unless somebody breaks it off.

    Attributes:
        n_bytes, path: what is moved, over what.
        seconds: how long it takes.
    """

    n_bytes: int
    path: Path
    seconds: float

    def sent_bytes(self, elapsed_s: float) -> int:
        """Return the payload that has left the sender so long after its start."""
        return sent_bytes(elapsed_s, self.n_bytes, *self.path, NEW)


def _seconds(n_bytes: int, path: Path, opening: Opening) -> float:
    """Return how long a transfer takes [s]; what moves anything takes some time."""
    seconds = transfer_s(n_bytes, *path, opening)
    return max(seconds, SHORTEST_S) if n_bytes else seconds


class _Owner(NamedTuple):
    """Whose transfer it is, in which direction, and where connections are kept."""

    connections: Connections
    client: int
    direction: Direction


class _Alone:
    """A transfer whose end is known when it starts."""

    def __init__(self, env: Environment, n_bytes: int, path: Path, owner: _Owner) -> None:
        self._env, self._n_bytes, self._path, self._owner = env, n_bytes, path, owner
        self.done = env.event()
        self._began_s = float(env.now)
        self._before = 0  # bytes sent before the last resume
        self._over = False
        self._alarm: Event | None = None
        connections, client, direction = owner
        self._opening = connections.opening(client, direction, path.rtt_s, self._began_s) if n_bytes else NEW
        self._begin()

    def resume(self) -> None:
        if self._over or self._alarm is not None:
            return
        connections, client, _ = self._owner
        self._opening = connections.opened_anew(client, self._path.rtt_s, float(self._env.now))
        self._begin()

    def _begin(self) -> None:
        left = self._n_bytes - self._before
        seconds = _seconds(left, self._path, self._opening)
        if self._before:  # the last bytes may all have left, and not have arrived
            seconds = max(seconds, (self._opening.handshake + 0.5) * self._path.rtt_s, SHORTEST_S)
        self._since_s = float(self._env.now)
        self._due_s = self._since_s + seconds
        self._took_s = (self._since_s - self._began_s) + seconds
        self._alarm = At(self._env, seconds, Instant.LANDING)
        self._alarm.callbacks.append(self._arrive)

    def _arrive(self, alarm: Event) -> None:
        if alarm is self._alarm:
            if self._n_bytes:
                self._keep_connection()
            self._alarm, self._before, self._over = None, self._n_bytes, True
            self.done.succeed(self._took_s)

    def _keep_connection(self) -> None:
        connections, client, direction = self._owner
        window_bytes = last_window(self._n_bytes - self._before, *self._path, self._opening)
        connections.used(client, direction, self._path.rtt_s, float(self._env.now), window_bytes)

    @property
    def due_s(self) -> float:
        return math.inf if self._alarm is None else self._due_s

    def sent_bytes(self, at_s: float | None = None) -> int:
        if self._alarm is None:
            return self._before
        elapsed_s = (float(self._env.now) if at_s is None else at_s) - self._since_s
        return self._before + sent_bytes(elapsed_s, self._n_bytes - self._before, *self._path, self._opening)

    def pause(self) -> None:
        if self._alarm is not None and self._env.now < self._due_s:
            self._before = self.sent_bytes()
            self._alarm = None
            self._owner.connections.break_off(self._owner.client, float(self._env.now))

    def cancel(self) -> int:
        self.pause()
        self._over = self._alarm is None
        return self.sent_bytes()
