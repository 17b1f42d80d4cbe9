"""FedAsync: mix each arriving model into the server's (Xie et al., arXiv 1903.03934, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedsim.adapters.units import server_units
from fedsim.aggregators._base import Aggregator, Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import payload, start
from fedsim.aggregators._staleness import Polynomial, Staleness, discount


class Mixing(Aggregator):
    """x <- (1 - a_i) x + a_i end_i with a_i = alpha s(staleness_i), one client after the other.

    Made for `buffered` with `buffer: 1`; with several contributions they are mixed in the order
    of their clients, so the last one counts most. The proximal term of the paper is `local.prox_mu`.
    `alpha` itself is never changed (a published code multiplies it by s again and again until nothing moves).

    Not exact: on factors the mix of A and of B is not the mix of B A. It lacks
    a_i (1 - a_i) (B - B_i)(A - A_i).

    Unequal ranks, unequal depths: slots and layers that a client does not have stay as they are. Examples do not count.

    Up and down: r_k (in + out) floats a matrix.

    Under staleness: the model itself is mixed, not its move, so an old end pulls the server back towards
    the version it came from; that is what the discount is for.

    Attributes:
        alpha: share of a fresh update in the next model.
        staleness: how much a late update counts: `constant`, `polynomial`, `hinge` or `product`, each with its
            numbers.
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
    kind: Literal["mixing"] = "mixing"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.6
    staleness: Staleness = Polynomial(a=0.5)

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def offer(self, state: Any, model: ServerModel, invitation: Invitation) -> Offer:
        """Return the client's slots of the shared adapter, both ways."""
        slots = payload(model.adapter.layout, invitation)
        return Offer(start(model.adapter, invitation), slots, slots)

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the model after mixing."""
        layout = model.adapter.layout
        vector = model.adapter.vector.astype(np.float64)
        for c in contributions:
            share = self.alpha * discount(self.staleness, c, model)
            units = server_units(layout, c.scale)
            mixed = (1.0 - share) * vector + share * (c.end if units is None else c.end * units)
            whole = c.rank >= layout.rank and not layout.below(c.depth)
            vector = mixed if whole else np.where(layout.slots(c.rank, depth=c.depth), mixed, vector)
        return replace(model, adapter=model.adapter.replace(vector.astype(np.float32))), state
