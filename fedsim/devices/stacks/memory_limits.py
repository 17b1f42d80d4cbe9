"""`memory_limits.csv`: which share of its memory a system lets an app train in, on the screen and in the background."""

from __future__ import annotations

from functools import cache
from typing import Literal

import hetero_profiles
from fedsim.devices.stacks.table import OS
from fedsim.files.user_tables import Column, numbers, problems, read_rows

App = Literal["background", "foreground"]
"""Where the app is that trains."""
LIMIT_COLUMNS = (
    Column("os", "key", choices=(*OS, "vram")),
    *(Column(app, positive=True, high=1.0) for app in ("background", "foreground")),
    *(Column(name, "text") for name in ("kind", "source", "foreground_kind", "foreground_source")),
)


@cache
def usable_share(os: str, app: App = "background") -> float:
    """Return the share of RAM that training may take under an operating system; `vram`: of a card's own memory."""
    rows = read_rows(hetero_profiles.locate("memory_limits.csv"))
    assert not list(problems(rows, LIMIT_COLUMNS))
    return float(dict(zip(map(str, rows.cells["os"]), numbers(rows, app), strict=True))[os])
