"""Of which format a file looks to be, by its first lines: for the sentence that says so when another one was named."""

from __future__ import annotations

import json
from pathlib import Path

from fedsim.files.opened import UnreadableError, opened

HEAD_BYTES = 65_536
HEADERS = {
    "g-nettrack": {"Timestamp", "DL_bitrate", "UL_bitrate"},
    "lumos5g": {"run_num", "seq_num", "Throughput"},
    "kbps": {"time_s", "kbps"},
}
"""Columns that only tables of a format have."""
NUMBERS = {1: "mahimahi", 2: "pensieve", 6: "ghent"}
"""Formats whose lines are so many numbers and nothing else."""
KEYS = {"bandwidth_kbps": "sabre", "messages": "flash-states", "down_u": "flash-speeds"}
"""Keys that only JSON of a format has."""


def format_of(path: Path) -> str | None:
    """Return the name of the format that a file looks to be in; None if it looks like none that is known here."""
    try:
        with opened(path) as file:
            head = file.read(HEAD_BYTES).decode("utf-8-sig", "replace")
    except (UnreadableError, OSError):
        return None
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return None
    if lines[0].lstrip()[:1] in ("[", "{"):
        return next((name for key, name in KEYS.items() if json.dumps(key) in head), None)
    columns = {cell.strip().strip('"') for cell in lines[0].split(",")}
    of_header = next((name for name, needed in HEADERS.items() if needed <= columns), None)
    return of_header or _of_numbers(lines[0].split())


def _of_numbers(cells: list[str]) -> str | None:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return None
    name = NUMBERS.get(len(numbers))
    return None if name == "mahimahi" and not cells[0].isdigit() else name
