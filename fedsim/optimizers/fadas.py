"""FADAS: adaptive steps that stale updates shorten (Wang et al., ICML 2024, arXiv 2407.18365)."""

from __future__ import annotations

from typing import Literal

from fedsim.arrays import Floats
from fedsim.config.fields import CountOrZero, Positive
from fedsim.optimizers._base import Adaptive, Bias, Decay, Moments


class Fadas(Adaptive):
    """AMSGrad on the mean move of a buffer: x <- x + lr_t m / (sqrt(max v) + tau), delay-adapted.

    v as in Adam; the largest v so far divides, so with `bias: none` and no delay no coordinate's step for a
    move grows again. With T the largest staleness among the updates of a step, lr_t = lr while T <= `patience`, and beyond

        delay: capped:    min(lr, 1 / T)    (the paper, algorithm 2)
        delay: scaled:    lr / T            (the authors' code)

    The paper's mean move is the plain one: `aggregator: {staleness: {kind: constant}, normalize: K}`. What a rule has
    discounted by staleness is shortened here a second time.

    With lr well below 1 / T, `capped` does nothing. `bias: corrected` (the authors' code) divides m and the
    largest v by 1 - beta^t; `none` does not, and v starts at tau^2 as in the rest of the family.

    Attributes:
        beta2: decay of the mean of squares.
        delay: how late updates shorten the step.
        patience: staleness up to which they do not.
    """

    kind: Literal["fadas"] = "fadas"
    beta2: Decay = 0.99
    tau: Positive = 1.0e-8
    bias: Bias = "corrected"
    delay: Literal["capped", "scaled"] = "scaled"
    patience: CountOrZero = 1

    def init(self, size: int) -> Moments:
        """Return the moments before the first step."""
        start = super().init(size)
        return start._replace(peak=start.v)

    def second(self, v: Floats, square: Floats) -> Floats:
        """Return the exponential mean of squares."""
        return self.beta2 * v + (1.0 - self.beta2) * square

    def weight(self, steps: int) -> float:
        """Return 1 - beta2^steps."""
        return float(1.0 - self.beta2**steps)

    def rate(self, max_staleness: int) -> float:
        """Return lr_t."""
        if max_staleness <= self.patience:
            return self.lr
        return self.lr / max_staleness if self.delay == "scaled" else min(self.lr, 1.0 / max_staleness)
