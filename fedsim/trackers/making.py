"""A tracker by its name, live or of a run that is over."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsim.callbacks import Committed
from fedsim.errors import ExperimentError, HostError, message, nearest
from fedsim.records.run import Run
from fedsim.trackers import mlflow, tensorboard, told, wandb
from fedsim.trackers.live import AXES, Axis, Tracked, Tracker

KINDS: Mapping[str, Callable[[Path, bool], Tracker]] = {
    "tensorboard": lambda out, _online: tensorboard.TensorBoard(out),
    "wandb": lambda out, online: wandb.Wandb(out, online=online),
    "mlflow": lambda out, online: mlflow.Mlflow(out, online=online),
}
"""Name of a program -> what writes for it, into a folder; or to its server, if that is asked for."""


@dataclass(frozen=True)
class Exported:
    """A run that was exported.

    Attributes:
        run: its folder; to: the program; where: the folder that was written to; points: values that were written.
    """

    run: Path | None
    to: str
    where: Path
    points: int


def installed(kind: str) -> bool:
    """Tell whether the package of a program is here."""
    return importlib.util.find_spec(kind) is not None


def tracked(
    kind: str, out: Path, axis: str = "time", *, name: str | None = None, online: bool = False
) -> Tracked:
    """Return a callback that writes for a program while a run goes.

    Args:
        kind: `tensorboard`, `wandb` or `mlflow`.
        out: folder to write to; each run has a place of its own there.
        axis: what the x axis is: `time`, `rounds` or `bytes`.
        name: what the run is called there; None: as its folder, or as its experiment.
        online: send to the program's server, where its own settings say it is (W&B, MLflow).

    Raises:
        ExperimentError: there is no such program or axis.
        HostError: its package is not installed.
    """
    if kind not in KINDS:
        raise ExperimentError(message("--to", "no such tracker", got=kind, fix=nearest(kind, KINDS)))
    axes: dict[str, Axis] = {name: name for name in AXES}
    if axis not in axes:
        raise ExperimentError(message("--x", "no such axis", got=axis, fix=nearest(axis, AXES)))
    if online and kind == "tensorboard":
        what = "TensorBoard reads a folder and has no server to send to"
        raise ExperimentError(message("--online", what, fix="leave it out"))
    if not installed(kind):
        what = f"the package {kind} is not installed"
        raise HostError(message(kind, what, fix=f"pip install 'fedsim-edge[{kind}]'"))
    return Tracked(KINDS[kind](out, online), axes[axis], name)


def export(
    run: Run, to: str, out: Path, axis: str = "time", *, name: str | None = None, online: bool = False
) -> Exported:
    """Write a run that is over, as it would have been written live; what an earlier export wrote of it is replaced.

    Args:
        run: its tables.
        to: `tensorboard`, `wandb` or `mlflow`.
        out: folder to write to.
        axis: what the x axis is.
        online: send to the program's server.
        name: what it is called there; None: as its folder, or as its experiment.

    Raises:
        ExperimentError, HostError: as of `tracked`.
    """
    callback = tracked(to, out, axis, name=name, online=online)
    begun = told.begun(run)
    callback.tracker.remove(callback.called(begun))
    callback.on_begin(begun)
    for event in told.middle(run):
        if isinstance(event, Committed):
            callback.on_commit(event)
        else:
            callback.on_score(event)
    callback.on_end(told.over(run))
    return Exported(run.folder, to, out, callback.points)
