"""Randomness by address: a generator is named by what it is for, never drawn in order."""

from __future__ import annotations

import hashlib

import numpy as np


def _entropy(seed: int, path: tuple[str | int, ...]) -> int:
    address = repr((int(seed), *(p if isinstance(p, str) else int(p) for p in path)))
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:16], "little")


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator at an address such as `(seed, "train", client, visit)`.

    Two addresses that differ anywhere give independent generators; the same address gives the
    same numbers on every machine, in whatever order addresses are asked for.

    >>> float(stream(0, "train", 3, 1).random()) == float(stream(0, "train", 3, 1).random())
    True
    """
    return np.random.Generator(np.random.PCG64(_entropy(seed, path)))


def seed_of(seed: int, *path: str | int) -> int:
    """Return the 63-bit integer at an address, for libraries that take a seed (torch, sklearn)."""
    return _entropy(seed, path) & (2**63 - 1)
