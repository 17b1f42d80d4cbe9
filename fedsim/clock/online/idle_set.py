"""A set of clients that is counted as it changes: how many are in it, and who is the k-th of them.

Everybody is in it who has no reason to be out of it. Members are counted by block and by group of blocks, so that a
change and a question take a few steps, whatever the number of clients (an order-statistics structure of three levels).
"""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Bools, Ints

BLOCK = 1024
"""Clients that are counted together."""
GROUP = 32
"""Blocks that are counted together."""
MANY = 512
"""Changes or questions from which on it is faster to look at everybody."""
_NOBODY = 0xFF
"""Stands behind the last client, to fill the last block."""


WINDOW, OUTAGE, BUSY, EXCLUDED = 1, 2, 4, 8
"""Why a client cannot be asked: one bit each."""


class IdleSet:
    """Clients 0 to n - 1, those without a reason to be out; ascending."""

    __slots__ = ("_blocks", "_count", "_groups", "_n", "_reasons", "_view")

    def __init__(self, n: int) -> None:
        """Start with everybody."""
        self._n = n
        blocks = -(-n // BLOCK)
        self._reasons = bytearray(n) + bytes([_NOBODY]) * (blocks * BLOCK - n)
        self._view = np.frombuffer(self._reasons, dtype=np.uint8)
        self._recount()

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def __contains__(self, client: int) -> bool:
        return 0 <= client < self._n and not self._reasons[client]

    def add_reason(self, client: int, reason: int) -> None:
        """A client has this reason, too; twice is once."""
        before = self._reasons[client]
        self._reasons[client] = before | reason
        if not before:
            self._change(client, -1)

    def drop_reason(self, client: int, reason: int) -> None:
        """A client has this reason no more, if it had it."""
        before = self._reasons[client]
        if before:
            self._reasons[client] = after = before & ~reason
            if not after:
                self._change(client, 1)

    def follow(self, clients: list[int], lacks_it: bytearray, reason: int) -> None:
        """Have each of some clients have a reason, or not where its number in `lacks_it` (n,) is not 0."""
        reasons, blocks, groups = self._reasons, self._blocks, self._groups
        for client in clients:
            before = reasons[client]
            reasons[client] = after = before & ~reason if lacks_it[client] else before | reason
            if (before == 0) != (after == 0):
                by, block = 1 if before else -1, client // BLOCK
                self._count += by
                blocks[block] += by
                groups[block // GROUP] += by

    def add_reasons(self, clients: Ints, reason: int) -> None:
        """Different clients have this reason, too."""
        if len(clients) < MANY:
            for client in clients.tolist():
                self.add_reason(client, reason)
            return
        self._view[clients] |= np.uint8(reason)
        self._recount()

    def drop_reasons(self, clients: Ints, reason: int) -> None:
        """Different clients have this reason no more."""
        if len(clients) < MANY:
            for client in clients.tolist():
                self.drop_reason(client, reason)
            return
        self._view[clients] &= np.uint8(~reason & _NOBODY)
        self._recount()

    def set_reason(self, have_it: Bools, reason: int) -> None:
        """These clients, and no others, have this reason; (n,)."""
        everybody = self._view[: self._n]
        everybody &= np.uint8(~reason & _NOBODY)
        everybody |= have_it.astype(np.uint8) * np.uint8(reason)
        self._recount()

    def has_reason(self, clients: Ints, reason: int) -> Bools:
        """Return which of some clients have this reason, (clients,)."""
        has: Bools = (self._view[clients] & np.uint8(reason)) != 0
        return has

    def members(self) -> Ints:
        """Return them all, ascending: O(n)."""
        return np.flatnonzero(self._view == 0)

    def those_of(self, clients: Ints) -> Ints:
        """Return those of some different clients that are in it, ascending."""
        return np.sort(clients[self._view[clients] == 0])

    def at(self, places: Ints) -> Ints:
        """Return the clients that have these places, from 0, among all that are in it."""
        if len(places) >= MANY:
            return self.members()[places]
        return np.array([self.member(place) for place in places.tolist()], dtype=np.int64)

    def member(self, place: int) -> int:
        """Return the client that has this place, from 0, among all that are in it.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= place < self._count:
            raise IndexError(f"place {place} of {self._count}")
        block = 0
        for count in self._groups:
            if place < count:
                break
            place -= count
            block += GROUP
        while place >= (count := self._blocks[block]):
            place -= count
            block += 1
        first = block * BLOCK
        return first + int((self._view[first : first + BLOCK] == 0).nonzero()[0][place])

    def _change(self, client: int, by: int) -> None:
        block = client // BLOCK
        self._count += by
        self._blocks[block] += by
        self._groups[block // GROUP] += by

    def _recount(self) -> None:
        blocks = np.count_nonzero(self._view.reshape(-1, BLOCK) == 0, axis=1)
        self._blocks: list[int] = blocks.tolist()
        starts = np.arange(0, len(blocks), GROUP)
        self._groups: list[int] = np.add.reduceat(blocks, starts).tolist() if len(blocks) else []
        self._count = int(blocks.sum())
