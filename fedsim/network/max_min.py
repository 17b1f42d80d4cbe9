"""A link that many share: max-min fair rates in virtual time, O(log n) an event. No clock of its own.

Every flow runs at min(its cap, L), where the fair level L is the one that fills the link, or infinite if
all the caps together fit. Flows of one cap form a class. A class is *capped* while its cap is at most
L, and then finishes at a known time; otherwise it is *fair*, and finishes when the integral of L (the
virtual time) reaches a known value. An event moves L by about L / n, so it moves few classes from one
side to the other, whatever the number of flows. Max-min fairness by progressive filling: Bertsekas and
Gallager, Data Networks (2nd ed., 1992), section 6.5.2; virtual finish times: Demers, Keshav and Shenker
(SIGCOMM 1989).
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush

from fedsim.network.cap_class import UNITS, CapClass

HYSTERESIS = 1.0 + 1e-12
"""A cap must exceed the level by this factor to leave it, or rounding could move a tie for ever."""
LARGEST = 1e250

_Finish = tuple[float, int, int, CapClass]


class MaxMinLink:
    """Flows with caps on one link of a capacity; sizes in bytes, rates in bytes/s, times in s.

    Flows have numbers; of two that finish at once, the smaller number goes first. Every change takes the
    time at which it happens; times must not decrease.
    """

    def __init__(self, capacity: float, now_s: float = 0.0) -> None:
        """Start empty; the capacity may be infinite.

        Raises:
            ValueError: a capacity below 0.
        """
        self.now_s = now_s
        self._flows: dict[int, tuple[tuple[float, int], CapClass]] = {}
        self._empty()
        self._hold(capacity)

    def _hold(self, capacity: float) -> None:
        limited = not math.isinf(capacity)
        self._capacity = int(checked_number("capacity", capacity) * UNITS) if limited else math.inf
        self._most = int(capacity * HYSTERESIS * UNITS) if limited else math.inf

    def _empty(self) -> None:
        """Forget the past: the next busy period starts without its rounding."""
        self._classes: dict[float, CapClass] = {}
        self._capped: list[_Finish] = []
        self._fair: list[_Finish] = []
        self._capped_caps: list[float] = []  # negative: the largest first
        self._fair_caps: list[float] = []
        self._virtual = 0.0
        self._sum = self._n_fair = self._stamps = 0
        self._level = math.inf

    def __len__(self) -> int:
        return len(self._flows)

    def __contains__(self, flow: object) -> bool:
        return flow in self._flows

    @property
    def level(self) -> float:
        """The fair level L [bytes/s]; infinite if nobody is held back by the link."""
        return self._level

    def rate(self, flow: int) -> float:
        """Return the present rate of a flow [bytes/s]."""
        return min(self._flows[flow][1].cap, self._level)

    def left(self, flow: int, at_s: float | None = None) -> float:
        """Return the bytes that a flow still has to send, at `at_s` if nothing happens until then."""
        (key, _), group = self._flows[flow]
        ahead_s = 0.0 if at_s is None else at_s - self.now_s
        return max(
            0.0,
            key
            - group.clock(self.now_s, self._virtual)
            - ahead_s * min(group.cap, self._level if ahead_s else 0.0),
        )

    def add(self, flow: int, size: float, cap: float, at_s: float) -> None:
        """Let a flow in.

        Raises:
            ValueError: a number that is there already, a size or cap below 0 or not finite, or a time before
                the last change.
        """
        if flow in self._flows:
            raise ValueError(f"flow {flow} is on the link already")
        checked_number("size", size)
        checked_number("cap", cap)
        self.advance(at_s)
        self._enter(flow, size, cap)
        self._balance()

    def remove(self, flow: int, at_s: float) -> float:
        """Take a flow out; returns the bytes it had left."""
        self.advance(at_s)
        left = self._leave(flow)
        self._balance()
        return left

    def set_cap(self, flow: int, cap: float, at_s: float) -> None:
        """Change the cap of a flow.

        Raises:
            ValueError: a cap below 0 or not finite, or a time before the last change.
        """
        checked_number("cap", cap)
        self.advance(at_s)
        if cap != self._flows[flow][1].cap:
            self._enter(flow, self._leave(flow, keep=True), cap)
            self._balance()

    def set_capacity(self, capacity: float, at_s: float) -> None:
        """Change the capacity of the link.

        Raises:
            ValueError: a capacity below 0, or a time before the last change.
        """
        self.advance(at_s)
        self._hold(capacity)
        self._balance()

    def advance(self, at_s: float) -> None:
        """Let time pass.

        Raises:
            ValueError: a time before the last change.
        """
        if at_s < self.now_s:
            raise ValueError(f"time cannot go back from {self.now_s} s to {at_s} s")
        if self._n_fair:
            self._virtual += self._level * (at_s - self.now_s)
        self.now_s = at_s

    def next_finish(self) -> tuple[float, int] | None:
        """Return when the next flow finishes if nothing changes, and its number; None if none ever does."""
        capped, fair, now_s = self._capped, self._fair, self.now_s
        while capped and capped[0][3].stamp != capped[0][2]:
            heappop(capped)
        while fair and fair[0][3].stamp != fair[0][2]:
            heappop(fair)
        at_s, flow = math.inf, -1
        if capped:
            at_s, flow = capped[0][0], capped[0][1]
            at_s = max(at_s, now_s)
        if fair and self._level > 0:
            ahead = fair[0][0] - self._virtual
            fair_s = now_s + ahead / self._level if ahead > 0 else now_s
            if fair_s < at_s or (fair_s == at_s and fair[0][1] < flow):
                at_s, flow = fair_s, fair[0][1]
        return (at_s, flow) if at_s < math.inf else None

    def finish(self) -> tuple[float, int]:
        """Let time pass until the next flow finishes, and take it out; returns the time and its number.

        Raises:
            ValueError: no flow ever finishes as things are.
        """
        due = self.next_finish()
        if due is None:
            raise ValueError("no flow on this link ever finishes")
        at_s, flow = due
        self.advance(at_s)
        (key, _), group = self._flows[flow]
        if group.fair:  # exactly, so that flows which tie with it finish at the same instant
            self._virtual = max(self._virtual, key - group.base)
        self._leave(flow)
        self._balance()
        return at_s, flow

    def _enter(self, flow: int, size: float, cap: float) -> None:
        group = self._classes.get(cap)
        if group is None:
            group = CapClass(cap, fair=self._n_fair > 0, base=0.0, since=self.now_s)
            if group.fair or self._sum + group.units > self._capacity:
                group.fair, group.base = True, -self._virtual
            self._classes[cap] = group
            self._file(group)
        entry = (group.clock(self.now_s, self._virtual) + size, flow)
        self._flows[flow] = (entry, group)
        heappush(group.keys, entry)
        self._count(group, 1)
        if group.keys[0] is entry:
            self._register(group)

    def _leave(self, flow: int, *, keep: bool = False) -> float:
        """Take a flow out of its class; `keep`: it comes back at once, so the busy period goes on."""
        entry, group = self._flows.pop(flow)
        left = max(0.0, entry[0] - group.clock(self.now_s, self._virtual))
        self._count(group, -1)
        if not self._flows and not keep:
            self._empty()
        elif group.n == 0:
            group.stamp = -1
            del self._classes[group.cap]
        elif group.keys[0] is entry:
            self._register(group)
        return left

    def _count(self, group: CapClass, n: int) -> None:
        """Count flows of a class in or out."""
        group.n += n
        if group.fair:
            self._n_fair += n
        else:
            self._sum += n * group.units

    def _register(self, group: CapClass) -> None:
        """Note when the first flow of a class finishes; what was noted before is void."""
        keys, flows = group.keys, self._flows
        while flows.get(keys[0][1], (None,))[0] is not keys[0]:
            heappop(keys)
        self._stamps += 1
        group.stamp = self._stamps
        key, flow = keys[0]
        heap = self._fair if group.fair else self._capped
        heappush(heap, (group.due(key), flow, group.stamp, group))
        if len(heap) > 64 + 2 * len(self._classes):
            heap[:] = [note for note in heap if note[3].stamp == note[2]]
            heapify(heap)
        if len(keys) > 64 + 2 * group.n:
            keys[:] = [entry for entry in keys if flows.get(entry[1], (None,))[0] is entry]
            heapify(keys)

    def _file(self, group: CapClass) -> None:
        """Note on which side of the level a class is."""
        caps, sign = (self._fair_caps, 1.0) if group.fair else (self._capped_caps, -1.0)
        heappush(caps, sign * group.cap)
        if len(caps) > 64 + 2 * len(self._classes):
            caps[:] = sorted({sign * c.cap for c in self._classes.values() if c.fair == group.fair})

    def _move(self, group: CapClass, *, fair: bool) -> None:
        n, clock = group.n, group.clock(self.now_s, self._virtual)
        self._count(group, -n)
        group.fair, group.since = fair, self.now_s
        group.base = clock - self._virtual if fair else clock
        self._count(group, n)
        self._file(group)
        self._register(group)

    def _balance(self) -> None:
        """Find the level: move classes over it until every cap is on its side."""
        classes, fair_caps, capped_caps = self._classes, self._fair_caps, self._capped_caps
        while True:
            if self._n_fair:
                spare = self._capacity - self._sum
                level = spare / self._n_fair / UNITS if spare > 0 else 0.0
                while True:
                    group = classes.get(fair_caps[0])
                    if group is not None and group.fair:
                        break
                    heappop(fair_caps)
                if group.cap <= level:
                    self._move(group, fair=False)
                    continue
                limit = level * HYSTERESIS
            else:
                level = math.inf
                limit = math.inf if self._sum <= self._most else -1.0
            if capped_caps and -capped_caps[0] > limit:
                group = classes.get(-capped_caps[0])
                if group is None or group.fair:
                    heappop(capped_caps)
                else:
                    self._move(group, fair=True)
                continue
            self._level = level
            return


def checked_number(name: str, value: float) -> float:
    """Return a size or rate that can be worked with.

    Raises:
        ValueError: it is below 0, not finite, or out of all proportion.
    """
    if not 0 <= value < LARGEST:
        raise ValueError(f"{name} must be at least 0 and less than {LARGEST:g} (got {value})")
    return value
