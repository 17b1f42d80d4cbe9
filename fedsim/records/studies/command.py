"""The command line of a study's script: `run FOLDER ...` makes its runs, `table FOLDER [FIGURE]` prints its tables and draws."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
FAILED = 2
"""Exit code of a command that is none, and of a folder without runs."""


def answered(
    arguments: Sequence[str],
    about: str,
    *,
    run: Callable[[Path, Sequence[str]], int],
    read: Callable[[Path], Mapping[str, T]],
    lines: Callable[[Mapping[str, T]], Sequence[str]],
    draw: Callable[[Mapping[str, T], Path], None],
) -> int:
    """Do what the command line asks for; returns an exit code.

    Args:
        arguments: of the command line.
        about: what is printed where they ask for nothing that there is.
        run: makes the runs in a folder; gets what else the command line says.
        read: returns the finished runs of a folder, by what was done in them.
        lines: returns the tables of such runs.
        draw: writes their figure.
    """
    if len(arguments) < 2 or arguments[0] not in ("run", "table"):
        print(about)
        return FAILED
    folder = Path(arguments[1])
    if arguments[0] == "run":
        return run(folder, arguments[2:])
    found = read(folder)
    if not found:
        print(f"no finished runs in {folder}", file=sys.stderr)
        return FAILED
    print("\n".join(lines(found)))
    if len(arguments) > 2:
        draw(found, Path(arguments[2]))
    return 0
