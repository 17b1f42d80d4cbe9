"""Clients that make unequal numbers of steps: FedNova's normalisation (Wang et al., NeurIPS 2020, arXiv 2007.07481).

Averaging the moves D_k of clients that made tau_k steps each minimises another objective than sum_k p_k F_k: a client
counts in proportion to tau_k. FedNova divides each move by how far its steps carry, and gives all the mean distance:

    x <- x + tau_eff sum_k p_k D_k / |a_k|_1,      tau_eff = sum_k p_k |a_k|_1

a_k holds how much each gradient of a visit counts in its move: 1 a step for SGD, so |a_k|_1 = tau_k; with momentum,
a proximal term or a schedule, what those make of it (section 4 there).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from fedsim.config.learning import LocalConfig

UnequalSteps = Literal["ignore", "fednova"]


@lru_cache(maxsize=4096)
def effective_steps(local: LocalConfig, steps: int, whole: int) -> float:
    """Return |a_k|_1 of a visit: how far its steps carry a gradient that does not change, in steps of `local.lr`.

    SGD: `steps`; with momentum rho (steps - rho (1 - rho^steps) / (1 - rho)) / (1 - rho); with a proximal term
    (1 - (1 - lr mu)^steps) / (lr mu), both as in the paper's table of a_k. A schedule weighs the steps. AdamW divides
    gradients by their size, so that only steps, as its schedule weighs them, count.

    Args:
        local: the visit's training.
        steps: that were made.
        whole: steps of a whole visit, over which the schedule stretches.

    >>> effective_steps(LocalConfig(optimizer="sgd", steps=4), 3, 4)
    3.0
    """
    shares = [local.lr_share(step, whole) for step in range(steps)]
    if local.optimizer != "sgd":
        return float(sum(shares))
    distance = velocity = 0.0
    for share in shares:
        velocity = local.momentum * velocity + 1.0 - local.lr * local.prox_mu * distance
        distance += share * velocity
    return distance
