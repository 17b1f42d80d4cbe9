"""The vectors that protocols were given: who keeps one across a checkpoint gets the same values after it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import numpy as np

from fedsim.adapters.adapter import Vector


class LentVectors:
    """Vectors by version, for as long as somebody holds them.

    In a replay without values there are stand-ins: for versions whose vector somebody held at the checkpoint the one of
    then, for all others NaN, as nobody may have anything left of them.
    """

    def __init__(self) -> None:
        """Lend what is there."""
        self._lent: dict[int, weakref.ref[Vector]] = {}
        self._stand_ins: Mapping[int, Vector] | None = None

    def replay(self, held: Mapping[int, Vector]) -> None:
        """Lend stand-ins from now on."""
        self._stand_ins = held

    def go_on(self) -> None:
        """Lend what is there again."""
        self._stand_ins = None

    def vector(self, version: int, vector: Vector) -> Vector:
        """Return the vector of a version: `vector`, or its stand-in."""
        known = self._lent.get(version)
        lent = None if known is None else known()
        if lent is None:
            lent = self._lendable(version, vector)
            self._lent = {number: ref for number, ref in self._lent.items() if ref() is not None}
            self._lent[version] = weakref.ref(lent)
        return lent

    def _lendable(self, version: int, vector: Vector) -> Vector:
        if self._stand_ins is None:
            return vector
        if version in self._stand_ins:
            return self._stand_ins[version]
        return vector if version == 0 else np.full(len(vector), np.nan, np.float32)

    def held(self) -> dict[int, Vector]:
        """Return those that somebody holds, by version."""
        alive = ((version, ref()) for version, ref in self._lent.items())
        return {version: vector for version, vector in alive if vector is not None}
