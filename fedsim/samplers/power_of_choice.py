"""Power of choice: poll some, ask those with the largest losses (Cho et al., arXiv 2010.01243)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from fedsim.arrays import Floats
from fedsim.config.fields import Count
from fedsim.samplers._base import PollingSampler
from fedsim.samplers.seen import Counts, Seen


class PowerOfChoice(PollingSampler):
    """Draw d candidates with chances p_k, poll their losses F_k(w), and ask the m largest (algorithm 1).

    p_k is the share of client k in all examples of the clients that are idle and online; candidates are
    drawn without replacement. A request for n clients polls max(d, n) of them, or all if there are fewer.
    With d = n nobody is polled: the losses would change nothing.

    A poll is a visit of its own (outcome `polled`): the client downloads the model, goes forward once through its
    training data, and answers with one float32. It costs bytes, seconds and joules, and takes part in
    everything that may happen to a visit: who goes offline does not answer, who has too little memory says
    so. The server waits for all, then chooses among those who have answered and are still online; if nobody
    is, it polls anew. A client that is then asked has the model already and does not download it again,
    unless there is a newer version.

    The timeline of a run with it depends on the losses. As candidates are drawn in proportion to their examples, the
    paper averages those chosen with 1/m each (equation 2): `aggregator.weight: auto` is uniform with it.

    Attributes:
        candidates: d. Between n, which is sampling by share, and everybody: the more, the faster at first and the
            larger the bias towards clients of high loss (section 3).
    """

    chooses_by_size: ClassVar[bool] = True

    kind: Literal["power-of-choice"] = "power-of-choice"
    candidates: Count = 20

    def choose(self, idle: Counts, n: int, rng: np.random.Generator, seen: Seen) -> Counts:
        """Return the candidates: max(d, n) different clients of `idle`, fewer only if there are fewer."""
        size = min(max(self.candidates, n), len(idle))
        weight = seen.examples[idle].astype(np.float64)
        return rng.choice(idle, size=size, replace=False, p=weight / weight.sum())

    def keep(self, clients: Counts, losses: Floats, n: int) -> Counts:
        """Return the n clients of largest loss (fewer if there are fewer), of equal ones the first.

        Args:
            clients: those who have answered, in the order in which they were drawn (clients,).
            losses: mean loss of the model on each one's training data (clients,); one that is not a number
                comes last.
            n: how many are wanted.
        """
        return clients[np.argsort(-np.nan_to_num(losses, nan=-np.inf), kind="stable")[:n]]
