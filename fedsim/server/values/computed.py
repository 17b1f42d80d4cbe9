"""Results that are there already: what had been computed before a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from fedsim.executors import Ticket
from fedsim.jobs import Update


class Computed(Ticket):
    """The ticket of results that are there."""

    def __init__(self, updates: Sequence[Update]) -> None:
        """Take them."""
        self._updates: list[Update] = list(updates)

    def want(self) -> None:
        """Nobody has to hurry."""

    def done(self) -> bool:
        """Return True."""
        return True

    def result(self) -> list[Update]:
        """Return them."""
        return self._updates
