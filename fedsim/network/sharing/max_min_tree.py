"""Max-min fair rates on a tree of links, O(depth x log n) an event. No clock of its own.

A flow runs at the least of its own cap and the levels of the links that it passes. A link's level follows from what
comes to it from below alone: it is what fills the link, whatever lies above. So levels are found from the leaves to
the root, and no flow need be looked at twice: what a link holds goes on as one class of that cap (`node`). These are the
rates of progressive filling on a tree (Bertsekas and Gallager, Data Networks, 2nd ed., 1992, section 6.5.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fedsim.network.max_min import checked_number
from fedsim.network.sharing.levels import Levels, rate_of
from fedsim.network.sharing.node import Node


class Bottleneck(NamedTuple):
    """A link that some clients share.

    Attributes:
        name: what kind, and which.
        bytes_per_s: its capacity.
    """

    name: tuple[str, int]
    bytes_per_s: float


class MaxMinTree(Levels):
    """Flows with caps on a tree of links; sizes in bytes, rates in bytes/s, times in s.

    Flows have numbers; of two that finish at once, the smaller number goes first. Every change takes the time at
    which it happens; times must not decrease. A link below the root is there while flows pass it.
    """

    def __init__(self, capacity: float, now_s: float = 0.0) -> None:
        """Start with the root alone; its capacity may be infinite.

        Raises:
            ValueError: a capacity below 0.
        """
        super().__init__(capacity if math.isinf(capacity) else checked_number("capacity", capacity), now_s)
        self._nodes: dict[tuple[str, int], Node] = {}
        self._paths: dict[int, tuple[tuple[str, int], ...]] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def __contains__(self, flow: object) -> bool:
        return flow in self._flows

    def level(self, name: tuple[str, int] | None = None) -> float:
        """Return the level of a link [bytes/s], infinite if it holds nobody back; without a name the root's."""
        node = self._root if name is None else self._nodes.get(name)
        return math.inf if node is None else node.level

    def rate(self, flow: int) -> float:
        """Return the present rate of a flow [bytes/s]."""
        return rate_of(self._flows[flow][1])

    def left(self, flow: int, at_s: float | None = None) -> float:
        """Return the bytes that a flow still has to send, at `at_s` if nothing happens until then."""
        (key, _), group = self._flows[flow]
        ahead_s = 0.0 if at_s is None else at_s - self.now_s
        ahead = ahead_s * rate_of(group) if ahead_s else 0.0
        return max(0.0, key - self._clock(group) - ahead)

    def add(self, flow: int, size: float, cap: float, at_s: float, path: Sequence[Bottleneck] = ()) -> None:
        """Let a flow in.

        Args:
            flow: its number.
            size: bytes.
            cap: bytes/s.
            at_s: now.
            path: the links that it passes before the root, in this order.

        Raises:
            ValueError: a number that is there already, a size or cap below 0 or not finite, or a time before
                the last change.
        """
        if flow in self._flows:
            raise ValueError(f"flow {flow} is on the link already")
        checked_number("size", size)
        checked_number("cap", cap)
        self.advance(at_s)
        node = self._way_of(flow, path)
        self._enter(flow, size, cap, node)
        self._settle(node)

    def remove(self, flow: int, at_s: float) -> float:
        """Take a flow out; returns the bytes it had left."""
        self.advance(at_s)
        left, node = self._leave(flow)
        self._settle(node)
        self._end_way(flow)
        return left

    def set_cap(self, flow: int, cap: float, at_s: float) -> None:
        """Change the cap of a flow.

        Raises:
            ValueError: a cap below 0 or not finite, or a time before the last change.
        """
        checked_number("cap", cap)
        self.advance(at_s)
        if cap != self._flows[flow][1].cap:
            left, node = self._leave(flow)
            self._enter(flow, left, cap, node)
            self._settle(node)

    def set_capacity(self, capacity: float, at_s: float) -> None:
        """Change the capacity of the root.

        Raises:
            ValueError: a capacity below 0, or a time before the last change.
        """
        self.advance(at_s)
        self._root.set_capacity(capacity if math.isinf(capacity) else checked_number("capacity", capacity))
        self._settle(self._root)

    def advance(self, at_s: float) -> None:
        """Let time pass.

        Raises:
            ValueError: a time before the last change.
        """
        if at_s < self.now_s:
            raise ValueError(f"time cannot go back from {self.now_s} s to {at_s} s")
        if self._root.n_held:
            self._given += self._root.level * (at_s - self.now_s)
        self.now_s = at_s

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
        self._reach(group, key)
        _, node = self._leave(flow)
        self._settle(node)
        self._end_way(flow)
        return at_s, flow

    # links that come and go -----------------------------------------------------------------------

    def _way_of(self, flow: int, path: Sequence[Bottleneck]) -> Node:
        """Return the first link that a flow passes; those that are missing are made.

        Raises:
            ValueError: a link that others pass on another way to the root.
        """
        node = self._root
        for link in reversed(path):
            inner = self._nodes.get(link.name)
            if inner is not None and inner.parent is not node:
                raise ValueError(f"{link.name} has two ways to the root: links are then no tree")
            node = Node(checked_number("capacity", link.bytes_per_s), node) if inner is None else inner
        node = self._root
        for link in reversed(path):
            if link.name not in self._nodes:
                self._nodes[link.name] = Node(link.bytes_per_s, node)
            node = self._nodes[link.name]
            node.users += 1
        self._paths[flow] = tuple(link.name for link in path)
        return node

    def _end_way(self, flow: int) -> None:
        for name in self._paths.pop(flow):
            node = self._nodes[name]
            node.users -= 1
            if not node.users:
                del self._nodes[name]
        if not self._flows:
            self._given = 0.0  # the next busy period starts without the rounding of this one
