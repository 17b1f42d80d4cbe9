"""Two ways to wire up a server and its clients: links in user space (with delay), or the kernel's own.

Both make a namespace for the server and one for each client, fresh every time, so that nothing the
kernel remembers of a path (`tcp_no_metrics_save`) passes from one repetition to the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.fidelity.emulator import CLIENT_OF
from benchmarks.fidelity.spaces import Space, end, expect, program, several
from benchmarks.fidelity.steps import Steps

NETWORK = "10.99.0"
SERVER = f"{NETWORK}.1"
FRAME_BYTES = 1514
BURST_BYTES = 4 * FRAME_BYTES
TRICKLE = "64kbit"
"""Guaranteed rate of an HTB leaf: next to nothing, so that all is borrowed in turns of one frame."""


@dataclass(frozen=True)
class Access:
    """A client's own link: rates [bytes/s, headers included], round-trip time [s], queue [bytes]."""

    up: Steps
    down: Steps
    rtt_s: float
    queue_bytes: int = 125_000


@dataclass(frozen=True)
class Net:
    """A star: clients' links, the server's ingress and egress with fair or FIFO queues."""

    clients: tuple[Access, ...]
    ingress: Steps
    egress: Steps
    fair: bool = True
    queue_bytes: int = 125_000


@dataclass(frozen=True)
class Lab:
    """A wired star: where server and clients live, and how to start its clock and read its account."""

    server: Space
    clients: list[Space]
    begin: Callable[[float], None]
    finish: Callable[[], dict[str, Any]]


def address(client: int) -> str:
    """Return a client's IPv4 address."""
    return f"{NETWORK}.{CLIENT_OF + client}"


@contextmanager
def user_space(net: Net) -> Iterator[Lab]:
    """Wire a star through the TUN emulator: delay, rates over time, fair or FIFO queues.

    Raises:
        HostError: the emulator does not start.
    """
    with ExitStack() as stack:
        middle, server, *clients = stack.enter_context(several(2 + len(net.clients)))
        emulator = stack.enter_context(program("emulator", json.dumps(_plain(net)), inside=middle))
        expect(emulator, "ready")
        _move(middle, "tun-server", server, SERVER)
        for number, client in enumerate(clients):
            _move(middle, f"tun-{number}", client, address(number))

        def begin(epoch_s: float) -> None:
            emulator.stdin.write(f"epoch {epoch_s!r}\n")

        def finish() -> dict[str, Any]:
            emulator.stdin.close()
            found: dict[str, Any] = json.loads(emulator.stdout.readline() or "{}")
            end(emulator)
            return found

        yield Lab(server, clients, begin, finish)


@contextmanager
def kernel(net: Net) -> Iterator[Lab]:
    """Wire a star on a bridge: tbf on every client's link, HTB (fair) or tbf (FIFO) on the server's.

    Raises:
        ValueError: rates over time or delays, which this lab has not.
        HostError: a command failed.
    """
    rates = [net.ingress, net.egress, *(r for c in net.clients for r in (c.up, c.down))]
    if any(not rate.is_constant for rate in rates) or any(c.rtt_s for c in net.clients):
        raise ValueError("the kernel lab has constant rates and no delay")
    with ExitStack() as stack:
        switch, server, *clients = stack.enter_context(several(2 + len(net.clients)))
        switch.do("ip link add bridge type bridge", "ip link set bridge up")
        _plug(switch, "server", server, SERVER)
        _serve(switch, "server", net, net.ingress, "src")
        _serve(server, "eth0", net, net.egress, "dst")
        for number, (client, access) in enumerate(zip(clients, net.clients, strict=True)):
            _plug(switch, f"client{number}", client, address(number))
            _limit(client, "eth0", access.up, access.queue_bytes)
            _limit(switch, f"client{number}", access.down, access.queue_bytes)
        yield Lab(server, clients, lambda _epoch_s: None, dict)


def _plain(net: Net) -> dict[str, Any]:
    def pair(steps: Steps) -> tuple[list[float], list[float]]:
        return list(steps.times_s), list(steps.bytes_per_s)

    return {
        "clients": [
            {"up": pair(c.up), "down": pair(c.down), "rtt_s": c.rtt_s, "queue_bytes": c.queue_bytes}
            for c in net.clients
        ],
        "ingress": pair(net.ingress),
        "egress": pair(net.egress),
        "fair": net.fair,
        "queue_bytes": net.queue_bytes,
    }


def _move(middle: Space, device: str, to: Space, ip: str) -> None:
    middle.do(f"ip link set {device} netns {to.pid}")
    to.do(f"ip addr add {ip}/24 dev {device}", f"ip link set {device} up mtu 1500")


def _plug(switch: Space, port: str, host: Space, ip: str) -> None:
    """Connect a host to the bridge; no segmentation offload, so that queues hold real frames."""
    switch.do(
        f"ip link add {port} type veth peer name eth0 netns {host.pid}",
        f"ip link set {port} master bridge",
        f"ip link set {port} up gso_max_segs 1",
    )
    host.do(f"ip addr add {ip}/24 dev eth0", "ip link set eth0 up gso_max_segs 1")


def _limit(where: Space, device: str, rate: Steps, queue_bytes: int) -> None:
    bits = round(8 * rate.bytes_per_s[0])
    where.do(f"tc qdisc add dev {device} root tbf rate {bits}bit burst {BURST_BYTES} limit {queue_bytes}")


def _serve(where: Space, device: str, net: Net, rate: Steps, match: str) -> None:
    """Put the server's queue on a device: one HTB leaf a client, or a single FIFO."""
    if not net.fair:
        _limit(where, device, rate, net.queue_bytes)
        return
    bits = round(8 * rate.bytes_per_s[0])
    burst = f"burst {BURST_BYTES} cburst {BURST_BYTES}"
    where.do(
        f"tc qdisc add dev {device} root handle 1: htb",
        f"tc class add dev {device} parent 1: classid 1:1 htb rate {bits}bit ceil {bits}bit {burst}",
    )
    for number in range(len(net.clients)):
        leaf = f"1:{CLIENT_OF + number}"
        where.do(
            f"tc class add dev {device} parent 1:1 classid {leaf} htb rate {TRICKLE} ceil {bits}bit {burst} "
            f"quantum {FRAME_BYTES}",
            f"tc qdisc add dev {device} parent {leaf} bfifo limit {net.queue_bytes}",
            f"tc filter add dev {device} parent 1: protocol ip u32 match ip {match} {address(number)}/32 "
            f"flowid {leaf}",
        )
