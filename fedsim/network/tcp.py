"""How TCP takes a path: one transfer alone in closed form, its slow start, and what losses leave of a rate.

Error against real TCP through a link emulator (single uploads of 1-5 MB at 1-20 Mbit/s and 50 ms):
1.7 % on average, 17 % at most, where size / rate alone errs by 13 %. The largest errors are short transfers whose
slow start overshoots a shallow buffer: they lose packets, BBR's too, and no loss is modelled there. Not modelled
either: radio wake-up. TLS is `fedsim.network.transport.tls`.

Connections that stay open between transfers are `network.connection: persistent`. A client has one, as of gRPC or HTTP/2:
its first transfer opens it, and a later one, in either direction, needs no handshake. It is closed when the device goes
offline, when a transfer is broken off, and when nobody has used it for `network.keep_alive_s`. Each side has a window of its
own, which survives a silence of one retransmission timeout: after that a sender begins slow start again (RFC 5681, section
4.1, as Linux does by `tcp_slow_start_after_idle`). So what an update after minutes of training saves is the handshake. Not
modelled: that a device whose battery or heat is followed was offline between two visits; its windows and outages are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fedsim.network.base import Direction
from fedsim.network.transport.tls import PLAIN, Handshakes

if TYPE_CHECKING:
    from simpy import Event

FIRST_WINDOW_BYTES = 15_000.0
"""TCP's first window: 10 packets of 1,500 bytes (RFC 6928); it doubles each round trip."""
PACKET_BYTES = 1500.0
ROUNDING_BYTES = 1e-6
"""A file of exactly 70 packets must not wait a round trip for the last bit of a float."""
SHORTEST_S = 1e-6
"""No transfer is shorter: a visit that took no time would let an asynchronous server spin in one instant."""
TIMEOUT_FLOOR_S = 0.2
"""What a retransmission timeout adds to the round trip at least (Linux's TCP_RTO_MIN)."""
PACKETS_PER_ACK = 2.0


class Opening(NamedTuple):
    """How a transfer finds its connection.

    Attributes:
        handshake: round trips until its first byte may leave: one for TCP, more with TLS, none if it is open.
        window_bytes: what its sender may send in the first round trip of slow start.
    """

    handshake: int = 1
    window_bytes: float = FIRST_WINDOW_BYTES


NEW = Opening()
"""A connection of its own."""


def transfer_s(
    n_bytes: int, bytes_per_s: float, rtt_s: float, framing: float, opening: Opening = NEW
) -> float:
    """Return the seconds from the first SYN (or the first byte, on an open connection) to the last byte's arrival.

    framing x size / rate + one RTT (handshake) + RTT / 2 (the way there) + the sender's idle time in
    slow start: sum over k of max(0, RTT - 2^k x 15,000 / rate), while the window is below the
    bandwidth-delay product and bytes are left.

    Args:
        n_bytes: payload; 0 takes no time.
        bytes_per_s: rate of the slowest link, headers included.
        rtt_s: round-trip time.
        framing: bytes on the wire per byte of payload (1500/1448 for IP, 1514/1448 with Ethernet).
        opening: whether there is a handshake, and the first window.

    Raises:
        ValueError: negative bytes or round trip, a rate that is not positive, framing below 1.
    """
    if n_bytes < 0 or not (bytes_per_s > 0 and 0 <= rtt_s < math.inf and 1 <= framing < math.inf):
        _check(n_bytes, bytes_per_s, rtt_s, framing)
    if n_bytes == 0:
        return 0.0
    wire = n_bytes * framing
    idle_s, _ = _slow_start(wire, bytes_per_s, rtt_s, opening.window_bytes)
    return wire / bytes_per_s + (opening.handshake + 0.5) * rtt_s + idle_s


def last_window(
    n_bytes: int, bytes_per_s: float, rtt_s: float, framing: float, opening: Opening = NEW
) -> float:
    """Return the window that slow start has reached when a transfer is over [bytes]."""
    return _slow_start(n_bytes * framing, bytes_per_s, rtt_s, opening.window_bytes)[1]


def _slow_start(wire: float, bytes_per_s: float, rtt_s: float, window: float) -> tuple[float, float]:
    """Return the sender's idle time in slow start [s], and the last window [bytes]."""
    idle_s, sent = 0.0, window
    while window < bytes_per_s * rtt_s and wire - sent > ROUNDING_BYTES:
        idle_s += rtt_s - window / bytes_per_s
        window *= 2
        sent += window
    return idle_s, window


def restart_s(rtt_s: float) -> float:
    """Return how long a sender may be silent and keep its window [s]: a retransmission timeout (RFC 5681, 4.1)."""
    return rtt_s + TIMEOUT_FLOOR_S


def sent_bytes(
    elapsed_s: float,
    n_bytes: int,
    bytes_per_s: float,
    rtt_s: float,
    framing: float,
    opening: Opening = NEW,
) -> int:
    """Return the payload that has left the sender `elapsed_s` after the start of a transfer.

    0 until the handshake is done, never decreasing, `n_bytes` when the transfer is done (and half a
    round trip before: the last bytes are then on their way).

    Raises:
        ValueError: as `transfer_s`.
    """
    _check(n_bytes, bytes_per_s, rtt_s, framing)
    if elapsed_s >= transfer_s(n_bytes, bytes_per_s, rtt_s, framing, opening):
        return n_bytes
    left_s = elapsed_s - opening.handshake * rtt_s
    if left_s <= 0 or n_bytes == 0:
        return 0
    wire, sent, window = n_bytes * framing, 0.0, opening.window_bytes
    while window < bytes_per_s * rtt_s and left_s > rtt_s and wire - sent - window > ROUNDING_BYTES:
        sent += window
        left_s -= rtt_s
        window *= 2
    burst = left_s * bytes_per_s
    if window < bytes_per_s * rtt_s:  # this round's window is out, the rest waits for its acknowledgement
        burst = min(burst, window)
    return min(n_bytes, int((sent + burst) / framing + ROUNDING_BYTES))


def loss_limit(loss: float, rtt_s: float) -> float:
    """Return the rate that loss-based congestion control (Reno, CUBIC) can hold [bytes/s, headers included].

    1,500 bytes times the approximation of Padhye, Firoiu, Towsley and Kurose (SIGCOMM 1998), packets a second:
    1 / (RTT sqrt(2bp/3) + T0 min(1, 3 sqrt(3bp/8)) p (1 + 32p^2)), b = 2 packets an acknowledgement,
    T0 = RTT + 0.2 s. Against uploads of 2 MB at 20 Mbit/s and 50 ms it is right within a factor of about
    2 at losses of 0.1 to 3 %; BBR keeps 13 to 16 of 20 Mbit/s at 0.1 to 1 %: it is given no limit, and is then up to
    a third too fast.

    Args:
        loss: share of packets lost, in [0, 1).
        rtt_s: round-trip time.

    Raises:
        ValueError: a loss outside [0, 1), or a negative round trip.
    """
    if not 0 <= loss < 1:
        raise ValueError(f"loss must be at least 0 and less than 1 (got {loss})")
    if not 0 <= rtt_s < math.inf:
        raise ValueError(f"rtt_s must be finite and not negative (got {rtt_s})")
    if loss == 0:
        return math.inf
    avoidance_s = rtt_s * math.sqrt(2 * PACKETS_PER_ACK * loss / 3)
    timeouts = min(1.0, 3 * math.sqrt(3 * PACKETS_PER_ACK * loss / 8)) * loss * (1 + 32 * loss**2)
    packet_s = avoidance_s + (rtt_s + TIMEOUT_FLOOR_S) * timeouts
    return PACKET_BYTES / packet_s if packet_s > 0 else math.inf


def _check(n_bytes: int, bytes_per_s: float, rtt_s: float, framing: float) -> None:
    if n_bytes < 0:
        raise ValueError(f"n_bytes must not be negative (got {n_bytes})")
    if not bytes_per_s > 0:
        raise ValueError(f"bytes_per_s must be positive (got {bytes_per_s})")
    if not 0 <= rtt_s < float("inf"):
        raise ValueError(f"rtt_s must be finite and not negative (got {rtt_s})")
    if not 1 <= framing < float("inf"):
        raise ValueError(f"framing must be at least 1 (got {framing})")


@dataclass(slots=True)
class _Connection:
    """An open connection: when it was used last, and each sender's last byte and window then."""

    used_s: float
    senders: dict[Direction, tuple[float, float]] = field(default_factory=dict)


class Connections:
    """Which clients have a connection to the server, and which could resume a session of TLS."""

    def __init__(self, keep_alive_s: float | None = None, handshakes: Handshakes = PLAIN) -> None:
        """Take how long one stays open unused (None: every transfer opens its own), and what it takes to open one."""
        self._keep_alive_s, self._handshakes = keep_alive_s, handshakes
        self._open: dict[int, _Connection] = {}
        self._offline: dict[int, Event] = {}
        self._ticket_s: dict[int, float] = {}

    @property
    def plain(self) -> bool:
        """Whether every transfer opens a connection of its own by TCP's handshake alone, whatever was before."""
        return self._keep_alive_s is None and self._handshakes == PLAIN

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
        connection = self._open.get(client)
        if connection is None or self._keep_alive_s is None:
            return self.opened_anew(client, rtt_s, now_s)
        if now_s - connection.used_s > self._keep_alive_s:
            return self.opened_anew(client, rtt_s, now_s)
        sent = connection.senders.get(direction)
        if sent is None or now_s - sent[0] > restart_s(rtt_s):
            return Opening(0, FIRST_WINDOW_BYTES)
        return Opening(0, sent[1])

    def opened_anew(self, client: int, rtt_s: float, now_s: float) -> Opening:
        """Return how a transfer that starts now opens a connection; its handshake ends with a ticket for the next one."""
        full, resumed, ticket_s = self._handshakes
        if not ticket_s:
            return NEW if full == 1 else Opening(full)
        issued_s = self._ticket_s.get(client, -math.inf)
        round_trips = resumed if issued_s <= now_s <= issued_s + ticket_s else full
        self._ticket_s[client] = now_s + round_trips * rtt_s
        return Opening(round_trips)

    def used(
        self, client: int, direction: Direction, rtt_s: float, arrived_s: float, window_bytes: float
    ) -> None:
        """Note that a transfer has arrived: its last byte was sent half a round trip before."""
        if self._keep_alive_s is None:
            return
        connection = self._open.setdefault(client, _Connection(arrived_s))
        connection.used_s = arrived_s
        connection.senders[direction] = (arrived_s - rtt_s / 2, window_bytes)

    def break_off(self, client: int, now_s: float = math.inf) -> None:
        """A client's connection is gone; a handshake that was under way leaves no ticket."""
        self._open.pop(client, None)
        if self._ticket_s.get(client, now_s) > now_s:
            del self._ticket_s[client]
