"""The next transitions of all devices in the order in which they come: most of them in arrays, the latest in a heap."""

from __future__ import annotations

from array import array
from heapq import heappop, heappush

import numpy as np

from fedsim.arrays import Floats, Ints

MOST = 100_000
"""Transitions in the heap from which on they are laid out with the others."""
Alarm = tuple[float, int, int]
"""When [virtual s], the stamp of the transition, and whose it is."""


class Alarms:
    """One alarm a device and stamp, those without the device's present stamp being void.

    Attributes:
        stamps: of each device's present transition, (n,).
    """

    def __init__(self, n: int) -> None:
        """Start with none."""
        self.stamps = array("q", bytes(8 * n))
        self._heap: list[Alarm] = []
        self._most = max(MOST, n // 4)
        self._times: Floats = np.zeros(0)
        self._stamps: Ints = np.zeros(0, dtype=np.int64)
        self._clients: Ints = np.zeros(0, dtype=np.int64)
        self._next = 0
        self._head: Alarm | None = None

    def set(self, client: int, at_s: float) -> None:
        """Have the present transition of a device happen then."""
        heappush(self._heap, (at_s, self.stamps[client], client))
        if len(self._heap) > self._most:
            self._lay_out()

    def first(self) -> Alarm | None:
        """Return the next alarm, void or not; None: there is none."""
        head, heap = self._head, self._heap
        return heap[0] if heap and (head is None or heap[0] < head) else head

    def pop(self) -> None:
        """Remove the next alarm."""
        head, heap = self._head, self._heap
        if heap and (head is None or heap[0] < head):
            heappop(heap)
        else:
            self._next += 1
            self._head = self._at(self._next)

    def _at(self, place: int) -> Alarm | None:
        if place >= len(self._times):
            return None
        return self._times.item(place), self._stamps.item(place), self._clients.item(place)

    def _lay_out(self) -> None:
        """Put all that are not void into arrays, in their order."""
        later, left = slice(self._next, None), np.array(self._heap)
        times = np.concatenate([self._times[later], left[:, 0]])
        stamps = np.concatenate([self._stamps[later], left[:, 1].astype(np.int64)])
        clients = np.concatenate([self._clients[later], left[:, 2].astype(np.int64)])
        valid = np.flatnonzero(np.frombuffer(self.stamps, dtype=np.int64)[clients] == stamps)
        order = valid[np.lexsort((clients[valid], stamps[valid], times[valid]))]
        self._times, self._stamps, self._clients = times[order], stamps[order], clients[order]
        self._heap.clear()
        self._next, self._head = 0, self._at(0)
