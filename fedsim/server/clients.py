"""What the server has written down about each client: its visits, and what it has got so far."""

from __future__ import annotations

import numpy as np

EQUIP_TRIES = 5
"""Downloads of the frozen model that may fail in a row; a client with so many is not asked again."""


class ClientBook:
    """The server's notes on clients; a client knows no more than it has downloaded.

    Attributes:
        never_equipped: clients that are given up, because the frozen model never got through to them.
        last_seen: the version that a client downloaded last, by client.
        polled: the version of which a client has told its loss, by client, until it is asked to train.
    """

    def __init__(self, clients: int) -> None:
        """Start with nobody asked."""
        self._visits = np.zeros(clients, dtype=np.int64)
        self._with_backbone: set[int] = set()
        self._failed_equips: dict[int, int] = {}
        self.never_equipped: set[int] = set()
        self.last_seen: dict[int, int] = {}
        self.polled: dict[int, int] = {}

    def visits(self, client: int) -> int:
        """Return how many visits of a client were begun."""
        return int(self._visits[client])

    def has_backbone(self, client: int) -> bool:
        """Tell whether a client has downloaded the frozen model."""
        return client in self._with_backbone

    def begin_visit(self, client: int) -> None:
        """Note that a client was asked, to train or to be polled."""
        self._visits[client] += 1

    def note_download(self, client: int, version: int) -> None:
        """Note that a client has downloaded a version, and the frozen model with its first one."""
        self.last_seen[client] = version
        self._with_backbone.add(client)

    def note_failed_download(self, client: int) -> None:
        """Note that a client's download ended before it was through: with the frozen model in it, if it lacks that."""
        if client in self._with_backbone:
            return
        tries = self._failed_equips[client] = self._failed_equips.get(client, 0) + 1
        if tries == EQUIP_TRIES:
            self.never_equipped.add(client)
