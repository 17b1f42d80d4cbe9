"""FedYogi (Reddi et al., arXiv 2003.00295, algorithm 2; Yogi: Zaheer et al., NeurIPS 2018)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedsim.arrays import Floats
from fedsim.optimizers._base import Adaptive, Decay


class Yogi(Adaptive):
    """v <- v - (1 - beta2) D^2 sign(v - D^2); see `Adaptive` for the step and the two conventions.

    The change of v does not depend on how far v is from D^2, so v falls slowly after a burst. It is
    never negative: where v > D^2 it loses (1 - beta2) D^2 < v.

    Attributes:
        beta2: decay of the mean of squares.
    """

    kind: Literal["yogi"] = "yogi"
    beta2: Decay = 0.99

    def second(self, v: Floats, square: Floats) -> Floats:
        """Return v, moved towards the square by a share of the square."""
        return v - (1.0 - self.beta2) * square * np.sign(v - square)

    def weight(self, steps: int) -> float:
        """Return 1 - beta2^steps."""
        return float(1.0 - self.beta2**steps)
