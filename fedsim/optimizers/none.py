"""No server optimiser: the rule has the last word."""

from __future__ import annotations

from typing import Literal

from fedsim.adapters.adapter import Vector
from fedsim.optimizers._base import ServerOptimizer


class NoOptimizer(ServerOptimizer):
    """x <- what the rule has made."""

    kind: Literal["none"] = "none"

    def init(self, size: int) -> None:
        """Return the state: none."""

    def step(self, state: None, before: Vector, after: Vector, max_staleness: int) -> tuple[Vector, None]:
        """Return the rule's own vector, the same object."""
        return after, state
