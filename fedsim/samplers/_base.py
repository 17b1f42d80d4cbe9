"""What a sampler is: a choice among clients that are idle and online."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from fedsim.arrays import Floats
from fedsim.component import Component
from fedsim.samplers.seen import Counts, Seen


class Sampler(Component):
    """What the server asks of a sampler. It keeps nothing between two calls: the past is in `seen`.

    Attributes:
        reads_values: whether a choice depends on losses: there is no timeline without training then.
        chooses_by_size: whether clients are chosen in proportion to their examples, so that each one chosen counts
            alike (`aggregator.weight: auto` is uniform then).
    """

    reads_values: ClassVar[bool] = False
    chooses_by_size: ClassVar[bool] = False

    @abstractmethod
    def choose(self, idle: Counts, n: int, rng: np.random.Generator, seen: Seen) -> Counts:
        """Return n different clients of `idle`.

        Args:
            idle: who may be asked, ascending, at least n.
            n: how many are wanted.
            rng: all chance, addressed by the number of the choice.
            seen: what the server knows now.
        """


class PollingSampler(Sampler):
    """A sampler whose `choose` returns candidates, n or more, and that decides when they have told their losses."""

    reads_values: ClassVar[bool] = True

    @abstractmethod
    def keep(self, clients: Counts, losses: Floats, n: int) -> Counts:
        """Return at most n of `clients` (in the order of the candidates), at least one if there is one.

        Args:
            clients: candidates that have answered (clients,).
            losses: mean loss on each one's training data (clients,).
            n: how many are wanted.
        """
