"""Max-min fair rates on links that are no tree, filled anew at every event: O(links x flows). No clock of its own.

Needed where a CDN's downloads pass the lines of homes and not the server's link: what such a line has left for them
hangs on the server, and the server's level on the lines. Progressive filling is right on any links (Bertsekas and
Gallager, Data Networks, 2nd ed., 1992, section 6.5.2): all flows rise together, and those stop that have reached their
cap or pass a link that is full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedsim.network.max_min import HYSTERESIS, checked_number
from fedsim.network.sharing.max_min_tree import Bottleneck


@dataclass(slots=True)
class _Flow:
    """A flow: what it has left [bytes], its cap and its rate [bytes/s], and the links that it passes."""

    left: float
    cap: float
    links: tuple[tuple[str, int], ...]
    rate: float = 0.0


class AnyLinks:
    """Flows with caps, each on links of its own choice; sizes in bytes, rates in bytes/s, times in s.

    Flows have numbers; of two that finish at once, the smaller number goes first. Every change takes the time at
    which it happens; times must not decrease. All links have a constant capacity, and are there while flows pass them.
    """

    def __init__(self, capacity: float = math.inf, now_s: float = 0.0) -> None:
        """Start empty.

        Raises:
            ValueError: a capacity for all flows together, which is not known here: give them a link that they pass.
        """
        self.now_s = now_s
        self._flows: dict[int, _Flow] = {}
        self._capacity: dict[tuple[str, int], float] = {}
        self.set_capacity(capacity, now_s)

    def __contains__(self, flow: object) -> bool:
        return flow in self._flows

    def rate(self, flow: int) -> float:
        """Return the present rate of a flow [bytes/s]."""
        return self._flows[flow].rate

    def left(self, flow: int, at_s: float | None = None) -> float:
        """Return the bytes that a flow still has to send, at `at_s` if nothing happens until then."""
        one = self._flows[flow]
        ahead_s = 0.0 if at_s is None else at_s - self.now_s
        return max(0.0, one.left - (ahead_s * one.rate if ahead_s else 0.0))

    def add(self, flow: int, size: float, cap: float, at_s: float, path: Sequence[Bottleneck] = ()) -> None:
        """Let a flow in.

        Args:
            flow: its number.
            size: bytes.
            cap: bytes/s.
            at_s: now.
            path: the links that it passes.

        Raises:
            ValueError: a number that is there already, a size or cap that is below 0 or not finite, or a time before
                the last change.
        """
        if flow in self._flows:
            raise ValueError(f"flow {flow} is on the link already")
        checked_number("size", size)
        checked_number("cap", cap)
        self.advance(at_s)
        self._flows[flow] = _Flow(size, cap, tuple(link.name for link in path))
        self._capacity |= {link.name: link.bytes_per_s for link in path}
        self._fill()

    def remove(self, flow: int, at_s: float) -> float:
        """Take a flow out; returns the bytes it had left."""
        self.advance(at_s)
        left = self._flows.pop(flow).left
        self._fill()
        return left

    def set_cap(self, flow: int, cap: float, at_s: float) -> None:
        """Change the cap of a flow."""
        self.advance(at_s)
        if cap != self._flows[flow].cap:
            self._flows[flow].cap = cap
            self._fill()

    def set_capacity(self, capacity: float, at_s: float) -> None:
        """All flows together have no link: there is nothing to change.

        Raises:
            ValueError: they are given one.
        """
        if not math.isinf(capacity):
            raise ValueError(
                f"all flows together have no link (got {capacity}): give it to those that pass it"
            )
        self.advance(at_s)

    def advance(self, at_s: float) -> None:
        """Let time pass.

        Raises:
            ValueError: a time before the last change.
        """
        if at_s < self.now_s:
            raise ValueError(f"time cannot go back from {self.now_s} s to {at_s} s")
        for flow in self._flows.values():
            flow.left = max(0.0, flow.left - flow.rate * (at_s - self.now_s))
        self.now_s = at_s

    def next_finish(self) -> tuple[float, int] | None:
        """Return when the next flow finishes if nothing changes, and its number; None if none ever does."""
        ends = [
            (self.now_s + (flow.left / flow.rate if flow.left else 0.0), number)
            for number, flow in self._flows.items()
            if flow.rate > 0 or not flow.left
        ]
        return min(ends, default=None)

    def finish(self) -> tuple[float, int]:
        """Let time pass until the next flow finishes, and take it out; returns the time and its number.

        Raises:
            ValueError: no flow ever finishes as things are.
        """
        due = self.next_finish()
        if due is None:
            raise ValueError("no flow on this link ever finishes")
        self.remove(due[1], due[0])
        return due

    def _fill(self) -> None:
        """Find the rates."""
        rising, level = dict(self._flows), 0.0
        used = {name for flow in rising.values() for name in flow.links}
        room = self._capacity = {name: c for name, c in self._capacity.items() if name in used}
        room = dict(room)
        while rising:
            on = dict.fromkeys(room, 0)
            for flow in rising.values():
                for name in flow.links:
                    on[name] += 1
            lowest = min(flow.cap for flow in rising.values())
            fills = {name: level + max(0.0, room[name]) / n for name, n in on.items() if n}
            reached = min(lowest, *fills.values()) if fills else lowest
            for name, n in on.items():
                room[name] -= n * (reached - level)
            full = {name for name, at in fills.items() if at <= reached * HYSTERESIS}
            level = reached
            for number in [
                k for k, flow in rising.items() if flow.cap <= level or not full.isdisjoint(flow.links)
            ]:
                rising.pop(number).rate = level
