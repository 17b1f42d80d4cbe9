"""What is said of a folder that is not there, or holds no run: which run nearby may be meant."""

from __future__ import annotations

from pathlib import Path

from fedsim.errors import Message, message

SHOWN = 5
"""Runs that are named."""


def no_run(folder: Path, name: str) -> Message:
    """Return the message about a folder without one of the files of a run; the way out is a run nearby, if there is one.

    Args:
        folder: as it was given.
        name: of the file that it lacks.
    """
    if not folder.is_dir():
        fix = "give the folder that `fedsim run` named at its end"
        meant = Path("runs") / folder.stem
        if (meant / "run.json").is_file():
            fix = f"did you mean '{meant}'?"
        what = "is a file, not the folder of a run" if folder.exists() else "no such folder"
        return message(str(folder), what, fix=fix)
    runs = sorted(str(found.parent) for found in folder.glob("*/run.json"))[:SHOWN]
    return message(
        str(folder), f"holds no run (no {name})", fix=f"give a run in it: {', '.join(runs)}" if runs else ""
    )
