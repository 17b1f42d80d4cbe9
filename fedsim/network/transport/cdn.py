"""Downloads whose first bytes, those of the frozen model, come from a CDN: they do not use the server's link."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedsim.network.base import Direction, Network, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from simpy import Environment, Event


class WithCdn(Network):
    """A network beside which a CDN has the frozen model; where clients share links, `FluidNetwork` has it itself.

    The CDN has no limit of its own: a client's link is all that holds its downloads back. Its round trip is that to the
    server, and every download from it opens a connection of its own.
    """

    def __init__(self, env: Environment, server: Network, cdn: Network) -> None:
        """Take the clock, the way to the server, and that to the CDN."""
        self._env, self._server, self._cdn = env, server, cdn

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer to or from the server now."""
        return self._server.transfer(direction, client, n_bytes)

    def download(self, client: int, n_bytes: int, cdn_bytes: int) -> Transfer:
        """Start a download now: `cdn_bytes` of it from the CDN, and when they are there the rest from the server."""
        first = self._cdn.transfer("down", client, cdn_bytes)
        if cdn_bytes == n_bytes:
            return first
        return InTurn(self._env, first, lambda: self._server.transfer("down", client, n_bytes - cdn_bytes))

    def online_until(self, client: int, offline: Event) -> None:
        """A client is online until this event: its connection to the server, if it keeps one, ends with it."""
        self._server.online_until(client, offline)


class InTurn:
    """Two transfers, one after the other."""

    def __init__(self, env: Environment, first: Transfer, then: Callable[[], Transfer]) -> None:
        """Take the first, which is under way, and what starts the second."""
        self.done = env.event()
        self._env, self._began_s = env, float(env.now)
        self._first, self._then = first, then
        self._second: Transfer | None = None
        first.done.callbacks.append(self._go_on)

    @property
    def _now(self) -> Transfer:
        return self._first if self._second is None else self._second

    def _go_on(self, _: Event) -> None:
        self._second = self._then()
        self._second.done.callbacks.append(self._end)

    def _end(self, _: Event) -> None:
        self.done.succeed(float(self._env.now) - self._began_s)

    @property
    def due_s(self) -> float:
        """When the last byte of the second arrives; inf: the first is under way."""
        return math.inf if self._second is None else self._second.due_s

    def sent_bytes(self, at_s: float | None = None) -> int:
        """Return the payload of both that has left its sender by now, or by `at_s`."""
        rest = 0 if self._second is None else self._second.sent_bytes(at_s)
        return self._first.sent_bytes(at_s) + rest

    def cancel(self) -> int:
        """Stop for good; returns `sent_bytes()`."""
        self._now.cancel()
        return self.sent_bytes()

    def pause(self) -> None:
        """Stop for now."""
        self._now.pause()

    def resume(self) -> None:
        """Go on with what is left."""
        self._now.resume()
