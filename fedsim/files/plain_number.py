"""A cell as a number: what every reader of tables takes for one, and nothing that Python alone does."""

from __future__ import annotations

import math


def in_plain_digits(cell: object) -> bool:
    """Tell whether a cell is no text, or text that a number may stand in: ASCII, and without `_`."""
    return not isinstance(cell, str) or (cell.isascii() and "_" not in cell)


def plain_number(cell: object) -> float:
    """Return a cell as a float; NaN where it is none.

    Text is a number in ASCII digits: `1_097` and digits of other scripts are numbers to Python and to no other reader of tables.

    >>> [plain_number(cell) for cell in ("1.5e3", 7, "1_097", "\u0669\u0667", "", None, True)]
    [1500.0, 7.0, nan, nan, nan, nan, nan]
    """
    if cell is None or isinstance(cell, bool | bytes) or not in_plain_digits(cell):
        return math.nan
    try:
        return float(cell)  # type: ignore[arg-type]  # whatever has no `__float__` is no number
    except (TypeError, ValueError, OverflowError):
        return math.nan
