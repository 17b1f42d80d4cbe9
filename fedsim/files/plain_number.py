"""A cell as a number: what every reader of tables takes for one, and nothing that Python alone does."""

from __future__ import annotations

import math


def plain_number(cell: object) -> float:
    """Return a cell as a float; NaN where it is none.

    Text is a number in ASCII digits: `1_097` and digits of other scripts are numbers to Python and to no other reader of tables.

    >>> [plain_number(cell) for cell in ("1.5e3", 7, "1_097", "\u0669\u0667", "", None, True)]
    [1500.0, 7.0, nan, nan, nan, nan, nan]
    """
    if isinstance(cell, str):
        try:
            return float(cell) if cell.isascii() and "_" not in cell else math.nan
        except ValueError:
            return math.nan
    if cell is None or isinstance(cell, bool | bytes):
        return math.nan
    return _float_of(cell)


def _float_of(cell: object) -> float:
    """Return what Parquet has for a number, whole, decimal or of floating point, as a float; NaN beyond all floats."""
    try:
        return float(cell)  # type: ignore[arg-type]  # whatever has no `__float__` is no number
    except (TypeError, ValueError, OverflowError):
        return math.nan
