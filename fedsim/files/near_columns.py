"""Columns whose names are nearly those of optional ones: read past, a typing error would change results without a word."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator

from fedsim.errors import Message
from fedsim.files.plain_number import plain_number
from fedsim.files.user_tables import Column, Rows

ALIKE = 0.88
"""How alike two names must be, 0..1: `vram_gib` and `vram_gb` are 0.93, `gemm_gflop_per_s` and `cpu_gflop_per_s` 0.84."""
UNITS = re.compile(r"(_gflop_per_s|_mbps|_kbps|_bytes_per_s|_gb|_ms|_s|_w|_ln)$")


def nearly_named(rows: Rows, needed: Iterable[Column], optional: Iterable[Column]) -> Iterator[Message]:
    """Yield a message for every column that nothing reads and that looks like an optional one which is not there.

    Looks like: the same but for capitals and marks, the same without its unit, or with a letter or two that differ; and it
    holds numbers where that one would. Notes of people, in words, are never taken for one.
    """
    optional = list(optional)
    names = {column.name for column in (*needed, *optional)}
    absent = [column for column in optional if column.name not in rows.cells]
    for name in (name for name in rows.cells if name not in names):
        for column in absent:
            if _alike(name, column.name) and (column.kind != "number" or _holds_numbers(rows, name)):
                what = f"is read by nobody, and looks like {column.name}, which is not there"
                fix = f"rename it if that is meant; if not, name it otherwise ({column.described})"
                yield rows.say(None, name, what, fix=fix)
                break


def _alike(name: str, column: str) -> bool:
    plain, wanted = (re.sub(r"[\W_]+", "_", text.strip().lower()) for text in (name, column))
    if plain.replace("_", "") in (wanted.replace("_", ""), UNITS.sub("", wanted).replace("_", "")):
        return True
    if sorted(plain) == sorted(wanted):  # letters that have changed their places
        return True
    return difflib.SequenceMatcher(None, plain, wanted).ratio() >= ALIKE


def _holds_numbers(rows: Rows, name: str) -> bool:
    cells = [cell for cell in rows.cells[name] if cell not in ("", None)]
    return not any(math.isnan(plain_number(cell)) for cell in cells)
