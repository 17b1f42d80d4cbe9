"""FedAdagrad (Reddi et al., arXiv 2003.00295, algorithm 2)."""

from __future__ import annotations

from typing import Literal

from fedsim.arrays import Floats
from fedsim.optimizers._base import Adaptive, Decay


class Adagrad(Adaptive):
    """v <- v + D^2; see `Adaptive` for the step and the two conventions.

    A sum has no bias: `corrected` starts v at 0 and corrects m alone. Steps only get shorter.
    """

    kind: Literal["adagrad"] = "adagrad"
    beta1: Decay = 0.0

    def second(self, v: Floats, square: Floats) -> Floats:
        """Return the sum of squares."""
        return v + square
