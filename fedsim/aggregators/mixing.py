"""FedAsync: mix each arriving model into the server's (Xie et al., arXiv 1903.03934, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedsim.adapter import Vector
from fedsim.aggregators import Contribution, ServerModel
from fedsim.component import Component
from fedsim.staleness import Polynomial, Staleness


class Mixing(Component):
    """x <- (1 - a_i) x + a_i end_i with a_i = alpha s(staleness_i), one client after the other.

    Made for `buffered` with `buffer: 1`; with several contributions they are mixed in the order
    of their clients. The proximal term of the paper is `local.prox_mu`. On factors the mix of A
    and of B is not the mix of B A: it lacks a_i (1 - a_i) (B - B_i)(A - A_i).

    Upload and download: the whole adapter. Ranks must be equal.
    """

    one_pass: ClassVar[bool] = True
    kind: Literal["mixing"] = "mixing"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.6
    staleness: Staleness = Polynomial(a=0.5)

    def init(self, model: ServerModel) -> None:
        """Return the state: none (alpha itself is never changed)."""

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the model after mixing."""
        vector = model.adapter.vector.astype(np.float64)
        for c in contributions:
            share = self.alpha * self.staleness(c.staleness)
            vector = (1.0 - share) * vector + share * c.end
        adapter = model.adapter.replace(vector.astype(np.float32))
        return ServerModel(adapter, model.base_residual, model.base_version), state

    def download(self, model: ServerModel, client: int, last_seen: int | None) -> tuple[Vector, int]:
        """Return the shared adapter, whole."""
        return model.adapter.vector, model.adapter.layout.size

    def upload(self, model: ServerModel, client: int) -> int:
        """Return the size of the whole adapter."""
        return model.adapter.layout.size
