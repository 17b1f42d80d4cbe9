"""Who is idle and online, for all clients at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
        self._busy = np.zeros(availability.n, dtype=np.bool_)
        self._excluded = np.zeros(availability.n, dtype=np.bool_)

    def idle(self, now_s: float) -> NDArray[np.int64]:
        """Return the clients that are online, not busy and not known to be too small, ascending.

        A client whose window closes in this very instant is not online any more, and one whose window opens in it is.
        """
        free = ~(self._busy | self._excluded)
        if not self.availability.constant:
            free &= self.availability.online(now_s + tie_s(now_s))
        return np.flatnonzero(free)

    def reserve(self, clients: NDArray[np.int64]) -> None:
        """Mark clients as busy."""
        self._busy[clients] = True

    def release(self, client: int) -> None:
        """Mark a client as idle again."""
        self._busy[client] = False

    def exclude(self, client: int) -> None:
        """Never ask a client again: it has said that the training does not fit its memory."""
        self._excluded[client] = True

    def able(self, among: NDArray[np.int64] | None = None) -> int:
        """Number of clients, of these or of all, that may still be asked at some time."""
        return int((~self._excluded if among is None else ~self._excluded[among]).sum())

    @property
    def excluded(self) -> int:
        """Number of clients that will not be asked again."""
        return int(self._excluded.sum())

    @property
    def busy(self) -> int:
        """Number of busy clients."""
        return int(self._busy.sum())
