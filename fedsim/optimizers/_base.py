"""What a server optimiser is, and the family of FedOpt."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from fedsim.adapters.adapter import Vector
from fedsim.arrays import Floats
from fedsim.component import Component
from fedsim.config.fields import Positive

Decay = Annotated[float, Field(ge=0, lt=1)]
Bias = Literal["none", "corrected"]


class ServerOptimizer(Component):
    """What the server asks of an optimiser."""

    @abstractmethod
    def init(self, size: int) -> Any:
        """Return the first state for an adapter of so many floats."""

    @abstractmethod
    def step(self, state: Any, before: Vector, after: Vector, max_staleness: int) -> tuple[Vector, Any]:
        """Return the next adapter and state; pure.

        Args:
            state: as `init` or the last step returned it.
            before: the adapter before the rule, (size,) float32.
            after: the adapter as the rule would have it, (size,) float32.
            max_staleness: of the updates that the rule took.
        """

    def dump(self, state: object) -> object:
        """Return the state as explicit data for a checkpoint (see `Aggregator.dump`): by default, itself."""
        return state

    def load(self, data: object) -> object:
        """Return the state that `dump` gave these data of."""
        return data


def move(before: Vector, after: Vector) -> Floats:
    """Return D = after - before in float64."""
    return after.astype(np.float64) - before


def moved(before: Vector, by: Floats) -> Vector:
    """Return before + by, added in float64 and rounded once."""
    return (before + by).astype(np.float32)


class Moments(NamedTuple):
    """What an adaptive optimiser remembers.

    Attributes:
        steps: steps made.
        m, v: mean of the moves, and of their squares (for Adagrad their sum), (size,) float64.
        peak: the largest `v` so far, where the optimiser looks at it.
    """

    steps: int
    m: Floats
    v: Floats
    peak: Floats | None = None


class Adaptive(ServerOptimizer):
    """The family of FedOpt: x <- x + lr m / (sqrt(v) + tau), all by coordinate.

    With m <- beta1 m + (1 - beta1) D, and v as the kind says (`second`).

    Two conventions about the start are in use, and give other steps for the same settings:

    * `bias: none`: algorithm 2 of FedOpt. m starts at 0 and v at tau^2; nothing is corrected. The first
      step of Adam is lr (1 - beta1) / sqrt(1 - beta2) sign(D) for |D| far above tau: lr sign(D) for (0.9, 0.99).
    * `bias: corrected`: as Adam (Kingma and Ba, arXiv 1412.6980). m and v start at 0 and are divided by
      1 - beta^t at step t = 1, 2, ...: the first step is lr sign(D) for every beta.

    Attributes:
        lr: step.
        beta1: decay of the mean of moves.
        tau: added to the root, and the root of v's start.
        bias: convention about the start.
    """

    lr: Positive = 1.0e-3
    beta1: Decay = 0.9
    tau: Positive = 1.0e-3
    bias: Bias = "none"

    def init(self, size: int) -> Moments:
        """Return the moments before the first step."""
        first = self.tau**2 if self.bias == "none" else 0.0
        return Moments(0, np.zeros(size), np.full(size, first))

    @abstractmethod
    def second(self, v: Floats, square: Floats) -> Floats:
        """Return the next v from the last one and D^2."""

    def weight(self, steps: int) -> float:
        """Return the weight that `steps` moves have in v: what `corrected` divides it by."""
        return 1.0

    def rate(self, max_staleness: int) -> float:
        """Return the learning rate of a step."""
        return self.lr

    def step(
        self, state: Moments, before: Vector, after: Vector, max_staleness: int
    ) -> tuple[Vector, Moments]:
        """Return the adapter after one step, and the next moments."""
        by = move(before, after)
        steps = state.steps + 1
        m = self.beta1 * state.m + (1.0 - self.beta1) * by
        v = self.second(state.v, by * by)
        peak = None if state.peak is None else np.maximum(state.peak, v)
        corrected = self.bias == "corrected"
        mean = m / (1.0 - self.beta1**steps) if corrected else m
        spread = (v if peak is None else peak) / (self.weight(steps) if corrected else 1.0)
        move_by = self.rate(max_staleness) * mean / (np.sqrt(spread) + self.tau)
        return moved(before, move_by), Moments(steps, m, v, peak)
