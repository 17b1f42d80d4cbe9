"""Connections that stay open between transfers: `network.connection: persistent`.

A client has one connection, as of gRPC or HTTP/2. Its first transfer opens it; a later one, in either direction, needs no
handshake. It is closed when the device goes offline, when a transfer is broken off, and when nobody has used it for
`network.keep_alive_s`. Each side has a window of its own, which survives a silence of one retransmission timeout: after
that a sender begins slow start again (RFC 5681, section 4.1, as Linux does by `tcp_slow_start_after_idle`). So what an
update after minutes of training saves is the handshake, and its slow start is paid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedsim.network.base import Direction
from fedsim.network.tcp import FIRST_WINDOW_BYTES, NEW, Opening, restart_s

if TYPE_CHECKING:
    from simpy import Event


@dataclass(slots=True)
class _Connection:
    """An open connection: when it was used last, and each sender's last byte and window then."""

    used_s: float
    senders: dict[Direction, tuple[float, float]] = field(default_factory=dict)


class Connections:
    """Which clients have a connection to the server."""

    def __init__(self, keep_alive_s: float | None = None) -> None:
        """Take how long one stays open unused; None: every transfer opens its own."""
        self._keep_alive_s = keep_alive_s
        self._open: dict[int, _Connection] = {}
        self._offline: dict[int, Event] = {}

    def online_until(self, client: int, offline: Event) -> None:
        """A client is online until this event; what it had before it went offline is closed."""
        if self._keep_alive_s is None:
            return
        before = self._offline.get(client)
        if before is not None and before.processed:
            self.break_off(client)
        self._offline[client] = offline

    def opening(self, client: int, direction: Direction, rtt_s: float, now_s: float) -> Opening:
        """Return how a transfer that starts now finds its connection."""
        if self._keep_alive_s is None:
            return NEW
        connection = self._open.get(client)
        if connection is None or now_s - connection.used_s > self._keep_alive_s:
            return NEW
        sent = connection.senders.get(direction)
        if sent is None or now_s - sent[0] > restart_s(rtt_s):
            return Opening(handshake=False, window_bytes=FIRST_WINDOW_BYTES)
        return Opening(handshake=False, window_bytes=sent[1])

    def used(
        self, client: int, direction: Direction, rtt_s: float, arrived_s: float, window_bytes: float
    ) -> None:
        """Note that a transfer has arrived: its last byte was sent half a round trip before."""
        if self._keep_alive_s is None:
            return
        connection = self._open.setdefault(client, _Connection(arrived_s))
        connection.used_s = arrived_s
        connection.senders[direction] = (arrived_s - rtt_s / 2, window_bytes)

    def break_off(self, client: int) -> None:
        """A client's connection is gone."""
        self._open.pop(client, None)
