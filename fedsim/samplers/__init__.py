"""Whom to ask: samplers choose among clients that are idle and online.

A sampler is one file with one component. This is a whole one, and `sampler: {kind: my_samplers:Rarest}`
picks it from a module of your own:

    class Rarest(Component):
        '''Ask those who were asked least.'''

        kind: Literal["my_samplers:Rarest"] = "my_samplers:Rarest"

        def choose(self, idle, n, rng, seen):
            shuffled = rng.permutation(idle)
            return shuffled[np.argsort(seen.asked[shuffled], kind="stable")[:n]]
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fedsim.samplers.seen import Counts, Floats, Seen


class Sampler(Protocol):
    """What the server asks of a sampler. It keeps nothing between two calls: the past is in `seen`.

    One whose choice depends on losses says so with a class variable `reads_values = True`: there is then no
    timeline without training.
    """

    def choose(self, idle: Counts, n: int, rng: np.random.Generator, seen: Seen) -> Counts:
        """Return n different clients of `idle`.

        Args:
            idle: who may be asked, ascending, at least n.
            n: how many are wanted.
            rng: all chance, addressed by the number of the choice.
            seen: what the server knows now.
        """
        ...


class Polling(Sampler, Protocol):
    """A sampler whose `choose` returns candidates, n or more, and that decides when they have told their losses."""

    def keep(self, clients: Counts, losses: Floats, n: int) -> Counts:
        """Return at most n of `clients` (in the order of the candidates), at least one if there is one.

        Args:
            clients: candidates that have answered (clients,).
            losses: mean loss on each one's training data (clients,).
            n: how many are wanted.
        """
        ...
