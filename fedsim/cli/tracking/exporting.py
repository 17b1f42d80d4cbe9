"""The command `fedsim export`: runs in TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.arguments import AsJson
from fedsim.cli.reading import contradictions_told
from fedsim.cli.shell import beside, runs_in_all, say


class Program(StrEnum):
    """Where a run may be shown."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    mlflow = "mlflow"


class XAxis(StrEnum):
    """What stands on the x axis there."""

    time = "time"
    rounds = "rounds"
    bytes = "bytes"


Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs.")]
To = Annotated[Program, typer.Option("--to", help="The program; its package is an extra of fedsim-edge.")]
X = Annotated[XAxis, typer.Option("--x", help="Virtual seconds, commits, or uploaded bytes.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder to write to [default: named after the program, beside the runs].", show_default=False
    ),
]
Online = Annotated[
    bool,
    typer.Option(
        "--online", help="Send to the program's server, as its own settings say; else nothing is sent."
    ),
]


def export(
    runs: Runs, to: To, x: X = XAxis.time, out: Out = None, online: Online = False, as_json: AsJson = False
) -> None:
    """Write runs for TensorBoard, W&B or MLflow."""
    from fedsim.cli.printing import print_json
    from fedsim.records.run import load
    from fedsim.trackers import export as write

    folders = runs_in_all(runs)
    place = beside([folder.absolute() for folder in folders])
    place = place.parent if len(folders) == 1 else place
    out = place / to.value if out is None else out
    names = _names([folder.absolute() for folder in folders], place)
    exported = []
    for folder, name in zip(folders, names, strict=True):
        run = load(folder)
        with contradictions_told([run]):
            exported.append(write(run, to.value, out, x.value, name=name, online=online))
    if as_json:
        print_json({"exported": exported})
        return
    print(out)
    say(f"next: {_NEXT[to].format(out=out)}")


_NEXT = {
    Program.tensorboard: "tensorboard --logdir {out}",
    Program.wandb: "wandb sync {out}/wandb/offline-run-* sends them; nothing was sent",
    Program.mlflow: "MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {out}/mlruns",
}


def _names(folders: list[Path], place: Path) -> list[str]:
    """Return a name a run: its folder, as seen from the one that holds them all."""
    return [
        str(folder.relative_to(place)) if folder.is_relative_to(place) and folder != place else folder.name
        for folder in folders
    ]
