"""FedAdam (Reddi et al., arXiv 2003.00295, algorithm 2)."""

from __future__ import annotations

from typing import Literal

from fedsim.arrays import Floats
from fedsim.optimizers._base import Adaptive, Decay


class Adam(Adaptive):
    """v <- beta2 v + (1 - beta2) D^2; see `Adaptive` for the step and the two conventions.

    Attributes:
        beta2: decay of the mean of squares.
    """

    kind: Literal["adam"] = "adam"
    beta2: Decay = 0.99

    def second(self, v: Floats, square: Floats) -> Floats:
        """Return the exponential mean of squares."""
        return self.beta2 * v + (1.0 - self.beta2) * square

    def weight(self, steps: int) -> float:
        """Return 1 - beta2^steps."""
        return float(1.0 - self.beta2**steps)
