"""What the server has written down about each client: its visits, and what it has got so far.

With `network.interrupted: resume` a client keeps what a download that was broken off has brought, as HTTP's byte ranges
let it (RFC 9110, section 14). The frozen model comes first and is the same whenever it is sent; a message is the same for the
same version and payload (it is coded once a version), and worth nothing after that. What had left the server counts as
received: what is in flight when a connection breaks, at most a rate x RTT / 2, is not sent again, as where a visit goes on
(`population.on_close: pause`). An upload of a lost visit is no part of any later message: the client trains anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from fedsim.adapters.payload import Payload


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a client holds of downloads that were broken off.

    Attributes:
        backbone_bytes: of the frozen model.
        version, payload, message_bytes: of the message that was broken off last.
    """

    backbone_bytes: int
    version: int
    payload: Payload
    message_bytes: int


EQUIP_TRIES, MOST_EQUIP_TRIES = 5, 50
"""Downloads of the frozen model that may fail: where none can ever get through, and at most. Then a client is given up."""


class ClientBook:
    """The server's notes on clients; a client knows no more than it has downloaded.

    Attributes:
        never_equipped: clients that are given up, because the frozen model never got through to them.
        polled: the version of which a client has told its loss, by client, until it is asked to train.
    """

    def __init__(self, clients: int, *, backbone_bytes: int = 0, resumes: bool = False) -> None:
        """Start with nobody asked.

        Args:
            clients: how many there are.
            backbone_bytes: of the frozen model that a client downloads first; 0: it is preinstalled.
            resumes: whether clients keep what a broken-off download has brought.
        """
        self._visits = array("i", bytes(4 * clients))
        self._backbone_bytes, self._resumes = backbone_bytes, resumes
        self._parts: dict[int, _Parts] = {}
        self._failed_equips: dict[int, int] = {}
        self.never_equipped: set[int] = set()
        self._last_seen, self._last_rank = array("i", [-1]) * clients, array("i", [-1]) * clients
        self.polled: dict[int, int] = {}

    def visits(self, client: int) -> int:
        """Return how many visits of a client were begun."""
        return self._visits[client]

    def last_seen(self, client: int) -> int | None:
        """Return the version that a client downloaded last; None: none yet."""
        version = self._last_seen[client]
        return version if version >= 0 else None

    def last_rank(self, client: int) -> int | None:
        """Return the slots of each factor that a client downloaded last; None: none yet."""
        return None if self._last_seen[client] < 0 else self._last_rank[client]

    def begin_visit(self, client: int) -> None:
        """Note that a client was asked, to train or to be polled."""
        self._visits[client] += 1

    def note_download(self, client: int, version: int, rank: int) -> None:
        """Note that a client has downloaded `rank` slots of a version, and the frozen model with its first one."""
        self._last_seen[client], self._last_rank[client] = version, rank
        self._parts.pop(client, None)

    def note_broken_off(self, client: int, version: int, payload: Payload, moved_bytes: int) -> None:
        """Note what a download has brought that was broken off: first of the frozen model, then of the message."""
        if not self._resumes:
            return
        backbone_bytes, message_bytes = self._held(client, version, payload)
        missing = self._backbone_left(client, backbone_bytes)
        of_backbone = min(moved_bytes, missing)
        self._parts[client] = _Parts(
            backbone_bytes + of_backbone, version, payload, message_bytes + moved_bytes - of_backbone
        )

    def down_bytes(self, client: int, version: int, payload: Payload, message_bytes: int) -> int:
        """Return what a client still has to download to train on a version.

        Args:
            client: who.
            version: of the model.
            payload: what it is sent of it.
            message_bytes: the length of that message; 0: it has it already.
        """
        if client not in self._parts:
            return message_bytes if self._last_seen[client] >= 0 else message_bytes + self._backbone_bytes
        backbone_held, message_held = self._held(client, version, payload)
        return self._backbone_left(client, backbone_held) + max(0, message_bytes - message_held)

    def missing_bytes(self, client: int) -> int:
        """Return what a client still has to download of the frozen model."""
        parts = self._parts.get(client)
        return self._backbone_left(client, 0 if parts is None else parts.backbone_bytes)

    def _backbone_left(self, client: int, held_bytes: int) -> int:
        return 0 if self._last_seen[client] >= 0 else self._backbone_bytes - held_bytes

    def _held(self, client: int, version: int, payload: Payload) -> tuple[int, int]:
        """Return the bytes that a client has of the frozen model, and of this message."""
        parts = self._parts.get(client)
        if parts is None:
            return 0, 0
        same = parts.version == version and parts.payload == payload
        return parts.backbone_bytes, parts.message_bytes if same else 0

    def note_failed_download(
        self, client: int, moved_bytes: int, never_through: Callable[[int], bool]
    ) -> None:
        """Note that a client's download ended before it was through: with the frozen model in it, if it lacks that.

        One that has brought something is no failure where clients keep it.

        Args:
            client: whose.
            moved_bytes: what it has brought.
            never_through: tells whether so many bytes can get through to it at all.
        """
        if self._last_seen[client] >= 0:
            return
        if self._resumes and moved_bytes:
            self._failed_equips.pop(client, None)
            return
        tries = self._failed_equips[client] = self._failed_equips.get(client, 0) + 1
        hopeless = tries >= EQUIP_TRIES and never_through(self._backbone_bytes)
        if hopeless or tries >= MOST_EQUIP_TRIES:
            self.never_equipped.add(client)
