"""How much each contribution of a commit counts: examples, staleness, and what divides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from fedsim.aggregators._base import Aggregator, Contribution, ServerModel
from fedsim.aggregators._staleness import Polynomial, Staleness, discount
from fedsim.errors import RunError, message

Normalize = Literal["weights", "K", "none"]
"""What divides a weighted sum; see `Weighting`."""


def divisor(normalize: Normalize, total: float, count: int, rule: str = "aggregator") -> float:
    """Return what a weighted sum is divided by.

    Args:
        normalize: see `Weighting`.
        total: sum of the raw weights.
        count: number of contributions.
        rule: who is named in the error.

    Raises:
        RunError: `normalize: weights`, and nothing has any weight.
    """
    if normalize == "weights" and not total > 0:
        raise RunError(message(rule, "all weights are 0: staleness or examples leave nothing"))
    return {"weights": total, "K": float(count), "none": 1.0}[normalize]


class Weighting(Aggregator):
    """The fields that rules of weighted moves share: the model moves by sum_k w_k (what client k moved).

    With n_k examples and the discount s_k of an update's staleness, w_k is `server_lr` times

        weights:  s_k n_k / sum_j s_j n_j     (FedAvg when nobody is stale)
        K:        s_k / K                     (FedBuff; Nguyen et al., AISTATS 2022)
        none:     s_k
    """

    normalize: Normalize = "weights"
    staleness: Staleness = Polynomial(a=0.5)
    server_lr: Annotated[float, Field(gt=0)] = 1.0

    def raw(self, contribution: Contribution, model: ServerModel) -> float:
        """Return s_k n_k, or s_k: the weight before it is divided."""
        s = discount(self.staleness, contribution, model)
        return s * contribution.examples if self.normalize == "weights" else s

    def whole(self, total: float, count: int) -> float:
        """Return what `server_lr` times the weighted sum is divided by; see `divisor`."""
        return divisor(self.normalize, total, count, f"aggregator {self.kind}")

    def shares(self, contributions: Sequence[Contribution], model: ServerModel) -> list[float]:
        """Return w_k of every contribution, in their order."""
        raw = [self.raw(c, model) for c in contributions]
        whole = self.whole(sum(raw), len(raw))
        return [self.server_lr * weight / whole for weight in raw]
