"""A client of the measured federation: `... client SETTINGS`; sockets here, the work in its worker.

Says `ready`, then obeys lines on standard input: `calibrate SECONDS` trains visit after visit for so
long and prints how long each took; `go` serves the server until the end of input.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.fidelity import wire
from benchmarks.fidelity.lab import SERVER
from benchmarks.fidelity.spaces import ROOT, environment, urgent

PORT = 5202
SERVER_PORT = 5203
PAUSE_S = 0.25
"""Between visits of a calibration: longer than a quota's period, so that each begins with a full budget."""


class Worker:
    """The worker process and the socket to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Start it, and wait until it can work."""
        self._socket, other = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "benchmarks.fidelity.worker",
            json.dumps(settings),
            str(other.fileno()),
        ]
        self._process = subprocess.Popen(
            command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, cwd=ROOT, env=environment()
        )
        other.close()
        self.keeps = settings["work"]["kind"] == "spin"  # a spin needs no vector: keep it out of the budget
        wire.receive(self._socket)

    def train(self, visit: int, vector: bytes) -> tuple[dict[str, Any], bytes]:
        """Return {cpu_s, loss} and the new vector."""
        wire.send(self._socket, {"visit": visit}, b"" if self.keeps else vector)
        answer, new = wire.receive(self._socket)
        return answer, vector if self.keeps else new

    def close(self) -> None:
        """Let it go."""
        self._socket.close()
        self._process.wait()


def calibrate(worker: Worker, vector: bytes, seconds: float) -> list[dict[str, float]]:
    """Train for so long, pausing between visits; returns {wall_s, cpu_s} of each after the first."""
    found: list[dict[str, float]] = []
    stop_s = time.monotonic() + seconds
    visit = -1
    while time.monotonic() < stop_s or len(found) < 2:
        time.sleep(PAUSE_S)
        visit += 1
        began_s = time.monotonic()
        answer, _ = worker.train(visit, vector)
        if visit:
            found.append({"wall_s": time.monotonic() - began_s, "cpu_s": answer["cpu_s"]})
    return found


def serve(worker: Worker, client: int, congestion: str) -> None:
    """Download, train, upload, until the server has gone."""
    with wire.listen(PORT) as door, suppress(OSError):
        print("serving", flush=True)
        while True:
            with door.accept()[0] as download:
                asked, vector = wire.receive(download)
                downloaded_s = time.monotonic()
            answer, new = worker.train(asked["visit"], vector)
            trained_s = time.monotonic()
            with wire.connect(SERVER, SERVER_PORT, congestion) as upload:
                facts = {"client": client, "downloaded_s": downloaded_s, "trained_s": trained_s, **asked}
                wire.send(upload, {**facts, **answer}, new)


def main() -> None:
    """Obey."""
    settings = json.loads(sys.argv[1])
    urgent(5)
    worker = Worker(settings)
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "calibrate":
            vector = Path(settings["vector"]).read_bytes()
            print(json.dumps(calibrate(worker, vector, float(rest[0]))), flush=True)
        elif word == "go":
            serving = (worker, settings["client"], settings["congestion"])
            threading.Thread(target=serve, args=serving, daemon=True).start()
    os._exit(0)  # the worker ends with its socket


if __name__ == "__main__":
    main()
