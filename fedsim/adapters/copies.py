"""What clients hold of what came down coded: a rounded array stays rounded until it changes on the server."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.payload import Payload

REMEMBERED = 8
"""Codings of one array that are kept: of a few ranks, and of what the last versions changed."""


CopyRows = tuple[str, int | None, list[tuple[Vector, Vector]]]
"""An array's name, slots of it, and its values as the server had them and as they came down."""


@dataclass(frozen=True)
class _Download:
    """Arrays of a version that were sent to a client, and how many slots of them; None: all."""

    version: int
    arrays: tuple[str, ...]
    rank: int | None


@dataclass(frozen=True)
class _Copy:
    """An array as the server had it, and as it came down."""

    exact: Vector
    coded: Vector


class Copies:
    """The coded copies of arrays, by their values, and who has downloaded which arrays.

    The server codes an array anew only once it has changed, so all who have downloaded an array of some values hold
    the same copy of it. A client that got its array in another way, drawn from a seed for one, holds it exact.
    """

    def __init__(self, layout: Layout) -> None:
        """Start with nothing sent."""
        self._layout = layout
        self._copies: dict[tuple[str, int | None], deque[_Copy]] = {}
        self._downloads: dict[int, list[_Download]] = {}
        self._joined: dict[tuple[int, tuple[tuple[str, int], ...]], tuple[Vector, Vector]] = {}

    def forget_joined(self) -> None:
        """A new version: nobody starts from the arrays of the last one any more."""
        self._joined.clear()

    def as_coded_before(self, start: Vector, coded: Vector, payload: Payload) -> Vector:
        """Return a message's values, with those of an earlier one in arrays that have not changed since; read-only."""
        exact, arrays = self._layout.arrays(start), self._layout.arrays(coded)
        earlier = dict[str, Vector]()
        for name in self._sent(payload):
            copies = self._copies.setdefault((name, payload.rank), deque(maxlen=REMEMBERED))
            known = next((c for c in copies if np.array_equal(c.exact, exact[name])), None)
            if known is None:
                copies.append(_Copy(exact[name].copy(), arrays[name].copy()))
            else:
                earlier[name] = known.coded
        return self._with(coded, earlier)

    def held(
        self, client: int, version: int, last_seen: int | None, payload: Payload, start: Vector
    ) -> Vector:
        """Return where a client starts: `start`, and its earlier copies of what this message does not bring.

        Args:
            client: whose.
            version: that is sent to it now.
            last_seen: the version of its last download that arrived; what was sent after that never did.
            payload: what comes down now.
            start: with what comes down now already coded.
        """
        arrived = [
            d for d in self._downloads.get(client, ()) if last_seen is not None and d.version <= last_seen
        ]
        sent = self._sent(payload)
        before = [d for d in arrived if not set(d.arrays) <= set(sent)]
        self._downloads[client] = [*before, _Download(version, sent, payload.rank)] if sent else before
        copies = dict[str, _Copy]()
        arrays = self._layout.arrays(start) if before else {}
        for download in reversed(before):
            for name in set(download.arrays) - set(sent) - set(copies):
                copy = self._copy_of(name, download.rank, payload.rank, arrays[name])
                if copy is not None:
                    copies[name] = copy
        if not copies:
            return start
        key = (id(start), tuple(sorted((name, id(copy)) for name, copy in copies.items())))
        if key not in self._joined:
            values = {
                name: self._cut(name, copy.coded, payload.rank, arrays[name]) for name, copy in copies.items()
            }
            self._joined[key] = (start, self._with(start, values))
        return self._joined[key][1]

    def dump(self) -> list[CopyRows]:
        """Return the copies as explicit data; who has downloaded what follows from the schedule."""
        return [
            (name, rank, [(copy.exact, copy.coded) for copy in copies])
            for (name, rank), copies in self._copies.items()
        ]

    def load(self, rows: list[CopyRows]) -> None:
        """Hold these copies, in place of all others."""
        self._joined.clear()
        self._copies = {
            (name, rank): deque((_Copy(*pair) for pair in pairs), maxlen=REMEMBERED)
            for name, rank, pairs in rows
        }

    def _sent(self, payload: Payload) -> tuple[str, ...]:
        return tuple(self._layout.slices) if payload.arrays is None else payload.arrays

    def _copy_of(self, name: str, rank: int | None, now: int | None, exact: Vector) -> _Copy | None:
        """Return the copy that came down with `rank` slots of an array that has these values (in `now` slots) still."""
        for copy in self._copies.get((name, rank), ()):
            if np.array_equal(self._cut(name, copy.exact, now, exact), exact):
                return copy
        return None

    def _cut(self, name: str, values: Vector, rank: int | None, like: Vector) -> Vector:
        """Return values in the first `rank` slots (None: all), those of `like` in the others."""
        axis = self._layout.slot_axes[name]
        if rank is None or axis is None:
            return values
        first, cut = (slice(None),) * axis + (slice(None, rank),), like.copy()
        cut[first] = values[first]
        return cut

    def _with(self, vector: Vector, values: dict[str, Vector]) -> Vector:
        """Return a vector with other values in some arrays, read-only; the same one if there are none."""
        if not values:
            return vector
        changed = vector.copy()
        arrays = self._layout.arrays(changed)
        for name, array in values.items():
            arrays[name][...] = array
        changed.flags.writeable = False
        return changed
