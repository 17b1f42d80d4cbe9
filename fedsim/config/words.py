"""Fields that hold one of a few words or the path of a table: which words, and what the table has."""

from __future__ import annotations

from pathlib import Path

from fedsim.config.problem import Problem
from fedsim.errors import nearest
from fedsim.files.disk import no_file

WORDS: dict[str, tuple[str, ...]] = {
    "population.availability": ("always", "charging", "eligible"),
    "population.rates": ("constant", "generated"),
    "energy.battery.plugged": ("charging",),
    "compute.calibration": ("none", "measured"),
}
"""Values of fields with a file that are not files."""
COLUMNS = {
    "population.availability": "client, start_s, stop_s",
    "population.rates": "trace, time_s, down_kbps",
    "energy.battery.plugged": "client, start_s, stop_s",
    "compute.calibration": "device, model, stack, tokens_per_s",
}
"""Columns of the tables that these fields name."""


def no_such_file(field: str, value: str) -> Problem | None:
    """Return what is wrong with a value that is neither a word of its field nor a file; None if it is one of them.

    >>> no_such_file("population.rates", "generate").fix
    "did you mean 'generated'?"

    Args:
        field: a key of `WORDS`.
        value: what the configuration says.
    """
    words = WORDS[field]
    if value in words or Path(value).is_file():
        return None
    hint = nearest(Path(value).name, words)
    fix = f"write {', '.join(words)}, or the file of a table with {COLUMNS[field]}"
    return Problem(tuple(field.split(".")), no_file(value), hint if hint.startswith("did") else fix, value)
