"""How a contract is held: a sentence for each property, and fingerprints that tell whether anything was changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.files.client_vectors import ClientVectors

LOOKED_AT = 16
"""Clients whose kept vectors are compared."""


def hold(truth: bool | np.bool_, sentence: str) -> None:
    """Raise an AssertionError with the sentence unless it is true."""
    if not truth:
        raise AssertionError(sentence)


def fingerprint(value: Any) -> Any:
    """Return all arrays and plain values of a state, a model, a contribution or an offer, to compare."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, ClientVectors):
        return [fingerprint(value.get(client)) for client in range(LOOKED_AT)]
    if dataclasses.is_dataclass(value) and not isinstance(value, Layout | type):
        return [(f.name, fingerprint(getattr(value, f.name))) for f in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return [(repr(key), fingerprint(part)) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [fingerprint(part) for part in value]
    return repr(value)


def is_vector(array: Vector, size: int) -> bool:
    """Tell whether an array is float32 of one dimension and so many numbers."""
    return array.dtype == np.float32 and array.shape == (size,)


def name_of(component: object) -> str:
    """Return how a sentence names a component."""
    return type(component).__name__
