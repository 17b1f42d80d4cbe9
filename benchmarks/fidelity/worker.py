"""The training side of a client, alone in its cgroup: `... worker SETTINGS FD`.

Takes {visit} and a vector over the socket FD, works, and answers {cpu_s, loss} and the new vector.
Work is a spin of fixed CPU time, or fedsim's own sequential training.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.fidelity import wire

Work = Callable[[int, bytes], tuple[float, bytes]]
"""(visit, vector) -> (loss, new vector)."""


def spin(cpu_s: float) -> Work:
    """Return work that burns so much CPU time and changes nothing."""

    def work(_visit: int, vector: bytes) -> tuple[float, bytes]:
        stop_s = time.thread_time() + cpu_s
        while time.thread_time() < stop_s:
            pass
        return math.nan, vector

    return work


def training(experiment: dict[str, Any], client: int) -> Work:
    """Return a client's real training under an experiment (plain values of `fedsim.Experiment`)."""
    import numpy as np

    from fedsim.clock.plan import prepare
    from fedsim.config.experiment import Experiment
    from fedsim.jobs import Job

    plan = prepare(Experiment.model_validate(experiment))
    task: Any = plan.task
    task.warm()

    def work(visit: int, vector: bytes) -> tuple[float, bytes]:
        start = np.frombuffer(vector, dtype=np.float32)
        (update,) = task.train([Job(client, visit, start, plan.experiment.local, plan.experiment.seed)])
        return update.loss, update.end.tobytes()

    return work


def main() -> None:
    """Get ready, join the cgroup, serve until the client is gone."""
    settings = json.loads(sys.argv[1])
    channel = socket.socket(fileno=int(sys.argv[2]))
    kind = settings["work"]
    spinning = kind["kind"] == "spin"
    work = spin(kind["cpu_s"]) if spinning else training(kind["experiment"], settings["client"])
    if settings["cgroup"] is not None:
        Path(settings["cgroup"]).write_text(str(os.getpid()))
    wire.send(channel, {"ready": True})
    with suppress(EOFError, ConnectionError):
        while True:
            asked, vector = wire.receive(channel)
            began_s = time.process_time()
            loss, vector = work(asked["visit"], vector)
            wire.send(channel, {"cpu_s": time.process_time() - began_s, "loss": loss}, vector)


if __name__ == "__main__":
    main()
