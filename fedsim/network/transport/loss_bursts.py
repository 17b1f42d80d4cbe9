"""Losses that come in bursts: a chain of two states, calm and lossy (Gilbert 1960; Elliott 1963), one step a second.

In each state a connection holds what the formula of Padhye and others leaves of it at that state's loss
(`fedsim.network.tcp.loss_limit`). That is right for spells of many round trips; a spell is a second at least. What a spell
of a few packets does is in the formula already: within a round trip it takes losses after the first for one event.
Over a long transfer the mean of the rate is the mean over the states (Hasslinger and Hohlfeld, MMB 2008, have the
model's statistics over time). Both directions of a client see the same spells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fedsim.arrays import Floats, Ints
from fedsim.network.generated import BLOCK_S
from fedsim.network.tcp import loss_limit
from fedsim.network.transport.two_states import Chances, second_state
from fedsim.rng import stream


class Bursts(NamedTuple):
    """Spells of loss on every client's way.

    Attributes:
        loss: share of packets lost in one.
        chances: that one begins, and ends, in a second.
        seed: address of the randomness.
    """

    loss: float
    chances: Chances
    seed: int

    def limit(self, client: int, loss: float, rtt_s: float) -> BurstyLimit:
        """Return what a connection of a client can hold, at this loss between spells and this round trip."""
        calm, lossy = loss_limit(loss, rtt_s), loss_limit(self.loss, rtt_s)
        return BurstyLimit(calm, lossy, self.chances, self.seed, client)


@dataclass(frozen=True)
class BurstyLimit:
    """The most that a connection of one client can hold, over time.

    Attributes:
        calm, lossy: between spells and in one [bytes/s]; `calm` may be infinite.
        chances: that a spell begins, and ends, in a second.
        seed, client: address of the randomness.
    """

    calm: float
    lossy: float
    chances: Chances
    seed: int
    client: int

    def rate(self, t_s: float) -> float:
        """Return the bytes per second from `t_s` on."""
        return self.lossy if self.in_spell(t_s) else self.calm

    def in_spell(self, t_s: float) -> bool:
        """Tell whether the second that holds `t_s` is in a spell."""
        block, second = divmod(math.floor(t_s), BLOCK_S)
        turns, first = _turns(self.chances, self.seed, self.client, block)
        return bool(first) ^ bool(np.searchsorted(turns, second, side="right") % 2)

    def next_change(self, t_s: float) -> float:
        """Return when a spell begins or ends next, or the end of its block of seconds if that is before."""
        block, second = divmod(math.floor(t_s), BLOCK_S)
        turns, _ = _turns(self.chances, self.seed, self.client, block)
        k = int(np.searchsorted(turns, second, side="right"))
        return float(block * BLOCK_S + (int(turns[k]) if k < len(turns) else BLOCK_S))


@lru_cache(maxsize=1024)
def _turns(at: Chances, seed: int, client: int, block: int) -> tuple[Ints, bool]:
    """Return the seconds of a block at which the state changes, and whether it begins in a spell."""
    lossy = second_state(at, lambda b: _draws(seed, client, b), block)
    return np.flatnonzero(lossy[1:] != lossy[:-1]) + 1, bool(lossy[0])


@lru_cache(maxsize=256)
def _draws(seed: int, client: int, block: int) -> Floats:
    return stream(seed, "loss-bursts", client, block).random(BLOCK_S)
