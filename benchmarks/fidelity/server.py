"""The server of the measured federation: `... server SETTINGS`, real aggregation on real sockets.

Says `ready`, waits for `epoch T`, runs synchronous rounds or a buffered asynchronous server (FedBuff)
from T on, and prints what happened as JSON: {epoch_s, visits, commits}, times in seconds from T.
"""

from __future__ import annotations

import json
import math
import os
import queue
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fidelity import wire
from benchmarks.fidelity.client import PORT, SERVER_PORT
from benchmarks.fidelity.lab import address
from benchmarks.fidelity.spaces import sleep_until, urgent

STALL_S = 120.0
Landed = tuple[float, dict[str, Any], bytes]


class Server:
    """Pushes models to clients, takes their updates, makes versions of them."""

    def __init__(self, clients: int, vector: bytes, congestion: str) -> None:
        """Take the number of clients and version 0."""
        self.clients, self.congestion = clients, congestion
        self.model = np.frombuffer(vector, dtype=np.float32)
        self.version = 0
        self.epoch_s = 0.0
        self.visits: list[dict[str, Any]] = []
        self.commits: list[dict[str, Any]] = []
        self._landed: queue.Queue[Landed] = queue.Queue()
        self._made = [0] * clients
        self._starts: dict[int, Any] = {0: self.model}
        self._door = wire.listen(SERVER_PORT)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._door.accept()
            threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        with connection, suppress(EOFError):
            facts, vector = wire.receive(connection)
            self._landed.put((time.monotonic(), facts, vector))

    def dispatch(self, client: int) -> None:
        """Send the current model to a client."""
        facts = {"visit": self._made[client], "version": self.version, "dispatched_s": time.monotonic()}
        self._made[client] += 1
        model = self.model.tobytes()
        threading.Thread(target=self._push, args=(client, facts, model), daemon=True).start()

    def _push(self, client: int, facts: dict[str, Any], model: bytes) -> None:
        with wire.connect(address(client), PORT, self.congestion) as connection:
            wire.send(connection, facts, model)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    def next(self, until_s: float = math.inf) -> tuple[dict[str, Any], Any] | None:
        """Return the next update that lands (facts, vector), or None at `until_s` of the monotonic clock.

        Raises:
            TimeoutError: nothing has landed for `STALL_S`: a client is dead.
        """
        wait = max(0.0, until_s - time.monotonic())
        try:
            landed_s, facts, vector = self._landed.get(timeout=min(wait, STALL_S))
        except queue.Empty:
            if wait > STALL_S:
                raise TimeoutError(f"no update for {STALL_S:.0f} s") from None
            return None
        for key in ("dispatched_s", "downloaded_s", "trained_s"):
            facts[key] -= self.epoch_s
        visit = {**facts, "landed_s": landed_s - self.epoch_s, "staleness": -1}
        self.visits.append(visit)
        return visit, np.frombuffer(vector, dtype=np.float32)

    def commit(self, updates: list[tuple[dict[str, Any], Any]]) -> None:
        """Add the mean of the updates' changes to the model: the next version."""
        change = np.mean([vector - self._starts[visit["version"]] for visit, vector in updates], axis=0)
        for visit, _ in updates:
            visit["staleness"] = self.version - visit["version"]
        self.model = self.model + change
        self.version += 1
        self._starts[self.version] = self.model
        self.commits.append({"version": self.version, "time_s": time.monotonic() - self.epoch_s})

    def synchronous(self, rounds: int) -> None:
        """Ask everybody, wait for everybody, commit; so many times."""
        for _ in range(rounds):
            for client in range(self.clients):
                self.dispatch(client)
            landed = [self.next() for _ in range(self.clients)]
            self.commit([update for update in landed if update is not None])

    def buffered(self, buffer: int, time_s: float) -> None:
        """Keep everybody at work; commit whenever `buffer` updates are there; stop after `time_s`."""
        waiting: list[tuple[dict[str, Any], Any]] = []
        for client in range(self.clients):
            self.dispatch(client)
        while (update := self.next(self.epoch_s + time_s)) is not None:
            waiting.append(update)
            if len(waiting) == buffer:
                self.commit(waiting)
                waiting = []
            self.dispatch(update[0]["client"])


def _end_with_input() -> None:
    """Go when the program that started this one has gone."""
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Run one protocol and report."""
    settings = json.loads(sys.argv[1])
    urgent(6)
    server = Server(settings["clients"], Path(settings["vector"]).read_bytes(), settings["congestion"])
    print("ready", flush=True)
    server.epoch_s = float(sys.stdin.readline().split()[1])
    threading.Thread(target=_end_with_input, daemon=True).start()
    sleep_until(server.epoch_s)
    lag_s = time.monotonic() - server.epoch_s
    protocol = settings["protocol"]
    if protocol["kind"] == "synchronous":
        server.synchronous(protocol["rounds"])
    else:
        server.buffered(protocol["buffer"], protocol["time_s"])
    print(json.dumps({"lag_s": lag_s, "visits": server.visits, "commits": server.commits}), flush=True)


if __name__ == "__main__":
    main()
