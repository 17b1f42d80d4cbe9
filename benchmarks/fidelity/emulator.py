"""The user-space link emulator: TUN devices in, delays, rates and queues between, TUN devices out.

`python -m benchmarks.fidelity.emulator SETTINGS` opens a device for the server (`tun-server`) and one
for each client (`tun-0`, ...), says `ready`, and then obeys lines on its standard input: `epoch T`
(rates over time count from T on the monotonic clock) and `stop`, or the end of input. It then prints
its statistics as JSON.

    client i: uplink i -> rtt_i / 2 -> the server's ingress -> server
    server: the server's egress -> downlink i -> rtt_i / 2 -> client i
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import json
import os
import select
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.fidelity.queues import Line
from benchmarks.fidelity.spaces import urgent
from benchmarks.fidelity.steps import Steps

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PACKET_BYTES = 2048
AT_ONCE = 64
"""Packets read from a device before the clock is looked at again."""
CLIENT_OF = 10
"""The last byte of a client's address is 10 + its number; the server's is 1."""


def open_tun(name: str) -> int:
    """Create a TUN device (bare IP packets) and return its file descriptor.

    Raises:
        OSError: no such device, or no right to it.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


@dataclass
class Star:
    """The lines between clients and server; a packet is (fd to write to, bytes)."""

    uplinks: list[Line]
    downlinks: list[Line]
    ingress: Line
    egress: Line
    half_rtt_s: list[float]

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Star:
        """Build it from the settings: rates [bytes/s] as pairs of lists (times, rates), queues [bytes]."""
        clients = settings["clients"]
        lanes = len(clients) if settings["fair"] else 1
        server_queue = settings["queue_bytes"]
        return cls(
            [Line(_steps(c["up"]), c["queue_bytes"]) for c in clients],
            [Line(_steps(c["down"]), c["queue_bytes"]) for c in clients],
            Line(_steps(settings["ingress"]), server_queue, lanes),
            Line(_steps(settings["egress"]), server_queue, lanes),
            [c["rtt_s"] / 2 for c in clients],
        )


def _steps(pair: tuple[list[float], list[float]]) -> Steps:
    return Steps(tuple(pair[0]), tuple(pair[1]))


class Emulator:
    """Moves packets between devices by an event heap that is followed in real time."""

    def __init__(self, star: Star, server: int, clients: list[int]) -> None:
        """Take the lines and the devices' file descriptors."""
        self.star, self.server, self.clients = star, server, clients
        self.client_of = {fd: number for number, fd in enumerate(clients)}
        self.epoch_s = 0.0
        self.late_s: list[float] = []
        self.unwritten = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._tick = itertools.count()

    def at(self, when_s: float, act: Callable[..., None], *facts: Any) -> None:
        """Do something at an ideal time [s since the epoch]."""
        heapq.heappush(self._events, (when_s, next(self._tick), act, facts))

    def run(self) -> None:
        """Serve until told to stop on standard input."""
        commands = sys.stdin.fileno()
        inputs = [commands, self.server, *self.clients]
        while True:
            now = time.monotonic() - self.epoch_s
            while self._events and self._events[0][0] <= now:
                when, _, act, facts = heapq.heappop(self._events)
                act(when, *facts)
            wait = self._events[0][0] - (time.monotonic() - self.epoch_s) if self._events else None
            ready, _, _ = select.select(inputs, [], [], None if wait is None else max(0.0, wait))
            for fd in ready:
                if fd != commands:
                    self._read(fd)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        line = sys.stdin.readline().split()
        if line and line[0] == "epoch":
            shift = float(line[1]) - self.epoch_s
            self.epoch_s += shift
            self._events = [(when - shift, *rest) for when, *rest in self._events]  # type: ignore[misc]
            return True
        return False

    def _read(self, fd: int) -> None:
        for _ in range(AT_ONCE):
            try:
                packet = os.read(fd, PACKET_BYTES)
            except BlockingIOError:
                return
            now = time.monotonic() - self.epoch_s
            if packet[0] >> 4 == 4:
                self._enter(now, fd, packet)

    def _enter(self, now: float, fd: int, packet: bytes) -> None:
        if fd == self.server:
            client = packet[19] - CLIENT_OF  # the last byte of the IPv4 destination
            if 0 <= client < len(self.clients):
                self._offer(now, self.star.egress, client, packet, self._to_client)
        else:
            self._offer(
                now, self.star.uplinks[self.client_of[fd]], self.client_of[fd], packet, self._to_server
            )

    def _offer(self, now: float, line: Line, client: int, packet: bytes, then: Callable[..., None]) -> None:
        lane = client if line.lanes > 1 else 0
        if line.offer(len(packet), (client, packet, then), lane) and not line.busy:
            self._serve(now, line)

    def _serve(self, now: float, line: Line) -> None:
        served = line.start(now)
        if served is not None:
            self.at(served[0], self._through, line, served[1])

    def _through(self, when: float, line: Line, item: tuple[int, bytes, Callable[..., None]]) -> None:
        client, packet, then = item
        then(when, client, packet)
        self._serve(when, line)

    def _to_server(self, when: float, client: int, packet: bytes) -> None:
        self.at(when + self.star.half_rtt_s[client], self._arrived, client, packet)

    def _arrived(self, when: float, client: int, packet: bytes) -> None:
        self._offer(when, self.star.ingress, client, packet, self._deliver_to_server)

    def _deliver_to_server(self, when: float, _client: int, packet: bytes) -> None:
        self._write(when, self.server, packet)

    def _to_client(self, when: float, client: int, packet: bytes) -> None:
        self._offer(when, self.star.downlinks[client], client, packet, self._delay_to_client)

    def _delay_to_client(self, when: float, client: int, packet: bytes) -> None:
        self.at(when + self.star.half_rtt_s[client], self._write, self.clients[client], packet)

    def _write(self, when: float, fd: int, packet: bytes) -> None:
        try:
            os.write(fd, packet)
        except OSError:  # the device is down, or its queue is full
            self.unwritten += 1
        self.late_s.append(time.monotonic() - self.epoch_s - when)

    def statistics(self) -> dict[str, Any]:
        """Return packets, how late they were delivered [ms], drops by line, and the CPU time used [s]."""
        late = sorted(self.late_s) or [0.0]
        star = self.star
        return {
            "packets": len(self.late_s),
            "unwritten": self.unwritten,
            "late_p50_ms": 1e3 * late[len(late) // 2],
            "late_p99_ms": 1e3 * late[int(0.99 * (len(late) - 1))],
            "late_max_ms": 1e3 * late[-1],
            "dropped": {
                "uplinks": [line.dropped for line in star.uplinks],
                "downlinks": [line.dropped for line in star.downlinks],
                "ingress": star.ingress.dropped,
                "egress": star.egress.dropped,
            },
            "cpu_s": time.process_time(),
        }


def main() -> None:
    """Open the devices, serve, report."""
    settings = json.loads(sys.argv[1])
    server = open_tun("tun-server")
    clients = [open_tun(f"tun-{number}") for number in range(len(settings["clients"]))]
    urgent(10)
    emulator = Emulator(Star.of(settings), server, clients)
    print("ready", flush=True)
    emulator.run()
    print(json.dumps(emulator.statistics()), flush=True)


if __name__ == "__main__":
    main()
