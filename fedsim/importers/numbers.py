"""One value of a foreign file as a number that can be trusted, or a sentence that says where and why not."""

from __future__ import annotations

import math
from typing import Any

from fedsim.errors import ProfileError, message
from fedsim.files.plain_number import plain_number

HIGHEST = 1e10
"""Seconds, milliseconds or kilobits a second: nothing measured comes near."""


def number(where: str, field: str, value: Any, *, high: float = HIGHEST, positive: bool = False) -> float:
    """Return a finite number, at least 0.

    Args:
        where: file and row, for the message.
        field: name of the value.
        value: a number, or text that is one.
        high: the most it may be.
        positive: it must be greater than 0.

    Raises:
        ProfileError: it is not.
    """
    place = f"{where}: {field}"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        fix = "write a number, without a unit"
        raise ProfileError(message(place, f"must be a number, not {_named(value)}", fix=fix))
    result = plain_number(value)
    if math.isnan(result) or result > high:
        what = "must be a finite number" if not math.isfinite(result) else f"must be at most {high:g}"
        raise ProfileError(message(place, what, got=shown(value), fix="write a number, without a unit"))
    if result < 0 or (positive and result == 0):
        bound = "greater than 0" if positive else "at least 0"
        fix = "correct it, or leave the row out"
        raise ProfileError(message(place, f"must be {bound}", got=result, fix=fix))
    return result


def shown(value: Any) -> Any:
    """Return a value as it may stand in a message: short, and never nested."""
    if isinstance(value, int) and abs(value) > 10**30:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return value if len(value) <= 60 else value[:57] + "..."
    return value if isinstance(value, int | float) else _named(value)


def _named(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "nothing", bool: "true or false"}
    return names.get(type(value), f"a {type(value).__name__}")
