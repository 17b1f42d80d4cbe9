"""What a network is: transfers that take virtual time, in two directions, over the clients' links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from fedsim.arrays import Floats
from fedsim.network.sharing.max_min_tree import Bottleneck

if TYPE_CHECKING:
    from simpy import Event


Direction = Literal["down", "up"]
"""Seen from the client: `down` is the model to the client, `up` the update to the server."""
DIRECTIONS: tuple[Direction, ...] = ("down", "up")
KBPS, MBPS = 125.0, 125_000.0
"""Bytes per second of one kbit/s and of one Mbit/s."""


class Rates(Protocol):
    """A rate that changes in steps, headers included; pure: it can be asked at any time, in any order."""

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on; 0 in an outage."""
        ...

    def next_change(self, t_s: float) -> float:
        """Return the next end of a step, later than `t_s`; inf if there is none."""
        ...


class ClientLink(Protocol):
    """One client's own link."""

    @property
    def down_bytes_per_s(self) -> float:
        """(Mean) rate of downloads, headers included."""
        ...

    @property
    def up_bytes_per_s(self) -> float:
        """(Mean) rate of uploads, headers included."""
        ...

    @property
    def rtt_s(self) -> float:
        """Round trip to the server."""
        ...

    @property
    def framing(self) -> float:
        """Bytes on the link per byte of payload."""
        ...


class Links(Protocol):
    """The links of all clients; a population has them."""

    @property
    def varying(self) -> bool:
        """Whether the rate of any link changes over time."""
        ...

    def profile(self, client: int) -> ClientLink:
        """Return the link of one client."""
        ...

    def rates(self, client: int, direction: Direction) -> Rates | None:
        """Return the rate of one link over time; None: constant, at that of its profile."""
        ...

    def mean_rates(self, direction: Direction) -> Floats:
        """Return the (mean) rate of every client's link, (n,)."""
        ...


class Groups(Protocol):
    """Who shares links between a client's own and the server's."""

    def path(self, client: int, direction: Direction) -> tuple[Bottleneck, ...]:
        """Return the shared links that a client's transfers pass, from its own end; always the same of their names inwards."""
        ...


def mean_rate(link: ClientLink, direction: Direction) -> float:
    """Return the (mean) rate of a link in one direction [bytes/s]."""
    return link.down_bytes_per_s if direction == "down" else link.up_bytes_per_s


class Transfer(Protocol):
    """A transfer under way."""

    @property
    def done(self) -> Event:
        """Triggers when the last byte has arrived; its value is the duration in s, pauses included."""
        ...

    @property
    def due_s(self) -> float:
        """When the last byte arrives if it is on its way [virtual s]; inf: that is not known, or it stands still."""
        ...

    def sent_bytes(self, at_s: float | None = None) -> int:
        """Return the payload that has left the sender by now, or by `at_s` if nothing happens until then."""
        ...

    def cancel(self) -> int:
        """Stop for good, now; returns `sent_bytes()`. What has arrived at this instant has arrived."""
        ...

    def pause(self) -> None:
        """Stop for now: the device is away, and nothing moves until `resume`."""
        ...

    def resume(self) -> None:
        """Go on with what is left, on a new connection: handshake and slow start are paid again."""
        ...


class Network(Protocol):
    """What the clock asks of a network."""

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer now."""
        ...

    def download(self, client: int, n_bytes: int, cdn_bytes: int) -> Transfer:
        """Start a download now of which `cdn_bytes`, the first, are the frozen model's; all of it is the server's where no CDN is."""
        return self.transfer("down", client, n_bytes)

    def online_until(self, client: int, offline: Event) -> None:
        """A client is online until this event: its connection, if it keeps one, ends with it."""
        ...
