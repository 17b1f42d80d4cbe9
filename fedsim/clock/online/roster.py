"""Who is idle and online, for all clients at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsim.clock.online.following import follower_of
from fedsim.clock.online.idle_set import BUSY, EXCLUDED, IdleSet
from fedsim.devices.availability import WhoIsOnline
from fedsim.instants import tie_s


class Roster:
    """The server's list of clients: busy from the moment they are chosen until it knows the end."""

    def __init__(self, availability: WhoIsOnline) -> None:
        """Take the clients, nobody busy.

        Args:
            availability: who is online when; asking may let time go on (see `fedsim.clock.online.attendance`).
        """
        self.availability = availability
        self._idle = IdleSet(availability.n)
        self._follower = follower_of(availability, self._idle)
        self._busy = bytearray(availability.n)
        self._excluded = bytearray(availability.n)
        self.busy = self.excluded = 0

    def look(self, now_s: float) -> IdleSet:
        """Return the clients that are online, not busy and not known to be too small, as of now; the set goes on changing.

        A client whose window closes in this very instant is not online any more, and one whose window opens in it is.
        """
        self._follower.advance(now_s + tie_s(now_s))
        return self._idle

    def idle(self, now_s: float) -> NDArray[np.int64]:
        """Return the clients of `look`, ascending."""
        return self.look(now_s).members()

    def reserve(self, clients: NDArray[np.int64]) -> None:
        """Mark clients as busy."""
        for client in clients.tolist():
            self.busy += not self._busy[client]
            self._busy[client] = True
        self._idle.add_reasons(clients, BUSY)

    def reserve_one(self, client: int) -> None:
        """Mark a client as busy."""
        self.busy += not self._busy[client]
        self._busy[client] = True
        self._idle.add_reason(client, BUSY)

    def release(self, client: int) -> None:
        """Mark a client as idle again."""
        self.busy -= self._busy[client]
        self._busy[client] = False
        self._idle.drop_reason(client, BUSY)

    def exclude(self, client: int) -> None:
        """Never ask a client again: it has said that the training does not fit its memory."""
        self.excluded += not self._excluded[client]
        self._excluded[client] = True
        self._idle.add_reason(client, EXCLUDED)

    def able(self, among: NDArray[np.int64] | None = None) -> int:
        """Number of clients, of these or of all, that may still be asked at some time."""
        if among is None:
            return self.availability.n - self.excluded
        return int((~self._idle.has_reason(among, EXCLUDED)).sum())
