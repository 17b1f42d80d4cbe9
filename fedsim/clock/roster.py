"""Who is idle and online, for all clients at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsim.devices.availability import There


class Roster:
    """The server's list of clients: busy from the moment they are chosen until it knows the end."""

    def __init__(self, availability: There) -> None:
        self.availability = availability
        self._busy = np.zeros(availability.n, dtype=np.bool_)
        self._out = np.zeros(availability.n, dtype=np.bool_)
        self._always = availability.constant

    def idle(self, now_s: float) -> NDArray[np.int64]:
        """Return the clients that are online, not busy and not known to be too small, ascending."""
        free = ~(self._busy | self._out)
        if not self._always:
            free &= self.availability.online(now_s)
        return np.flatnonzero(free)

    def reserve(self, clients: NDArray[np.int64]) -> None:
        """Mark clients as busy."""
        self._busy[clients] = True

    def release(self, client: int) -> None:
        """Mark a client as idle again."""
        self._busy[client] = False

    def exclude(self, client: int) -> None:
        """Never ask a client again: it has said that the training does not fit its memory."""
        self._out[client] = True

    def able(self, among: NDArray[np.int64] | None = None) -> int:
        """Number of clients, of these or of all, that may still be asked at some time."""
        return int((~self._out if among is None else ~self._out[among]).sum())

    @property
    def excluded(self) -> int:
        """Number of clients that will not be asked again."""
        return int(self._out.sum())

    @property
    def busy(self) -> int:
        """Number of busy clients."""
        return int(self._busy.sum())
