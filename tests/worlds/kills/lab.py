"""Undisturbed runs, and their copies that are cut off and resumed: one trial at a time, each by its address."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from worlds.kills import kinds
from worlds.kills.disk import Disk
from worlds.kills.same import differences
from worlds.kills.watch import Order

TESTS = Path(__file__).parents[2]
WAYS = (0.15, 0.15, 0.7)
"""How often a run is resumed by `fedsim resume`, by `fedsim run --resume` and by `fedsim.resume`."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (below 0: the signal), after how long, and what it said."""

    code: int
    seconds: float
    hung: bool
    killed: bool
    said: str


@dataclass
class Kind:
    """A kind of run: its file, its undisturbed folder, how long that took [s]."""

    name: str
    experiment: Path
    wanted: Path
    seconds: float = 0.0


@dataclass
class Trial:
    """One run that was cut off, resumed and compared.

    Attributes:
        kind, address: which experiment, and the numbers that draw all that is random in it.
        how: what was done to it, in words.
        cuts: how often it was really cut off.
        wrong: what differs from the undisturbed run, or went wrong on the way; empty if it is equal.
    """

    kind: str
    address: tuple
    how: list = field(default_factory=list)
    cuts: int = 0
    wrong: list = field(default_factory=list)

    def __str__(self):
        steps = "; ".join(self.how)
        return f"{self.kind} {self.address}: {steps}: {' | '.join(self.wrong) or 'equal'}"


class Lab:
    """Runs commands of fedsim in forked children, in a folder of its own."""

    def __init__(self, folder, ways=WAYS):
        self.folder, self.ways, self._kinds, self._traces = Path(folder), ways, {}, {}
        self._number = 0

    @cached_property
    def _nursery(self):
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "worlds.kills.nursery"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        assert json.loads(process.stdout.readline()) == {"ready": True}
        return process

    def close(self):
        """End the process that forks the children."""
        if "_nursery" in self.__dict__:
            self._nursery.stdin.close()
            self._nursery.stdout.close()
            self._nursery.wait(timeout=60)

    # commands -----------------------------------------------------------------------------------

    def command(self, folder, *args, order=None, kill_after_s=None, do="cli", experiment=None):
        """Run a command of fedsim, or one of its functions, about a run folder."""
        said = self.folder / "said.txt"
        request = {"do": do, "args": list(map(str, args)), "folder": str(folder), "said": str(said)}
        request |= {"kill_after_s": kill_after_s, "order": None if order is None else asdict(order)}
        request["experiment"] = str(experiment)
        self._nursery.stdin.write(json.dumps(request) + "\n")
        self._nursery.stdin.flush()
        answer = json.loads(self._nursery.stdout.readline())
        return Ended(**answer, said=said.read_text(encoding="utf-8", errors="replace"))

    def start(self, kind, folder, **how):
        """Run an experiment into a folder."""
        return self.command(folder, "run", kind.experiment, "--out", folder, **how)

    def resume(self, folder, **how):
        """Resume a run."""
        return self.command(folder, "resume", folder, **how)

    def go_on(self, kind, folder, **how):
        """Resume a run if there is one, else start it."""
        return self.command(folder, "run", kind.experiment, "--out", folder, "--resume", **how)

    def call_resume(self, folder, **how):
        """Call `fedsim.resume`."""
        return self.command(folder, do="resume", **how)

    # worlds -------------------------------------------------------------------------------------

    def kind(self, name):
        """Return a kind with its undisturbed run, made once."""
        if name not in self._kinds:
            place = self.folder / name
            place.mkdir(parents=True, exist_ok=True)
            kind = Kind(name, kinds.write(name, place), place / "wanted")
            shutil.rmtree(kind.wanted, ignore_errors=True)
            ended = self.start(kind, kind.wanted)
            assert ended.code == 0, f"{name}: the undisturbed run ended with {ended.code}: {ended.said}"
            kind.seconds = ended.seconds
            self._kinds[name] = kind
        return self._kinds[name]

    def fresh(self, kind):
        """Return a folder that does not exist."""
        self._number += 1
        folder = self.folder / kind.name / f"run-{self._number}"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def trace(self, kind):
        """Return the changes that an undisturbed run makes, in order."""
        if kind.name not in self._traces:
            self._traces[kind.name] = self.traced(
                lambda order: self.start(kind, self.fresh(kind), order=order)
            )
        return self._traces[kind.name]

    def traced(self, command):
        """Return the changes that a command makes, in order."""
        out = self.folder / "trace.pickle"
        out.unlink(missing_ok=True)
        ended = command(Order("trace", out=str(out)))
        assert ended.code == 0, ended.said
        return pickle.loads(out.read_bytes())

    # trials -------------------------------------------------------------------------------------

    def finish(self, trial, kind, folder, rng):
        """Resume a run to its end and compare it; says in the trial what is wrong."""
        way = int(rng.choice(3, p=self.ways)) if has_begun(folder) else 1
        trial.how.append(("fedsim resume", "fedsim run --resume", "fedsim.resume")[way])
        ended = (self.resume, lambda f: self.go_on(kind, f), self.call_resume)[way](folder)
        if ended.code or ended.hung:
            how = "a hang" if ended.hung else ended.code
            trial.wrong.append(f"ended with {how}: {ended.said.strip()[-600:]}")
            return
        trial.wrong += differences(folder, kind.wanted, report=way != 2)
        if not trial.wrong:
            shutil.rmtree(folder)

    def killed_at_random(self, name, address, times=1):
        """A run that is killed at moments drawn evenly over its duration, so many times, and resumed."""
        kind, trial, rng = self.kind(name), Trial(name, address), np.random.default_rng(address)
        folder = self.fresh(kind)
        for attempt in range(20 * times):
            if trial.cuts == times:
                break
            after_s = float(rng.uniform(0, kind.seconds))
            command = (
                self.resume if trial.cuts and has_begun(folder) else lambda f, **k: self.go_on(kind, f, **k)
            )
            ended = command(folder, kill_after_s=after_s)
            if ended.killed:
                trial.cuts += 1
                trial.how.append(f"killed after {after_s:.3f} s of {kind.seconds:.3f}")
            elif ended.code:
                trial.wrong.append(f"attempt {attempt} ended with {ended.code}: {ended.said.strip()[-600:]}")
                return trial
            else:  # it was quicker than the one that was measured: begin again
                shutil.rmtree(folder)
                trial.cuts = 0
                trial.how.clear()
        self.finish(trial, kind, folder, rng)
        return trial

    def killed_at(self, name, address, order, *, before=None):
        """A run that is killed at one of its changes; with `before`, in the resume after being killed there first."""
        kind, trial, rng = self.kind(name), Trial(name, address), np.random.default_rng(address)
        folder = self.fresh(kind)
        steps = [(lambda **how: self.start(kind, folder, **how), order)]
        if before is not None:
            steps = [(steps[0][0], before), (lambda **how: self.go_on(kind, folder, **how), order)]
        for command, at in steps:
            ended = command(order=at)
            trial.how.append(f"killed {at.when} change {at.at}")
            trial.cuts += ended.killed
            if not ended.killed:
                trial.wrong.append(f"was not killed at {at}: {ended.code}: {ended.said.strip()[-300:]}")
                return trial
        self.finish(trial, kind, folder, rng)
        return trial

    def power_lost(self, name, address, *, strict, last=None):
        """A run whose machine loses its power after a change that is drawn, if asked of the `last` ones."""
        kind, trial, rng = self.kind(name), Trial(name, address), np.random.default_rng(address)
        folder, out = self.fresh(kind), self.folder / "journal.pickle"
        changes = len(self.trace(kind))
        at = int(rng.integers(0 if last is None else max(changes - last, 0), changes))
        disk = Disk(folder)
        ended = self.start(kind, folder, order=Order("power", at, "after", str(out)))
        trial.how.append(f"power lost after change {at}{', strict' if strict else ''}")
        if not ended.killed:
            trial.wrong.append(f"was not cut off at {at}: {ended.code}: {ended.said.strip()[-300:]}")
            return trial
        trial.cuts = 1
        disk.follow(pickle.loads(out.read_bytes()), strict=strict)
        disk.fail(rng, folder)
        self.finish(trial, kind, folder, rng)
        return trial

    def disk_full(self, name, address, order):
        """A run that finds the disk full at one of its changes; then there is room again, and it is resumed."""
        kind, trial, rng = self.kind(name), Trial(name, address), np.random.default_rng(address)
        folder = self.fresh(kind)
        ended = self.start(kind, folder, order=order)
        trial.how.append(f"disk {order.what} {order.when} change {order.at}: exit code {ended.code}")
        trial.wrong += ends_badly(ended)
        if ended.code == 0 and not trial.wrong:  # it did without what could not be written
            said = "run.json: no_checkpoints: 'a checkpoint could not be written"  # and the run says so
            trial.wrong += [d for d in differences(folder, kind.wanted) if not d.startswith(said)]
            return trial
        trial.cuts = 1
        self.finish(trial, kind, folder, rng)
        return trial


def has_begun(folder):
    """Whether a folder holds the heads of a run, whole."""
    try:
        json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / "experiment.yaml").exists()


def ends_badly(ended):
    """What is wrong with the way in which a command gave up: it must be one sentence, and an exit code of its own."""
    if ended.hung or ended.killed:
        return ["it did not end by itself"]
    lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    wrong = [f"a traceback: {ended.said.strip()[-600:]}"] if "Traceback" in ended.said else []
    if ended.code not in (0, 1, 3):
        wrong.append(f"exit code {ended.code}: {ended.said.strip()[-300:]}")
    if ended.code and len(lines) != 1:
        wrong.append(f"{len(lines)} errors: {ended.said.strip()[-600:]}")
    return wrong
