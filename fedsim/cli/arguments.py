"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(metavar="EXP.yaml", help="The experiment.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Changes = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="KEY.PATH=VALUE", help="Change one value (YAML); repeatable."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Import code that its experiment.yaml names, join its cluster, fetch from the hub."
    ),
]
TimelineOnly = Annotated[bool, typer.Option("--timeline-only", help="The same schedule without training.")]
