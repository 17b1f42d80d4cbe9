"""Runs of Weights & Biases, in offline mode unless it is asked for otherwise: nothing is sent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.callbacks import RunBegun, RunEnded
from fedsim.trackers.live import AXES, Point, Tracker, identity

if TYPE_CHECKING:
    import wandb

PROJECT = "fedsim"


class Wandb(Tracker):
    """A run a run, in `out/wandb`; `wandb sync` sends one later. Every value stands against the chosen axis."""

    def __init__(self, out: Path, *, online: bool) -> None:
        """Take the folder, and whether W&B's own server, as its settings say it, is sent to."""
        self._out, self._online = out, online
        self._run: wandb.Run | None = None
        self._axis = ""

    def remove(self, event: RunBegun) -> None:
        """Remove what offline mode has kept of the run."""
        for path in (self._out / "wandb").glob(f"offline-run-*-{identity(event)}"):
            shutil.rmtree(path)

    def begin(self, event: RunBegun) -> None:
        """Begin a run, or go on with the one of that identity."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._out.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        self._run = wandb.init(
            project=PROJECT,
            name=event.name,
            id=identity(event),
            resume="allow" if self._online else None,
            dir=str(self._out),
            mode="online" if self._online else "offline",
            config=dict(event.settings),
            reinit="create_new",
            settings=quiet,
        )
        self._axis = ""

    def write(self, point: Point, values: Mapping[str, float]) -> None:
        """Log values, with all axes; the chosen one is that of the charts."""
        assert self._run is not None
        if not self._axis:
            self._axis = AXES[point.axis]
            self._run.define_metric("*", step_metric=self._axis)
        self._run.log({**point.facts, **values})

    def end(self, event: RunEnded) -> None:
        """Finish: what is not done counts as failed."""
        if self._run is not None:
            self._run.summary.update({"status": event.status, "reason": event.reason})
            self._run.finish(exit_code=0 if event.status == "done" else 1)
            self._run = None
