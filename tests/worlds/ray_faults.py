"""`fedsim run` in a process of its own, on a Ray of its own, with somebody who kills what it consists of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]


@dataclass
class Command:
    """One command line and its processes, which are known by a mark in their environment."""

    folder: Path
    process: subprocess.Popen = None
    mark: str = field(default_factory=lambda: f"MARK_{uuid.uuid4().hex}")

    @property
    def run(self):
        return self.folder / "run"

    def others(self):
        """(number, program, whole command line) of the living processes that it has started."""
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
                ours = self.mark.encode() in (place / "environ").read_bytes()
                if ours and words[0] and int(place.name) != self.process.pid:
                    yield int(place.name), Path(words[0].decode()).name, b" ".join(words).decode()
            except (OSError, ValueError):
                continue

    def kill(self, program):
        """Kill all processes that run a program, or that call themselves so; their numbers."""
        numbers = [number for number, name, line in self.others() if program in (name, line.split("(")[0])]
        for number in numbers:
            os.kill(number, signal.SIGKILL)
        return numbers

    def wait_for_commits(self, n, within_s=120.0):
        """Wait until the run has made so many commits."""
        lines, stop_s = self.run / "commits.jsonl", time.monotonic() + within_s
        while not lines.exists() or lines.read_bytes().count(b"\n") < n:
            assert self.process.poll() is None, (self.folder / "said").read_text()
            assert time.monotonic() < stop_s, "no commits"
            time.sleep(0.05)

    def ended(self, within_s=120.0):
        """Exit code, what was said on stderr, and `run.json`."""
        code = self.process.wait(timeout=within_s)
        said = (self.folder / "said").read_text()
        info = json.loads((self.run / "run.json").read_text()) if (self.run / "run.json").exists() else {}
        return code, said, info

    def gone(self, within_s=15.0):
        """Whether it leaves no process behind."""
        stop_s = time.monotonic() + within_s
        while (left := list(self.others())) and time.monotonic() < stop_s:
            time.sleep(0.1)
        return left == []


@contextmanager
def fedsim(folder, experiment, command="run", **environment):
    """`fedsim run` (or `resume`) of an experiment, into `folder/run`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "e.yaml").write_text(yaml.safe_dump(experiment.plain()))
    started = Command(folder)
    path = os.pathsep.join(filter(None, [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH")]))
    arguments = {"run": [folder / "e.yaml", "--out", started.run], "resume": [started.run, "--trust"]}[
        command
    ]
    with (folder / "said").open("w") as said:
        started.process = subprocess.Popen(
            [sys.executable, "-m", "fedsim", command, *map(str, arguments)],
            env={**os.environ, started.mark: "1", "PYTHONPATH": path, **environment},
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for number, *_ in started.others():
            os.kill(number, signal.SIGKILL)
