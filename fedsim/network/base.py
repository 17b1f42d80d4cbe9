"""What a network is: transfers that take virtual time, in two directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from simpy import Event


Direction = Literal["down", "up"]
"""Seen from the client: `down` is the model to the client, `up` the update to the server."""


class Transfer(Protocol):
    """A transfer under way."""

    @property
    def done(self) -> Event:
        """Triggers when the last byte has arrived; its value is the duration in s, pauses included."""
        ...

    def sent_bytes(self, at_s: float | None = None) -> int:
        """Return the payload that has left the sender by now, or by `at_s` if nothing happens until then."""
        ...

    def cancel(self) -> int:
        """Stop for good, now; returns `sent_bytes()`. What has arrived at this instant has arrived."""
        ...

    def pause(self) -> None:
        """Stop for now: the device is away, and nothing moves until `resume`."""
        ...

    def resume(self) -> None:
        """Go on with what is left, on a new connection: handshake and slow start are paid again."""
        ...


class Network(Protocol):
    """What the clock asks of a network."""

    def transfer(self, direction: Direction, client: int, n_bytes: int) -> Transfer:
        """Start a transfer now."""
        ...

    def duration_s(self, direction: Direction, client: int, n_bytes: int) -> float:
        """Return how long the transfer would take from now if the client were alone."""
        ...

    def bytes_per_s(self, direction: Direction, client: int) -> float:
        """Return the mean rate of that transfer if the client were alone, headers included."""
        ...
