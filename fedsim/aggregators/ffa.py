"""FFA-LoRA: A is frozen where it began, clients train and share B (Sun et al., arXiv 2403.12313)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Literal

from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import SEED_FLOATS, Averaging, factor, payload, refuse_moved, shared, start


class FFA(Averaging):
    """B <- B + server_lr sum_i p_i (B_i - B at its dispatch); A = A_0 for ever, to the bit.

    Source: arXiv 2403.12313, section 4. Exact: sum_i p_i B_i A_0 = (sum_i p_i B_i) A_0, so with
    `server_lr: 1` and `normalize: weights` the model's product is the mean of the clients' products.

    Unequal ranks (nested): a client of rank r_k has the first r_k rows of A_0. Padding its B with zeros
    is exact too (`padding: zeros`); `rows` and `moves` are not, but do not pull the last slots to 0.

    Up: B, r_k out floats a matrix. Down: the same, at every visit; at the first one a 64-bit seed (8 bytes)
    beside it, from which the client draws A_0 (`first_a: values` sends A_0 itself instead, r_k in
    float32 a matrix, whatever the wire format: an A that is rounded is another A).

    Under staleness: moves of B add up linearly in the product, (B + dB) A_0 = B A_0 + dB A_0, whichever
    version they come from. Staleness costs nothing here but the age of the gradient.

    Attributes:
        first_a: how the first A comes down: as a `seed` of 8 bytes, or as `values`.
    """

    traits: ClassVar[Traits] = Traits(
        exact=True,
        unequal_ranks=True,
        unequal_depths=True,
        history=False,
        beside=True,
        unequal_modules=True,
        draws_a=True,
    )
    one_pass: ClassVar[bool] = True
    kind: Literal["ffa"] = "ffa"
    first_a: Literal["seed", "values"] = "seed"

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def offer(self, state: Any, model: ServerModel, invitation: Invitation) -> Offer:
        """Return both factors to start from; B alone travels once A is there."""
        layout = model.adapter.layout
        up = payload(layout, invitation, shared(layout, "B"))
        a = (
            SEED_FLOATS
            if self.first_a == "seed"
            else payload(layout, invitation, factor(layout, "A")).floats(layout)
        )
        down = replace(up, extra_floats=a) if invitation.last_seen is None else up
        return Offer(start(model.adapter, invitation), down, up, trains="B")

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the model with the next B.

        Raises:
            RunError: a client moved A, so its B is trained against another one.
        """
        mean = self.mean_of(model)
        for c in contributions:
            refuse_moved(c, model.adapter.layout, "A")
            self.take(mean, model, c, "B")
        return self.moved(model, mean), state
