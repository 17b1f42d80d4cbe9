"""Random proportions, and whole numbers in proportion: what partitions draw."""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Floats, Ints


def dirichlet(alphas: Floats, rng: np.random.Generator) -> Floats:
    """Draw from a Dirichlet; for tiny alphas, where all gammas underflow, its limit: one class."""
    drawn: Floats = rng.standard_gamma(alphas)
    if drawn.sum() > 0:
        drawn /= drawn.sum()
        return drawn
    vertex = np.zeros(alphas.size)
    vertex[rng.choice(alphas.size, p=alphas / alphas.sum())] = 1.0
    return vertex


def take(mix: Floats, left: Ints, amount: int, rng: np.random.Generator) -> Ints:
    """Return how many blocks to take of each class: `amount` in all, never more than are left."""
    taken = np.zeros_like(left)
    while (need := amount - int(taken.sum())) > 0:
        wanted = np.where(left > taken, mix, 0.0)
        if wanted.sum() <= 0:
            wanted = (left - taken).astype(np.float64)
        exact = need * wanted / wanted.sum()
        draw = np.floor(exact).astype(np.int64)
        rest = need - int(draw.sum())  # fewer than there are classes: rounding, not sampling noise
        draw += rng.multinomial(rest, (exact - draw) / (exact - draw).sum()) if rest else 0
        taken = np.minimum(taken + draw, left)
    return taken


def apportion(weights: Floats, seats: int, most: Ints) -> Ints:
    """Return whole seats in proportion to weights (Webster's method), at least 1 and at most `most` each."""
    counts = np.ones(weights.size, dtype=np.int64)
    for _ in range(seats - weights.size):
        counts[np.argmax(np.where(counts < most, weights / (2 * counts + 1), -1.0))] += 1
    return counts
