"""Who lives or works beside whom: groups of random size, drawn by address.

The clients of one kind of access form groups in the order of their numbers. A group has 1 + a Poisson number of
clients, a law that fits sizes of households (Jarosz, Population Research and Policy Review 40, 2021). Whose group a client
is in does not depend on how large the population is.
"""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.devices.availability import BLOCK
from fedsim.elementary import exp
from fedsim.rng import stream

ALONE = -1
"""The group of a client that is in none."""
SURE = 1 - 1e-15


def grouped(
    kind: Ints, names: Names, who: Bools, mean: float, seed: int, purpose: str
) -> tuple[Ints, list[tuple[int, int]]]:
    """Return each client's group, (n,), `ALONE` for those not in `who`, and the groups: kind, number within the kind.

    Args:
        kind: (n,) only clients of one kind share a group.
        names: of the kinds, which are part of the address.
        who: (n,) who is in one at all.
        mean: clients of a group on average, at least 1.
        seed: address of the randomness.
        purpose: part of that address.
    """
    group, groups = np.full(len(kind), ALONE, dtype=np.int64), list[tuple[int, int]]()
    for k in np.unique(kind[who]).tolist():
        members = np.flatnonzero(who & (kind == k))
        ends = _ends(len(members), mean, seed, purpose, str(names[k]))
        place = np.searchsorted(ends, np.arange(len(members)), side="right")
        group[members] = len(groups) + place
        groups += [(k, number) for number in range(int(place[-1]) + 1)]
    return group, groups


def _ends(members: int, mean: float, seed: int, purpose: str, kind: str) -> Ints:
    """Return the number of members up to the end of each group, enough groups for all of them."""
    law = poisson(mean - 1)
    sizes, total, block = list[Ints](), 0, 0
    while total < members:
        u = stream(seed, purpose, kind, block).random(BLOCK)
        sizes.append(1 + np.searchsorted(law, u, side="right"))
        total, block = total + int(sizes[-1].sum()), block + 1
    return np.cumsum(np.concatenate(sizes))


def poisson(mean: float) -> Floats:
    """Return P(N <= k) of a Poisson number for k = 0, 1, .. until it is sure; the same bits on every processor.

    >>> [round(float(p), 4) for p in poisson(1.0)[:3]]
    [0.3679, 0.7358, 0.9197]
    """
    chance = float(exp(np.array([-mean]))[0])
    below, k = [chance], 0
    while below[-1] < SURE and k < 10 * (mean + 10):
        k += 1
        chance *= mean / k
        below.append(below[-1] + chance)
    return np.array(below)
