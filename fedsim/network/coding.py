"""What the server and its clients get of what the other side sends in one run."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.copies import Copies, CopyRows
from fedsim.adapters.units import in_client_units, in_server_units
from fedsim.files.client_vectors import ClientVectors
from fedsim.network.messages import decode, encode, extent, format_of
from fedsim.rng import stream

if TYPE_CHECKING:
    from fedsim.adapters.payload import Payload
    from fedsim.config.network import WireConfig
    from fedsim.network.base import Direction


CoderData = tuple[ClientVectors, dict[int, Hashable], list[CopyRows]]
"""Residuals, frames and coded copies."""


class Coder:
    """Codes and decodes everything that travels between the server and its clients; plain float32 goes as it is.

    The model that comes down is coded once a version, an array that has not changed since as it was coded then, so
    all clients of a version start from the same values, and a client's move is counted from what it really got.
    An array that a client downloaded earlier and that has not changed since is, for this client, what it was when it
    came down. What never travelled stays on its side, exact.

    Attributes:
        residuals: with error feedback, what each client still owes, in the layout's shape.
        idle: whether nothing is coded, only noted who downloads what: in a replay without values.
    """

    def __init__(
        self,
        wire: WireConfig,
        layout: Layout,
        seed: int,
        *,
        refactors: bool = False,
        residuals: ClientVectors | None = None,
    ) -> None:
        """Take the format, what travels, the seed that addresses all chance, and where residuals are kept.

        Args:
            wire: the format of both directions.
            layout: of all vectors.
            seed: of the experiment.
            refactors: whether the rule's factors are comparable only within one frame (see `up`).
            residuals: an empty view to keep error feedback in; None: in a temporary file.
        """
        self._wire, self._seed, self._layout = wire, seed, layout
        self._refactors = refactors
        self.residuals = ClientVectors() if residuals is None else residuals
        self._frames: dict[int, Hashable] = {}
        self._version, self.idle = -1, False
        self._down_is_plain = format_of(wire, "down").plain
        self._coded: dict[Payload, tuple[Vector, Vector]] = {}
        self._copies = Copies(layout)

    def down(
        self,
        version: int,
        start: Vector,
        payload: Payload,
        *,
        client: int | None = None,
        last_seen: int | None = None,
    ) -> Vector:
        """Return what a client holds after its download: the same array for the same start, payload and past.

        Args:
            version: of the model.
            start: what it starts from by the rule, in the layout's shape.
            payload: what comes down of it.
            client: whose; None: one that holds nothing yet.
            last_seen: the version of its last download that arrived; None: it has none.
        """
        if self._down_is_plain:
            return start
        if version != self._version:
            self._version = version
            self._coded.clear()
            self._copies.forget_joined()
        coded = start if self.idle else self._coded_start(version, start, payload)
        if client is None:
            return coded
        return self._copies.held(client, version, last_seen, payload, coded)

    def _coded_start(self, version: int, start: Vector, payload: Payload) -> Vector:
        if not extent(self._layout, payload).numbers:
            return start
        key = replace(payload, extra_floats=0)
        known = self._coded.get(key)
        if known is None or known[0] is not start:
            got = self._through("down", start, payload, ("wire-down", version))
            same = self._copies.as_coded_before(start, self._joined(payload, start, got), payload)
            known = self._coded[key] = (start, same)
        return known[1]

    def up(
        self,
        client: int,
        visit: int,
        start: Vector,
        end: Vector,
        payload: Payload,
        *,
        frame: tuple[int, str] = (0, ""),
        scale: float | None = None,
    ) -> Vector:
        """Return where the client ended, as the server understands it: start + Q(end - start + residual).

        Call it once for every update that is taken, a client's visits in their order. An end that is not
        finite is returned as it is.

        Args:
            client: whose.
            visit: its how-many-th; with the client it addresses the chance.
            start: what the client got (`down`), in the layout's shape.
            end: where it ended.
            payload: what goes up of it.
            frame: version it was dispatched from and the rule's phase. With a rule that refactors, a residual
                is forgotten unless it is of the same phase, or of the same version where phases have no name.
            scale: what the client multiplies B A with; None: the layout's. What it owes is kept in the layout's.
        """
        if format_of(self._wire, "up").plain or not extent(self._layout, payload).numbers:
            return end
        move = end - start
        if not np.all(np.isfinite(move)):
            return end
        owed = self._owed(client, frame)
        if owed is not None:
            owed = in_client_units(self._layout, owed, scale)
        where = extent(self._layout, payload)
        if owed is not None:
            move = where.into(move, where.of(move) + where.of(owed))
        got = self._through("up", move, payload, ("wire", client, visit))
        if self._wire.error_feedback:
            before = np.zeros_like(move) if owed is None else owed
            left = where.into(before, where.of(move) - where.of(got))
            left = in_server_units(self._layout, left, scale)
            self.residuals = self.residuals.including({client: left})
        return self._joined(payload, end, start + got)

    def _owed(self, client: int, frame: tuple[int, str]) -> Vector | None:
        if not self._wire.error_feedback:
            return None
        version, phase = frame
        now: Hashable = (phase or version) if self._refactors else None
        same = self._frames.get(client) == now
        self._frames[client] = now
        return self.residuals.get(client) if same else None

    def dump(self) -> CoderData:
        """Return what depends on values, as explicit data, after a commit: before anything of its version was coded."""
        return self.residuals, dict(self._frames), self._copies.dump()

    def load(self, data: CoderData) -> None:
        """Go on from what `dump` has returned."""
        self.residuals, frames, copies = data
        self._frames, self.idle = dict(frames), False
        self._coded.clear()
        self._copies.load(copies)

    def _through(
        self, direction: Direction, vector: Vector, payload: Payload, address: tuple[str | int, ...]
    ) -> Vector:
        chance = stream(self._seed, *address) if self._wire.rounding == "stochastic" else None
        data = encode(self._wire, self._layout, payload, direction, vector, chance)
        return decode(self._wire, self._layout, payload, direction, data)

    def _joined(self, payload: Payload, vector: Vector, sent: Vector) -> Vector:
        """Return `sent` where the payload is, `vector` elsewhere; read-only."""
        where = extent(self._layout, payload)
        joined = where.into(vector, where.of(sent))
        joined.flags.writeable = False
        return joined
