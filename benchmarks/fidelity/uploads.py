"""Plain uploads, timed at both ends: `uploads receive N` at the server, `uploads send JOBS` at a client.

Senders are told `epoch T` on standard input: start times count from T on the monotonic clock, which
all namespaces of a machine share. Both print one JSON object a transfer.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from typing import Any

from benchmarks.fidelity import wire
from benchmarks.fidelity.lab import SERVER
from benchmarks.fidelity.spaces import sleep_until, urgent

PORT = 5201
RETRANSMITTED = 100
"""Offset of the count of retransmitted segments in Linux's struct tcp_info."""


def receive(number: int) -> None:
    """Take so many uploads; says when the last byte of each arrived."""
    with wire.listen(PORT) as door:
        print("ready", flush=True)
        threads = []
        for _ in range(number):
            threads.append(threading.Thread(target=_take, args=(door.accept()[0],)))
            threads[-1].start()
        for thread in threads:
            thread.join()


def _take(connection: socket.socket) -> None:
    with connection:
        head, _ = wire.receive(connection)
        _say({"job": head["job"], "arrived_s": time.monotonic()})


def send(jobs: list[dict[str, Any]]) -> None:
    """Send every job {job, size, start, cc} at its start."""
    print("ready", flush=True)
    epoch_s = float(sys.stdin.readline().split()[1])
    threads = [threading.Thread(target=_upload, args=(job, epoch_s)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _upload(job: dict[str, Any], epoch_s: float) -> None:
    payload = bytes(job["size"])
    sleep_until(epoch_s + job["start"])
    began_s = time.monotonic()
    with wire.connect(SERVER, PORT, job["cc"]) as connection:
        opened_s = time.monotonic()
        wire.send(connection, {"job": job["job"]}, payload)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the receiver closes when it has everything
        known_s = time.monotonic()
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (retransmitted,) = struct.unpack_from("I", info, RETRANSMITTED)
    _say(
        {
            "job": job["job"],
            "began_s": began_s,
            "lag": began_s - epoch_s - job["start"],
            "conn": opened_s - began_s,
            "t_ack": known_s - began_s,
            "retr": retransmitted,
        }
    )


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")  # one write: threads do not mix their lines
    sys.stdout.flush()


if __name__ == "__main__":
    urgent(5)
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]))
    else:
        send(json.loads(sys.argv[2]))
