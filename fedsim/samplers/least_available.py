"""REFL's selection: first those who will soon be gone (Abdelmoniem et al., EuroSys 2023, arXiv 2111.01108)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedsim.config.fields import NonNegative
from fedsim.samplers._base import Sampler
from fedsim.samplers.seen import Counts, Seen


class LeastAvailable(Sampler):
    """Ask the clients that will be there for the shortest time, ties in random order.

    In REFL each client predicts how likely it is to be available later, and the server asks the least
    likely ones, so that rarely seen data come in while they can (section 4.1, "intelligent participant
    selection"). Here a client that is online tells the server until when it will be; it knows, because its
    windows are given (`population.availability`), so this is REFL with a perfect forecast of one window, an
    upper bound of what a learned one can do. Clients that are always there are chosen uniformly.

    A client that leaves before its update has landed brings nothing. `at_least_s` puts those that leave
    sooner than that behind the others, the ones that stay longest first: they are asked only if
    there is nobody else. REFL relies on late updates instead (its second half, stale aggregation), so 0 is
    the default: the plain order.

    Attributes:
        at_least_s: time that a visit will need, as far as the server can tell [s].
    """

    kind: Literal["least-available"] = "least-available"
    at_least_s: NonNegative = 0.0

    def choose(self, idle: Counts, n: int, rng: np.random.Generator, seen: Seen) -> Counts:
        """Return n different clients of `idle` (length >= n), the least available first."""
        shuffled = rng.permutation(idle)
        left_s = seen.remaining_s(shuffled)
        short = left_s < self.at_least_s
        return shuffled[np.lexsort((np.where(short, -left_s, left_s), short))[:n]]
