"""How much each contribution of a commit counts: examples, staleness, and what divides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from fedsim.aggregators._base import Aggregator, Contribution, ServerModel, Setting
from fedsim.aggregators._staleness import Polynomial, Staleness, discount
from fedsim.config.fields import Positive
from fedsim.errors import RunError, invalid, message

Normalize = Literal["auto", "weights", "K", "none"]
"""What divides a weighted sum; see `Weighting`."""
Weight = Literal["auto", "examples", "used", "uniform"]
"""What a client counts as; see `Weighting`."""


def divisor(normalize: Normalize, total: float, count: int, rule: str = "aggregator") -> float:
    """Return what a weighted sum is divided by.

    Args:
        normalize: see `Weighting`; `auto` where nothing has decided it is `weights`.
        total: sum of the raw weights.
        count: number of contributions.
        rule: who is named in the error.

    Raises:
        RunError: `normalize: weights`, and nothing has any weight.
    """
    if normalize in ("auto", "weights") and not total > 0:
        raise RunError(message(rule, "all weights are 0: staleness or examples leave nothing"))
    return {"auto": total, "weights": total, "K": float(count), "none": 1.0}[normalize]


def counted(weight: Weight, contribution: Contribution) -> float:
    """Return n_k as a rule is told to count it; `auto` where nothing has decided it is `examples`."""
    if weight == "uniform":
        return 1.0
    return contribution.used if weight == "used" else contribution.examples


class Weighting(Aggregator):
    """The fields that rules of weighted moves share: the model moves by sum_k w_k (what client k moved).

    With the discount s_k of an update's staleness, w_k is `server_lr` times

        weights:  s_k n_k / sum_j s_j n_j     (FedAvg when nobody is stale; McMahan et al., AISTATS 2017)
        K:        s_k / K                     (FedBuff; Nguyen et al., AISTATS 2022)
        none:     s_k

    `weight` says what n_k is: `examples`, the client's shard, however much of it a visit used (FedAvg's n_k, so
    that the objective is sum_k n_k F_k); `used`, the different examples that the visit's steps went through;
    `uniform`, 1. K and none look at no n_k.

    `auto` is decided once, before the run, and written down with it: `normalize` is K over the protocol `buffered`
    (unless `weight` asks for examples) and weights elsewhere; `weight` is uniform where the sampler has chosen in
    proportion to n_k already (power-of-choice averages with 1/m) or n_k is not looked at, else examples.

    Attributes:
        weight: what a client counts as.
        normalize: what divides the weighted sum.
        staleness: how much a late update counts: `constant`, `polynomial`, `hinge` or `product`, each with
            its numbers.
        server_lr: factor of the move.
    """

    weight: Weight = "auto"
    normalize: Normalize = "auto"
    staleness: Staleness = Polynomial(a=0.5)
    server_lr: Positive = 1.0

    @model_validator(mode="after")
    def _weight_is_looked_at(self) -> Self:
        if self.weight in ("examples", "used") and self.normalize in ("K", "none"):
            what = f"has `weight: {self.weight}` with `normalize: {self.normalize}`, which counts every update alike"
            raise invalid(what, fix="remove it, or set normalize: weights")
        return self

    def suited(self, setting: Setting) -> Aggregator:
        """Return the rule with `weight` and `normalize` decided."""
        weight, normalize = self.weight, self.normalize
        if normalize == "auto":
            normalize = "K" if setting.fedbuff and weight in ("auto", "uniform") else "weights"
        if weight == "auto":
            weight = "uniform" if setting.chosen_by_size or normalize != "weights" else "examples"
        return self.model_copy(update={"weight": weight, "normalize": normalize})

    def raw(self, contribution: Contribution, model: ServerModel) -> float:
        """Return s_k n_k, or s_k: the weight before it is divided."""
        s = discount(self.staleness, contribution, model)
        return s if self.normalize in ("K", "none") else s * counted(self.weight, contribution)

    def whole(self, total: float, count: int) -> float:
        """Return what `server_lr` times the weighted sum is divided by; see `divisor`."""
        return divisor(self.normalize, total, count, f"aggregator {self.kind}")

    def shares(self, contributions: Sequence[Contribution], model: ServerModel) -> list[float]:
        """Return w_k of every contribution, in their order."""
        raw = [self.raw(c, model) for c in contributions]
        whole = self.whole(sum(raw), len(raw))
        return [self.server_lr * weight / whole for weight in raw]
