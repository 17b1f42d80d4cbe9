"""How calls and answers travel between processes: a small pickle, and the arrays as they lie in memory.

A list of buffers is something that a shared object store moves without pickling it again.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any


def packed(value: Any, dumps: Callable[..., bytes] = pickle.dumps) -> list[Any]:
    """Return a value as its pickle and the buffers of its arrays, none of them copied.

    Args:
        value: anything that `dumps` can pickle.
        dumps: `pickle.dumps`, or one that knows more types, with protocol 5.
    """
    arrays: list[pickle.PickleBuffer] = []
    data = dumps(value, protocol=5, buffer_callback=arrays.append)
    return [data, *arrays]


def unpacked(parts: Sequence[Any]) -> Any:
    """Return the value again, its arrays where they lie."""
    data, *arrays = parts
    return pickle.loads(data, buffers=arrays)  # noqa: S301  # our own process's bytes, not a file's
