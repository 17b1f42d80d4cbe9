"""FedIT: average the factors A and B, each by itself (Zhang et al., arXiv 2305.05644).

Also FedAvg of whole models (`lora: {full: true}`; McMahan et al., AISTATS 2017) and, over the
`buffered` protocol (where `normalize: auto` is K), FedBuff (Nguyen et al., AISTATS 2022, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import Averaging, payload, start


class FedIT(Averaging):
    """Add the weighted mean of the clients' moves, each taken from the client's own snapshot.

    With D_i = end_i - start_i, n_i examples (see `Weighting`) and s_i = s(staleness_i), the model moves by
    `server_lr` times

        weights:  sum_i s_i n_i D_i / sum_i s_i n_i     (FedAvg when nobody is stale)
        K:        sum_i s_i D_i / K                     (FedBuff)
        none:     sum_i s_i D_i

    Not exact: it is not the average of the updates. The mean of B times the mean of A differs from
    the mean of B A by sum_i p_i (B_i - mean B)(A_i - mean A), which is zero only when the
    clients agree in one factor. So `server_lr` is a step of the factors and not of the product: eta times the
    moves of A and B is eta times what is linear in them in the product, and eta^2 times dB dA.

    Unequal ranks: `padding: zeros` (the zero-padding baseline of FLoRA, arXiv
    2409.05976): slot j is multiplied by the share of weight of those who have it; `rows`: divided by
    it again (RBLA, arXiv 2408.08699); `moves`: a client without a slot leaves it.

    Unequal depths: a layer's mean is over those that trained it (LEGEND, arXiv 2412.20004), whatever the padding.

    Up and down: r_k (in + out) floats a matrix.

    Under staleness: a move of A and of B from version v, added to version t, changes the product by more
    than was meant: by dB (A_t - A_v) + (B_t - B_v) dA. The discount shrinks it, nothing removes it.
    """

    traits: ClassVar[Traits] = Traits(
        exact=False,
        unequal_ranks=True,
        unequal_depths=True,
        full_model=True,
        history=False,
        beside=True,
        unequal_modules=True,
    )
    one_pass: ClassVar[bool] = True
    kind: Literal["fedit"] = "fedit"

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def offer(self, state: Any, model: ServerModel, invitation: Invitation) -> Offer:
        """Return the client's slots of the shared adapter, both ways."""
        slots = payload(model.adapter.layout, invitation)
        return Offer(start(model.adapter, invitation), slots, slots)

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the model after one server step.

        Raises:
            RunError: `normalize: weights`, and all weights are 0.
        """
        mean = self.mean_of(model)
        for c in contributions:
            self.take(mean, model, c)
        return self.moved(model, mean), state
