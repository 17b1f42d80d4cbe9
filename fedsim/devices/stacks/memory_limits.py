"""`memory_limits.csv`: which share of its memory a system lets an app in the background train in."""

from __future__ import annotations

from functools import cache

import hetero_profiles
from fedsim.devices.stacks.table import OS
from fedsim.files.user_tables import Column, numbers, problems, read_rows

LIMIT_COLUMNS = (
    Column("os", "key", choices=(*OS, "vram")),
    Column("share", positive=True, high=1.0),
    Column("kind", "text"),
    Column("source", "text"),
)


@cache
def usable_share(os: str) -> float:
    """Return the share of RAM that training may take under an operating system; `vram`: of a card's own memory."""
    rows = read_rows(hetero_profiles.locate("memory_limits.csv"))
    assert not list(problems(rows, LIMIT_COLUMNS))
    return float(dict(zip(map(str, rows.cells["os"]), numbers(rows, "share"), strict=True))[os])
