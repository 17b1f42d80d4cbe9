"""Arguments and options that several commands share."""

from __future__ import annotations

import json
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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs instead of text.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Train on a running Ray cluster; `auto` inside a Ray job.",
        show_default=False,
    ),
]


def on_cluster(changes: list[str] | None, address: str | None) -> list[str]:
    """Return the changes with those that an address stands for.

    >>> on_cluster(["seed=1"], "auto")
    ['seed=1', 'runtime.executor=ray', 'runtime.address="auto"']
    """
    given = list(changes or ())
    return (
        given
        if address is None
        else [*given, "runtime.executor=ray", f"runtime.address={json.dumps(address)}"]
    )
