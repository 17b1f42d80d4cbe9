"""What every column of a run's tables means, and in which unit it is: read off the docstrings of the rows."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from typing import Final

from fedsim.records.rows import ROWS
from fedsim.records.tables import TABLES

UNITS: Final = {
    "*flops_per_s": "FLOP/s",
    "*_bytes_per_s": "bytes/s",
    "*_j_per_byte": "J/byte",
    "*_s": "s",
    "*bytes": "bytes",
    "*flops": "FLOP",
    "*joules": "J",
    "*_w": "W",
    "*_wh": "Wh",
    "*_share": "share of 1",
    "battery": "share of 1",
    "cpu_quota": "share of 1",
    "framing": "bytes/byte",
    "metric_*": "of the metric",
    "value": "of the metric",
    "gain": "of the metric",
    "loss": "of the task's loss",
    "loss_square": "of the task's loss, squared",
    "mean_staleness": "versions",
    "*staleness": "versions",
    "mean_cosine": "-1 to 1",
    "update_norm": "of the weights",
}
"""Patterns of names -> unit; the first that fits."""
_SECTION = re.compile(r"^Attributes:\n(.*)", re.MULTILINE | re.DOTALL)
_CLAUSE = re.compile(r"(?:^|(?<=; )|(?<=\. ))([a-z]\w*\*?(?:, [a-z]\w*)*): ")
_OF_TYPE = {"int64": "whole number", "bool": "true or false", "str": "text"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: as in the file.
        dtype: of NumPy, or `str`.
        unit: of its numbers; what they are, if they have none.
        meaning: in words.
    """

    name: str
    dtype: str
    unit: str
    meaning: str


def columns(table: str) -> tuple[Column, ...]:
    """Return the columns of a table, in the order in which they are written.

    Args:
        table: `clients`, `visits`, `commits`, `scores` or `personal`.

    >>> [column.unit for column in columns("scores")]
    ['whole number', 's', 'text', 'text', 'of the metric']
    """
    said = list(_clauses(ROWS[table]))
    return tuple(
        Column(name, dtype, _unit(name, dtype), next((text for n, text in said if fnmatch(name, n)), ""))
        for name, dtype in TABLES[table].items()
    )


def _unit(name: str, dtype: str) -> str:
    unit = next((unit for pattern, unit in UNITS.items() if fnmatch(name, pattern)), "")
    return unit or _OF_TYPE.get(dtype, "")


def _clauses(row: type) -> Iterator[tuple[str, str]]:
    """Yield (column, or a pattern of columns; what the docstring of a row says of it)."""
    section = _SECTION.search(inspect.cleandoc(row.__doc__ or ""))
    items = re.split(r"\n {4}(?=\w)", "\n" + section[1].rstrip()) if section else []
    for item in items:
        text = " ".join(item.split())
        named = {field.name for field in fields(row)}
        starts = [
            match
            for match in _CLAUSE.finditer(text)
            if all(n in named or n.endswith("*") for n in match[1].split(", "))
        ]
        ends = [*(match.start() for match in starts[1:]), len(text)]
        for start, end in zip(starts, ends, strict=False):
            for name in start[1].split(", "):
                yield name, re.sub(r" \[[^]]*\]$", "", text[start.end() : end].strip(" ;."))
