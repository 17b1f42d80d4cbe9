"""The values of one column, held against its type."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fedsim.arrays import Values
from fedsim.errors import RunError, message

OF_ONE_ROW = ("clients.windows",)
"""Columns of texts that no two rows share."""
_KINDS = {"int64": "iu", "float64": "fiu", "bool": "b"}


def column_of(where: str, values: Any, dtype: str) -> Values:
    """Return values as one array of exactly a dtype; one that is such an array already is returned as it is.

    Args:
        where: table and column.
        values: numbers, truths, or texts (`str`), of which equal ones become one object.
        dtype: of the column.

    Raises:
        RunError: a value is of the wrong type.
    """
    if dtype == "str":
        once = str if where in OF_ONE_ROW else _shared
        words = [once(v) if isinstance(v, str) else _refuse(where, v, dtype) for v in values]
        array = np.empty(len(words), dtype=object)
        array[:] = words
        return array
    array = np.asarray(values)
    if dtype == "int64" and array.dtype.kind == "f" and _are_whole(array):
        array = array.astype(dtype)  # a whole number of bytes that came out of a float formula
    if array.size and array.dtype.kind not in _KINDS[dtype]:
        _refuse(where, array.tolist()[:3], dtype)
    return array.astype(dtype, copy=False)


def _shared(word: str) -> str:
    """Return a text that is in memory once, however many rows have it."""
    return sys.intern(str(word))


def _are_whole(array: Values) -> bool:
    """Tell whether floats are whole numbers that 64 bits hold."""
    return bool(np.all(np.isfinite(array) & (np.abs(array) < 2**63))) and bool(
        np.all(array == np.trunc(array))
    )


def _refuse(where: str, value: Any, dtype: str) -> Any:
    raise RunError(message(where, f"values must be {dtype}", got=value))
