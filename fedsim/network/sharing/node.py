"""A link of a tree, and the flows that it, or their own cap, holds back.

Flows that enter the tree at one link with one cap form a class. From there a class is *passed on* from link to link
towards the root as long as its cap is at most the link's level, the rate that fills the link; the first link whose
level is below *holds* it. The flows that a link holds run at one rate, so its parent sees them as one class, whose cap
is that level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from fedsim.network.cap_class import UNITS
from fedsim.network.max_min import HYSTERESIS

VOID = -1


class FlowClass:
    """Flows of one cap that enter the tree at one link, or all that a link holds, as those above it see them.

    Its clock counts the bytes that each of its flows has been given: `base + cap * (now - since)` where nobody holds it,
    else `base` + the clock of the flows of `at`. A flow finishes when the clock reaches its key.

    Attributes:
        entry: the first link that they pass; None: they are what the root holds.
        inner: the link that holds them before; None: flows with a cap of their own.
        at: the link that holds them; None: their cap does.
        cap, units: bytes/s, and the same in whole `UNITS`.
        base, since_s: of the clock.
        n: flows that are there.
        keys: heap of (key, flow) of flows with a cap of their own; some are of flows that have left.
        finish, place: stamps of the finish, and of the caps, that are noted for it.
    """

    __slots__ = ("at", "base", "cap", "entry", "finish", "inner", "keys", "n", "place", "since_s", "units")

    def __init__(self, entry: Node | None, cap: float, inner: Node | None = None) -> None:
        """Nobody is in it yet."""
        self.entry, self.inner = entry, inner
        self.at: Node | None = None
        self.cap, self.units = cap, int(cap * UNITS)
        self.base = self.since_s = 0.0
        self.n = 0
        self.keys: list[tuple[float, int]] = []
        self.finish = self.place = VOID

    def count(self, n: int) -> None:
        """Count flows in (or out, below 0), on the way to the link that holds them."""
        node = self.entry
        while node is not None:
            if node is self.at:
                node.n_held += n
                return
            node.passed_units += n * self.units
            node = node.parent


class Notes:
    """A heap of (number, tie, stamp, class); those whose stamp is no longer that of their class are void."""

    __slots__ = ("_heap", "_most", "_stamp_of")

    def __init__(self, stamp_of: Callable[[FlowClass], int]) -> None:
        """Take which stamp of a class tells."""
        self._stamp_of = stamp_of
        self._heap: list[tuple[float, int, int, FlowClass]] = []
        self._most = 64

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, number: float, tie: int, group: FlowClass) -> None:
        """Note a number for a class."""
        heap = self._heap
        heappush(heap, (number, tie, self._stamp_of(group), group))
        if len(heap) > self._most:
            heap[:] = [note for note in heap if self._stamp_of(note[3]) == note[2]]
            heapify(heap)
            self._most = 64 + 2 * len(heap)

    def first(self) -> tuple[float, int, int, FlowClass] | None:
        """Return the smallest that is not void; None if there is none."""
        heap = self._heap
        while heap and self._stamp_of(heap[0][3]) != heap[0][2]:
            heappop(heap)
        return heap[0] if heap else None


class Node:
    """A link.

    Attributes:
        parent: the next link towards the root; None: it is the root.
        held: what it holds, as its parent sees it.
        n_held: flows that it holds.
        passed_units: sum of the caps that it passes on, in whole `UNITS` [bytes/s].
        level: rate of what it holds [bytes/s]; infinite: it holds nothing.
        finishes: of the classes that it holds, in the bytes of their clock.
        passed_caps, held_caps: caps of the classes that it passes on (negative) and holds.
        classes: cap -> the class that enters here.
        users: flows on it.
    """

    __slots__ = (
        *("_capacity", "_most", "classes", "finishes", "held", "held_caps", "level", "n_held"),
        *("parent", "passed_caps", "passed_units", "users"),
    )

    def __init__(self, capacity: float, parent: Node | None = None) -> None:
        """Take its capacity [bytes/s], which may be infinite."""
        self.parent = parent
        self.held = FlowClass(parent, 0.0, self)
        self.n_held = self.passed_units = self.users = 0
        self.level = math.inf
        self.finishes = Notes(_finish_of)
        self.passed_caps, self.held_caps = Notes(_place_of), Notes(_place_of)
        self.classes: dict[float, FlowClass] = {}
        self.set_capacity(capacity)

    def set_capacity(self, capacity: float) -> None:
        """Let it have another capacity [bytes/s]."""
        limited = not math.isinf(capacity)
        self._capacity = int(capacity * UNITS) if limited else 0
        self._most: float = int(capacity * HYSTERESIS * UNITS) if limited else math.inf

    def filled_level(self) -> tuple[float, float]:
        """Return the level at which what it holds fills it, and the cap above which it passes nothing on."""
        if not self.n_held:
            return math.inf, math.inf if self.passed_units <= self._most else -1.0
        spare = self._capacity - self.passed_units
        level = spare / self.n_held / UNITS if spare > 0 else 0.0
        return level, level * HYSTERESIS


def _finish_of(group: FlowClass) -> int:
    return group.finish


def _place_of(group: FlowClass) -> int:
    return group.place
