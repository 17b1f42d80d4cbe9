"""The quadratic task on any executor: clients that misbehave, all bits of an outcome, scripts in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError, HostError
from fedsim.jobs import Job, Probe, ScoreJob, TaskContext
from fedsim.tasks.quadratic import Quadratic

__all__ = [
    "LOCAL",
    "PRELUDE",
    "HostError",
    "Tricky",
    "TwoWords",
    "batches",
    "gone",
    "outcome",
    "python",
    "quadratic",
]

LOCAL = LocalConfig(optimizer="sgd", lr=0.1, steps=3)


def quadratic(clients=40, **fields):
    return Quadratic(**fields).build(TaskContext(clients, 0, LoraConfig(), LOCAL))


class TwoWords(Exception):  # noqa: N818
    """Cannot be rebuilt from its args: pickle calls TwoWords('a b')."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


class Tricky:
    """The quadratic task, but some clients behave: {client: what happens}."""

    def __init__(self, behave, nap_s=0.0):
        self.inner, self.behave, self.nap_s = quadratic(), behave, nap_s
        self.layout, self.shape, self.initial = self.inner.layout, self.inner.shape, self.inner.initial

    def warm(self):
        if self.behave.get("warm") == "missing":
            raise DataError("no such model\n  fix: task.model=builtin")

    def train(self, jobs):
        for job in jobs:
            time.sleep(self.nap_s)
            match self.behave.get(job.client):
                case "raise":
                    raise KeyError("boom")
                case "two words":
                    raise TwoWords("odd", "news")
                case "exit":
                    sys.exit(7)
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "sleep":
                    time.sleep(600)
                case "drop":
                    return []
        if len(jobs) > 1 and "together" in self.behave:
            raise ValueError("too many")
        return self.inner.train(jobs)

    def score_together(self, jobs):
        if any(self.behave.get(job.probe.client) == "raise" for job in jobs):
            raise ValueError("cannot score")
        return self.inner.score_together(jobs)


def batches(handle, clients=40, size=4):
    jobs = [Job(k, k % 3, handle, LOCAL, 0) for k in range(clients)]
    return [jobs[at : at + size] for at in range(0, clients, size)]


def outcome(executor, task, **cut):
    """Train every client and score the result: all bits, in the order of submission."""
    handle = executor.share(task.initial())
    tickets = [executor.train(batch) for batch in batches(handle, **cut)]
    updates = [update for ticket in tickets for update in ticket.result()]
    mean = np.mean([u.end for u in updates], axis=0, dtype=np.float64).astype(np.float32)
    sums = executor.score([ScoreJob(executor.share(mean), Probe("test", 0, 9))]).result()
    return [(u.end.tobytes(), u.loss, u.examples, u.tokens, u.steps) for u in updates], sums


PRELUDE = """
import os, sys, time
import numpy as np
from worlds import executor_worlds as t
from fedsim.executors.inline import Inline
from fedsim.executors.ray import RayExecutor
inline = Inline(); inline.open(t.quadratic()); expected = t.outcome(inline, t.quadratic()); inline.close()
"""


@contextmanager
def python(script, variables=None):
    """Run a script in its own session, with some variables of the environment; yields (process, its other processes)."""
    mark = f"MARK_{uuid.uuid4().hex}"
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **(variables or {}), mark: "1", "PYTHONPATH": path}
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def others():
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (folder / "environ").read_bytes() and int(folder.name) != process.pid:
                    found.append((folder / "cmdline").read_bytes()[:80])
            except OSError:
                continue
        return found

    try:
        yield process, others
    finally:
        process.kill()
        process.communicate()


def gone(others, within_s=10.0):
    """Ray's processes end a moment after their last order."""
    stop = time.monotonic() + within_s
    while others() and time.monotonic() < stop:
        time.sleep(0.1)
    return others() == []
