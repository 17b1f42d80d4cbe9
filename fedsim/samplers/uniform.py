"""Uniform sampling without replacement."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.samplers._base import Sampler


class Uniform(Sampler):
    """Every client that is idle and online is as likely as any other."""

    kind: Literal["uniform"] = "uniform"

    def choose(
        self, idle: NDArray[np.int64], n: int, rng: np.random.Generator, seen: Any = None
    ) -> NDArray[np.int64]:
        """Return n different clients of `idle` (length >= n), in drawn order."""
        return idle[self.places(len(idle), n, rng)]

    def places(self, idle: int, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the places of n different clients among so many, in drawn order: nobody has to list them."""
        if n == 1:  # the same draw, without the rest
            return np.array([rng.integers(idle)], dtype=np.int64)
        return rng.choice(idle, size=n, replace=False)
