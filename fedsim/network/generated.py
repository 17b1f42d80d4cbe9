"""Rates that are generated: a lognormal AR(1) of one-second steps around a link's mean, with outages.

Every block of seconds has its own address, so the rate at any time is had without those before it. The two
processes forget: the AR(1) by its own decay over the block before (phi^2048 of a standard deviation is left out: 1e-9 at
phi = 0.99, 2e-3 where a link varies five times its mean and remembers 0.99), the outages at each second that is decisive whatever the state before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedsim.arrays import Bools, Floats
from fedsim.elementary import exp
from fedsim.network.base import DIRECTIONS, Direction
from fedsim.network.transport.two_states import Chances, second_state
from fedsim.rng import stream

BLOCK_S = 2048
"""Seconds that share one address of randomness; part of every generated rate, so it must not change."""


@dataclass(frozen=True)
class RateLaw:
    """How a link's rate varies around its mean; the figures are columns of a network table.

    Attributes:
        within_cv: standard deviation over mean of the rate, while there is no outage.
        autocorrelation_1s: of the rate, between one second and the next, while there is no outage.
        outage_share: share of the time at rate 0.
        outage_mean_s: mean length of an outage; lengths are geometric, in whole seconds.
    """

    within_cv: float
    autocorrelation_1s: float
    outage_share: float
    outage_mean_s: float

    def __post_init__(self) -> None:
        """Check the figures.

        Raises:
            ValueError: out of range; an outage and the time between two must both last a second or more.
        """
        within = 0 <= self.within_cv <= 5 and 0 <= self.autocorrelation_1s <= 0.99
        if not (within and 0 <= self.outage_share <= 0.9 and 1 <= self.outage_mean_s < math.inf):
            raise ValueError(f"{self} is out of range")
        if self.ends + self.begins > 1 + 1e-12:
            raise ValueError(f"outage_mean_s must be at least 1 / (1 - outage_share) (got {self})")

    @property
    def sigma_ln(self) -> float:
        """Standard deviation of the logarithm: sqrt(ln(1 + cv^2))."""
        return math.sqrt(math.log1p(self.within_cv**2))

    @property
    def phi(self) -> float:
        """Autocorrelation of the logarithm at 1 s: ln(1 + r cv^2) / ln(1 + cv^2), exact for a lognormal."""
        square = self.within_cv**2
        return math.log1p(self.autocorrelation_1s * square) / math.log1p(square) if square else 0.0

    @property
    def ends(self) -> float:
        """Chance that an outage ends with this second."""
        return 1 / self.outage_mean_s

    @property
    def begins(self) -> float:
        """Chance that one begins after a second without."""
        return self.outage_share / (self.outage_mean_s * (1 - self.outage_share))


@dataclass(frozen=True)
class LognormalAR1:
    """The rate of one client's link in one direction: `mean x factor`, a new factor each second.

    The factor is exp(sigma X - sigma^2 / 2) / (1 - outage_share), X a standard normal AR(1), and 0 in an
    outage: the mean over all time is the link's. Outages are common to both directions of a client; X is
    not, since nothing measured says how the two move together.

    Attributes:
        mean_bytes_per_s: of the link, outages included.
        law: how it varies.
        seed, client: address of the randomness.
        direction: `down` or `up`.
    """

    mean_bytes_per_s: float
    law: RateLaw
    seed: int
    client: int
    direction: Direction

    def rate(self, t_s: float) -> float:
        """Return the bytes per second in the second that holds `t_s`."""
        block, second = divmod(math.floor(t_s), BLOCK_S)
        factors = _factors(self.law, self.seed, self.client, self.direction, block)
        return self.mean_bytes_per_s * float(factors[second])

    def next_change(self, t_s: float) -> float:
        """Return the end of the second that holds `t_s`."""
        return math.floor(t_s) + 1.0


@lru_cache(maxsize=1024)
def _factors(law: RateLaw, seed: int, client: int, direction: Direction, block: int) -> Floats:
    """Return the factors of a block's seconds, (BLOCK_S,)."""
    row = DIRECTIONS.index(direction)
    noise = np.concatenate([_draws(seed, client, b)[0][row] for b in (block - 1, block)])
    x = _ar1(noise * math.sqrt(1 - law.phi**2), law.phi)[BLOCK_S:]
    factors = exp(law.sigma_ln * x - law.sigma_ln**2 / 2) / (1 - law.outage_share)
    if law.outage_share:
        factors[_out(law, seed, client, block)] = 0.0
    return factors


@lru_cache(maxsize=256)
def _draws(seed: int, client: int, block: int) -> tuple[Floats, Floats]:
    """Return normals (2, BLOCK_S) for down and up, and uniforms (BLOCK_S,) for outages."""
    rng = stream(seed, "rate", client, block)
    return rng.standard_normal((2, BLOCK_S)), rng.random(BLOCK_S)


def _ar1(noise: Floats, phi: float) -> Floats:
    """Return x with x[k] = phi x[k - 1] + noise[k], by doubling: log2(n) passes instead of n steps."""
    x, reach = noise.copy(), 1
    while reach < len(x) and phi**reach > 0:
        x[reach:] = x[reach:] + phi**reach * x[:-reach]
        reach *= 2
    return x


def _out(law: RateLaw, seed: int, client: int, block: int) -> Bools:
    """Return which seconds of a block are in an outage, (BLOCK_S,)."""
    return second_state(Chances(law.begins, law.ends), lambda b: _draws(seed, client, b)[1], block)
