"""Server momentum: FedAvgM (Hsu, Qi and Brown, arXiv 1909.06335)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.arrays import Floats
from fedsim.config.fields import Positive
from fedsim.optimizers._base import Decay, ServerOptimizer, move, moved


class Momentum(ServerOptimizer):
    """v <- beta v + D, then x <- x + lr v.

    A steady move D is followed lr / (1 - beta) times over: 10 times for lr 1 and beta 0.9.

    Attributes:
        lr: step.
        beta: share of the last step's velocity that stays.
    """

    kind: Literal["momentum"] = "momentum"
    lr: Positive = 1.0
    beta: Decay = 0.9

    def init(self, size: int) -> Floats:
        """Return v = 0."""
        return np.zeros(size)

    def step(self, state: Floats, before: Vector, after: Vector, max_staleness: int) -> tuple[Vector, Floats]:
        """Return the adapter after one step, and v."""
        v = self.beta * state + move(before, after)
        return moved(before, self.lr * v), v
