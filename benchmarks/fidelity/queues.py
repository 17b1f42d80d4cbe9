"""A line with a queue before it, on ideal time stamps: pure, so it is tested without a network.

A late wake-up of the process that drives it delays one packet and nothing after it: services are
counted from when the line was free, not from when somebody looked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from benchmarks.fidelity.steps import Steps

QUANTUM_BYTES = 1500
"""Deficit round robin hands out one full packet a turn (Shreedhar and Varghese, SIGCOMM 1995)."""


@dataclass
class Line:
    """One direction of a link: sends one packet at a time; fair between its lanes, FIFO with a single lane.

    Attributes:
        rate: bytes/s over time; times are the caller's.
        limit_bytes: what a lane holds, the packet in service apart; more is dropped at its tail.
        lanes: queues that share the line fairly.
        dropped: packets lost so far.
    """

    rate: Steps
    limit_bytes: float
    lanes: int = 1
    dropped: int = 0
    busy: bool = False
    _waiting: list[deque[tuple[int, Any]]] = field(init=False)
    _held_bytes: list[int] = field(init=False)
    _deficit: list[int] = field(init=False)
    _turns: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._waiting = [deque() for _ in range(self.lanes)]
        self._held_bytes = [0] * self.lanes
        self._deficit = [0] * self.lanes

    def offer(self, size: int, packet: Any, lane: int = 0) -> bool:
        """Queue a packet; returns whether there was room."""
        if self._held_bytes[lane] + size > self.limit_bytes:
            self.dropped += 1
            return False
        if not self._waiting[lane]:
            self._turns.append(lane)
        self._waiting[lane].append((size, packet))
        self._held_bytes[lane] += size
        return True

    def start(self, now_s: float) -> tuple[float, Any] | None:
        """Take the next packet into service at `now_s`; returns when it is through, and the packet.

        Call it when the line is not busy, or at the instant its packet is through. None: nothing waits,
        and the line is free.
        """
        self.busy = bool(self._turns)
        if not self._turns:
            return None
        while True:
            lane = self._turns[0]
            size, packet = self._waiting[lane][0]
            if len(self._turns) == 1 or self._deficit[lane] >= size:
                break
            self._deficit[lane] += QUANTUM_BYTES
            if self._deficit[lane] < size:
                self._turns.rotate(-1)
        self._waiting[lane].popleft()
        self._held_bytes[lane] -= size
        self._deficit[lane] = max(0, self._deficit[lane] - size)
        if not self._waiting[lane]:
            self._deficit[lane] = 0
            self._turns.popleft()
        elif self._deficit[lane] < self._waiting[lane][0][0]:
            self._turns.rotate(-1)
        return self.rate.finish_s(now_s, size), packet
