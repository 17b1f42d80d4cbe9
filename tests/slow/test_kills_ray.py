"""A dozen runs by the real command with Ray's workers, whose process is killed: resumed, they are the run left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml
from worlds.kills import campaign, kinds
from worlds.kills.lab import has_begun
from worlds.kills.same import differences

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]
SEED = campaign.asked("KILLS_SEED", 0)
NAMES = ("fedbuff", "ditto", "tifl", "language")


class Command:
    """`python -m fedsim` in a session of its own; whatever it has started can be found, also when it is gone."""

    def __init__(self, *args):
        self.mark, self.began_s = f"MARK_{uuid.uuid4().hex}", time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fedsim", *map(str, args)],
            env={**os.environ, self.mark: "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self):
        """Return the exit code; say what it said if it failed."""
        said, _ = self.process.communicate(timeout=600)
        self.ended()
        assert self.process.returncode == 0, said
        return time.monotonic() - self.began_s

    def kill_after(self, seconds):
        """Kill the driver, not its workers; tell whether it still lived."""
        try:
            self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.ended()
        return self.process.returncode == -signal.SIGKILL

    def others(self):
        """The processes that it has left."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def ended(self, within_s=60.0):
        """Ray's processes end by themselves when their driver is gone."""
        stop = time.monotonic() + within_s
        while self.others() and time.monotonic() < stop:
            time.sleep(0.2)
        left = self.others()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left == []


@pytest.fixture(scope="module", params=NAMES)
def world(request, tmp_path_factory):
    """The experiment of a kind with Ray's workers, its undisturbed run, and how long that took."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = kinds.experiment(request.param)
    settings["runtime"] = {**settings["runtime"], "executor": "ray", "workers": 2}
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path, folder / "wanted", Command("run", path, "--out", folder / "wanted").wait()


@pytest.mark.parametrize("number", range(3))
def test_a_run_with_workers_whose_driver_is_killed_ends_as_if_left_alone(world, tmp_path, number):
    experiment, wanted, seconds = world
    rng, folder = np.random.default_rng((SEED, 7, number)), tmp_path / "run"
    at_s = float(rng.uniform(0.3, 0.95)) * seconds  # starting Ray takes most of the first third
    while not Command("run", experiment, "--out", folder, "--resume").kill_after(at_s):
        at_s *= 0.7
        subprocess.run(["rm", "-rf", str(folder)], check=True)

    args = ("resume", folder) if has_begun(folder) else ("run", experiment, "--out", folder, "--resume")
    Command(*args).wait()

    assert differences(folder, wanted) == []
