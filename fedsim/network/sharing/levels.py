"""The levels of a tree of links and the clocks of its flows, kept up to date from one change to the next."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from itertools import count

from fedsim.network.sharing.node import VOID, FlowClass, Node


class Levels:
    """Flows of known caps on links that are there already; `fedsim.network.sharing.max_min_tree` lets them come and go.

    Attributes:
        now_s: time of the last change.
    """

    def __init__(self, capacity: float, now_s: float) -> None:
        """Start with the root alone."""
        self.now_s = now_s
        self._root = Node(capacity)
        self._flows: dict[int, tuple[tuple[float, int], FlowClass]] = {}
        self._free: list[tuple[float, int, int, FlowClass]] = []
        self._free_most = 64
        self._given = 0.0  # bytes that each flow which the root holds has been given
        self._stamps = count(1)

    def next_finish(self) -> tuple[float, int] | None:
        """Return when the next flow finishes if nothing changes, and its number; None if none ever does."""
        free, now_s = self._free, self.now_s
        while free and free[0][3].finish != free[0][2]:
            heappop(free)
        at_s, flow = math.inf, -1
        if free:
            at_s, flow = max(free[0][0], now_s), free[0][1]
        held = self._root.finishes.first()
        if held is not None and self._root.level > 0:
            ahead = held[0] - self._given
            held_s = now_s + ahead / self._root.level if ahead > 0 else now_s
            if held_s < at_s or (held_s == at_s and held[1] < flow):
                at_s, flow = held_s, held[1]
        return (at_s, flow) if at_s < math.inf else None

    # flows ----------------------------------------------------------------------------------------

    def _enter(self, flow: int, size: float, cap: float, node: Node) -> None:
        group = node.classes.get(cap)
        known = group is not None
        if group is None:
            group = node.classes[cap] = FlowClass(node, cap)
        entry = ((self._clock(group) if known else 0.0) + size, flow)
        self._flows[flow] = (entry, group)
        heappush(group.keys, entry)
        if known:
            group.n += 1
            group.count(1)
            if group.keys[0] is entry:
                self._note_finish(group)
        else:
            group.n = 1
            self._put(group, 0.0, _holder(node))

    def _leave(self, flow: int) -> tuple[float, Node]:
        """Take a flow out of its class; returns the bytes it had left, and where it had entered."""
        entry, group = self._flows.pop(flow)
        left = max(0.0, entry[0] - self._clock(group))
        node = group.entry
        assert node is not None  # only what links hold may be of nobody
        group.count(-1)
        group.n -= 1
        if group.n == 0:
            group.finish = group.place = VOID
            del node.classes[group.cap]
        elif group.keys[0] is entry:
            self._note_finish(group)
        return left, node

    # clocks ---------------------------------------------------------------------------------------

    def _clock(self, group: FlowClass) -> float:
        """Return the bytes that each flow of a class has been given by now."""
        if group.at is not None:
            return group.base + self._given_at(group.at)
        return group.base + group.cap * (self.now_s - group.since_s)

    def _given_at(self, node: Node) -> float:
        return self._given if node.parent is None else self._clock(node.held)

    def _reach(self, group: FlowClass, key: float) -> None:
        """Let the clock of a class be at least at a key, exactly: flows that tie then finish at the same instant."""
        node = group.at
        if node is None:
            if group.inner is not None:
                group.base, group.since_s = max(key, self._clock(group)), self.now_s
        elif node.parent is None:
            self._given = max(self._given, key - group.base)
        else:
            self._reach(node.held, key - group.base)

    # levels ---------------------------------------------------------------------------------------

    def _settle(self, node: Node | None) -> None:
        """Find the levels from a link to the root."""
        while node is not None:
            self._balance(node)
            if node.parent is not None:
                self._pass_on(node)
            node = node.parent

    def _balance(self, node: Node) -> None:
        """Find the level of a link: classes change sides until every cap is on its own."""
        while True:
            level, most = node.filled_level()
            if node.n_held:
                smallest = node.held_caps.first()
                assert smallest is not None
                if smallest[0] <= level:
                    self._move(smallest[3], _holder(node.parent))
                    continue
            largest = node.passed_caps.first()
            if largest is not None and -largest[0] > most:
                if not node.n_held and not node.held.n:  # its clock begins
                    node.held.base, node.held.since_s, node.held.cap, node.held.at = (
                        0.0,
                        self.now_s,
                        0.0,
                        None,
                    )
                self._move(largest[3], node)
                continue
            node.level = level
            return

    def _move(self, group: FlowClass, at: Node | None) -> None:
        clock = self._clock(group)
        group.count(-group.n)
        self._put(group, clock, at)

    def _put(self, group: FlowClass, clock: float, at: Node | None) -> None:
        """Count a class in, held at a link or by its cap, and note its cap and its finish."""
        group.at = at
        if at is None:
            group.base, group.since_s = clock, self.now_s
        else:
            group.base = clock - self._given_at(at)
        group.count(group.n)
        group.place = next(self._stamps)
        node = group.entry
        while node is not None and node is not at:
            node.passed_caps.add(-group.cap, group.place, group)
            node = node.parent
        if at is not None:
            at.held_caps.add(group.cap, group.place, group)
        self._note_finish(group)

    def _pass_on(self, node: Node) -> None:
        """Let the links above see what a link holds now."""
        held = node.held
        clock = self._clock(held)
        at = held.at if held.n else _holder(node.parent)
        if held.n:
            held.count(-held.n)
        held.n = node.n_held
        if not held.n:
            held.finish = held.place = VOID
            return
        fresh = FlowClass(held.entry, node.level)
        held.cap, held.units = fresh.cap, fresh.units
        self._put(held, clock, at)

    def _note_finish(self, group: FlowClass) -> None:
        """Note when the first flow of a class finishes; what was noted before is void."""
        key, flow = self._first(group)
        group.finish = next(self._stamps)
        if group.at is not None:
            group.at.finishes.add(key - group.base, flow, group)
            return
        free = self._free
        if group.cap > 0:
            due_s = group.since_s + (key - group.base) / group.cap
        else:
            due_s = math.inf if key > group.base else group.since_s
        heappush(free, (due_s, flow, group.finish, group))
        if len(free) > self._free_most:
            free[:] = [note for note in free if note[3].finish == note[2]]
            heapify(free)
            self._free_most = 64 + 2 * len(free)

    def _first(self, group: FlowClass) -> tuple[float, int]:
        """Return the key and the number of the flow of a class that finishes first."""
        if group.inner is not None:
            first = group.inner.finishes.first()
            assert first is not None
            return first[0], first[1]
        keys, flows = group.keys, self._flows
        while flows.get(keys[0][1], (None,))[0] is not keys[0]:
            heappop(keys)
        if len(keys) > 64 + 2 * group.n:
            keys[:] = [entry for entry in keys if flows.get(entry[1], (None,))[0] is entry]
            heapify(keys)
        return keys[0]


def _holder(node: Node | None) -> Node | None:
    """Return the first link from here to the root that holds anything; None: none does."""
    while node is not None and not node.n_held:
        node = node.parent
    return node


def rate_of(group: FlowClass) -> float:
    """Return the present rate of each flow of a class [bytes/s]."""
    node = group.at
    while node is not None:
        if node.parent is None:
            return node.level
        group = node.held
        node = group.at
    return group.cap
