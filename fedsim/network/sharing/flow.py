"""A transfer on its client's link: what is known of it while it is under way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fedsim.network.base import Rates
from fedsim.network.sharing.max_min_tree import Bottleneck
from fedsim.network.tcp import FIRST_WINDOW_BYTES


@dataclass(frozen=True)
class OneWayLink:
    """A client's own link in one direction.

    Attributes:
        rates: its rate over time, headers included.
        rtt_s: round trip to the server.
        framing: bytes on the link per byte of payload.
        limit: most that one connection can hold, whatever the link (`fedsim.network.tcp.loss_limit`) [bytes/s].
        path: links between it and the server's that it shares with others, from its own end.
    """

    rates: Rates
    rtt_s: float
    framing: float
    limit: float = math.inf
    path: tuple[Bottleneck, ...] = ()


class LinkInUse:
    """A client's link while transfers use it; its own fair shares make the caps of several of them.

    Attributes:
        side: whose it is: rate, round trip, framing.
        rate: of the link now [bytes/s], followed only while something moves over it.
        flows: what moves over it, by number.
        users: transfers under way on it, for whoever keeps it.
    """

    __slots__ = ("flows", "rate", "side", "stamp", "users")

    def __init__(self, side: OneWayLink) -> None:
        """Nobody is on it yet."""
        self.side = side
        self.rate = 0.0
        self.stamp = self.users = 0
        self.flows: dict[int, Flow] = {}


class Flow:
    """A transfer under way.

    Attributes:
        began_s, arrived_s: first SYN, and the last byte's arrival (NaN until then).
        arrives_s: when the last byte arrives, once it has been sent.
        place: handshake -> moving -> arriving -> arrived, or stopped.
        left: bytes on the link still to send; the shares know better while it is moving.
        window: of slow start, in bytes; infinite once it limits nothing.
        reached: the last window of slow start, in bytes.
    """

    __slots__ = (
        *("arrived_s", "arrives_s", "began_s", "left", "link", "n_bytes", "number"),
        *("place", "reached", "stamp", "window"),
    )

    def __init__(self, number: int, link: LinkInUse, n_bytes: int, began_s: float) -> None:
        """A transfer that has not begun."""
        self.number, self.link, self.n_bytes, self.began_s = number, link, n_bytes, began_s
        self.left = n_bytes * link.side.framing
        self.window = math.inf
        self.reached = FIRST_WINDOW_BYTES
        self.arrived_s, self.arrives_s = math.nan, math.inf
        self.stamp = 0
        self.place: Literal["handshake", "moving", "arriving", "arrived", "stopped"] = "stopped"

    @property
    def limit(self) -> float:
        """Most that the connection itself allows now [bytes/s]: window over round trip, and losses."""
        side = self.link.side
        return min(side.limit, self.window / side.rtt_s) if side.rtt_s else side.limit
