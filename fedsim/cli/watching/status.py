"""`fedsim status`: how runs and sweeps stand, from any terminal, in a fraction of a second."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.arguments import AsJson

if TYPE_CHECKING:
    from fedsim.records.watching.status import RunStatus
    from fedsim.records.watching.sweep import SweepStatus

EVERY_S = 2.0
"""Real seconds between two looks of `--watch`."""


def status(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run folder, or that of a sweep.", show_default=False)
    ],
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until it has ended.")] = False,
) -> None:
    """Say how a run or a sweep stands.

    How far it is, how its visits ended, how fast it goes, when it will end, what it takes of the disk. Nothing in the
    folder is written or folded; a run that goes on is not disturbed.
    """
    while True:
        standing = _standing(folder)
        text = _as_json(standing) if as_json else _as_text(standing)
        live = watch and not as_json and sys.stdout.isatty()
        print(f"\x1b[H\x1b[J{text}" if live else text, flush=True)
        if not (watch and standing.runs):
            return
        time.sleep(EVERY_S)


def _standing(folder: Path) -> RunStatus | SweepStatus:
    from fedsim.records.watching.status import run_status

    if (folder / "sweep.json").is_file() and not (folder / "run.json").exists():
        from fedsim.records.watching.sweep import sweep_status

        return sweep_status(folder)
    return run_status(folder)


def _as_json(standing: RunStatus | SweepStatus) -> str:
    from fedsim.cli.watching.words import plain

    return json.dumps(plain(standing))


def _as_text(standing: RunStatus | SweepStatus) -> str:
    from fedsim.cli.printing import table
    from fedsim.cli.watching.words import lines_of, sweep_lines
    from fedsim.records.watching.status import RunStatus

    if isinstance(standing, RunStatus):
        return "\n".join(lines_of(standing))
    lines, rows = sweep_lines(standing)
    return "\n".join([*lines, table(rows)])
