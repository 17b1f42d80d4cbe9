"""FedIT: average the factors A and B, each by itself (Zhang et al., arXiv 2305.05644).

Also FedAvg of whole models (`lora: {full: true}`; McMahan et al., AISTATS 2017) and, over the
`buffered` protocol with `normalize: K`, FedBuff (Nguyen et al., AISTATS 2022, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedsim.adapter import Vector
from fedsim.aggregators import Contribution, ServerModel
from fedsim.component import Component
from fedsim.errors import RunError, message
from fedsim.staleness import Polynomial, Staleness
from fedsim.sums import WeightedSum


class FedIT(Component):
    """Add the weighted mean of the clients' moves, each taken from the client's own snapshot.

    With D_i = end_i - start_i, n_i examples and s_i = s(staleness_i), the model moves by
    `server_lr` times

        weights:  sum_i s_i n_i D_i / sum_i s_i n_i     (FedAvg when nobody is stale)
        K:        sum_i s_i D_i / K                     (FedBuff)
        none:     sum_i s_i D_i

    What it is not: the average of the updates. The mean of B times the mean of A differs from
    the mean of B A by sum_i p_i (B_i - mean B)(A_i - mean A), which is zero only when the
    clients agree in one factor.

    Upload and download: r (in + out) floats per matrix. Ranks must be equal.
    """

    one_pass: ClassVar[bool] = True
    kind: Literal["fedit"] = "fedit"
    normalize: Literal["weights", "K", "none"] = "weights"
    staleness: Staleness = Polynomial(a=0.5)
    server_lr: Annotated[float, Field(gt=0)] = 1.0

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the model after one server step."""
        moves, total, count = WeightedSum(model.adapter.layout.size), 0.0, 0
        for c in contributions:
            weight = self.staleness(c.staleness)
            if self.normalize == "weights":
                weight *= c.weight
            moves.add(weight, c.end, c.start)
            total += weight
            count += 1
        if self.normalize == "weights" and not total > 0:
            text = message("aggregator fedit", "all weights are 0: staleness or examples leave nothing")
            raise RunError(text)
        whole = {"weights": total, "K": float(count), "none": 1.0}[self.normalize]
        step = moves.value() / whole
        vector = (model.adapter.vector + self.server_lr * step).astype(np.float32)
        return ServerModel(model.adapter.replace(vector), model.base_residual, model.base_version), state

    def download(self, model: ServerModel, client: int, last_seen: int | None) -> tuple[Vector, int]:
        """Return the shared adapter, whole."""
        return model.adapter.vector, model.adapter.layout.size

    def upload(self, model: ServerModel, client: int) -> int:
        """Return the size of the whole adapter."""
        return model.adapter.layout.size
