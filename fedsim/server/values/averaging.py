"""The moving average of the server's models: what is scored, drawn and kept, and never sent.

Samples of diffusion models are taken from an average of the weights over training steps (DDPM, arXiv
2006.11239, decay 0.9999 a step). Here a step is a commit and the average is the server's own: clients download and
upload the model itself, so it costs no byte.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Adapter
from fedsim.aggregators._base import ServerModel


class Average:
    """e_v = d_v e_{v-1} + (1 - d_v) x_v over versions v, with d_v = min(decay, v / (10 + v)).

    The rising decay forgets version 0. Factors are averaged as numbers: A and B each, as FedIT does. Rules under which
    that means nothing are refused with it (`fedsim.checks.combinations`).
    """

    def __init__(self, model: ServerModel, decay: float) -> None:
        """Start at version 0; a decay of 0 is the last model itself."""
        self.decay, self.model = decay, model
        self._sum: NDArray[np.float64] | None = model.adapter.vector.astype(np.float64) if decay else None

    def load(self, model: ServerModel, total: NDArray[np.float64] | None) -> None:
        """Go on from the model of a version and `total` as it was then."""
        self._sum = total
        self.model = model if total is None else self._averaged(model, total)

    @property
    def total(self) -> NDArray[np.float64] | None:
        """The average in full precision; None without one."""
        return self._sum

    def follow(self, model: ServerModel, version: int) -> None:
        """Take in the model of the next version."""
        if self._sum is None:
            self.model = model
            return
        decay = min(self.decay, version / (10 + version))
        self._sum *= decay
        self._sum += (1 - decay) * model.adapter.vector
        self.model = self._averaged(model, self._sum)

    def _averaged(self, model: ServerModel, total: NDArray[np.float64]) -> ServerModel:
        return replace(model, adapter=Adapter(model.adapter.layout, total.astype(np.float32)))
