"""The same scenarios in SimGrid, as another opinion: Debian's `python3-simgrid`, in Debian's own Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.fidelity.rows import Scenario
from benchmarks.fidelity.tally import Durations
from fedsim.errors import HostError, message

PYTHON = "/usr/bin/python3"
CHILD = Path(__file__).with_name("_in_simgrid.py")
NO_LIMIT = 1e15
"""Bytes/s of a server link that limits nobody."""

Model = Literal["LV08", "CM02"]
MODELS: tuple[Model, ...] = ("LV08", "CM02")


def missing() -> str | None:
    """Return why SimGrid cannot be asked, or None."""
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    found = subprocess.run(
        [PYTHON, "-c", "import simgrid"], capture_output=True, text=True, check=False, env=_environment()
    )
    return (
        None
        if found.returncode == 0
        else "python3-simgrid is not installed (apt-get install python3-simgrid)"
    )


def durations(scenarios: Sequence[Scenario], model: Model) -> list[Durations]:
    """Return what a SimGrid network model says, one list a scenario.

    A client's link has latency RTT / 2, the server's none; links are split-duplex, so acknowledgements
    cost nothing. All scenarios run side by side in one engine, on links of their own.

    Raises:
        HostError: SimGrid failed.
    """
    asked = [_plain(scenario) for scenario in scenarios]
    done = subprocess.run(
        [PYTHON, str(CHILD), model],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise HostError(message("SimGrid", f"failed: {last}", fix="run without --simgrid"))
    answer: list[Durations] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _plain(scenario: Scenario) -> dict[str, object]:
    server = scenario.server
    return {
        "up": [[list(up.times_s), list(up.bytes_per_s)] for up in scenario.up],
        "rtt_s": list(scenario.rtt_s),
        "server": [[0.0], [NO_LIMIT]] if server is None else [list(server.times_s), list(server.bytes_per_s)],
        "flows": [[f.client, f.size_bytes, f.start_s] for f in scenario.flows],
    }


def _environment() -> dict[str, str]:
    """Keep a virtual environment's packages away from Debian's Python."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
