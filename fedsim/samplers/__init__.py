"""Whom to ask, of the clients that are idle and online; uses how long devices will be online.

A sampler is one file with one component. This is a whole one, and `sampler: {kind: my_samplers:Rarest}`
picks it from a module of your own:

    class Rarest(Sampler):
        '''Ask those who were asked least.'''

        def choose(self, idle, n, rng, seen):
            shuffled = rng.permutation(idle)
            return shuffled[np.argsort(seen.asked[shuffled], kind="stable")[:n]]
"""

from __future__ import annotations

from fedsim.arrays import Floats
from fedsim.samplers._base import PollingSampler, Sampler
from fedsim.samplers.seen import Counts, Seen

SEAMS = (PollingSampler, Sampler)

__all__ = ["Counts", "Floats", "PollingSampler", "Sampler", "Seen"]
