"""What a user writes for `task: {kind: torch}`: a model, its data and its loss, as a class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsim.component import Config

if TYPE_CHECKING:
    from torch import Tensor, nn

Examples: TypeAlias = object
"""A tensor or array (n, ...), a tuple or a dict of them with one n, or a list or map-style data set of samples."""
Labels: TypeAlias = "Sequence[int] | Tensor | NDArray[np.int64]"
"""Whole numbers (n,)."""


@dataclass(frozen=True, eq=False)
class Pool:
    """All training examples in one place: fedsim deals them to the clients, as `task.partition` says.

    Attributes:
        examples: a tensor or array (n, ...), a tuple or a dict of them, or a list or data set of n samples.
        labels: the class of each example (n,), for `dirichlet` and `pathological`; None: there are none.
        owners: whose each example is (n,), for `natural`; None: nobody's.
    """

    examples: Examples
    labels: Labels | None = None
    owners: Labels | None = None


class TorchTask(Config):
    """A model, its data and its loss; derive from it, and name the class in `task.module`.

    The fields of the class are its settings: `task.settings` gives their values. `model`, `loss` and one of `data` and
    `pool` must be defined; all else has a default. An instance never changes. Every process makes its own,
    and calls what it needs, so the same call must give the same again: whatever draws from torch's generator is seeded
    by fedsim, other sources of chance are the class's own affair.

    A batch is made like what `data` or `pool` returned, with the rows of the batch: a tensor, a tuple or a dict of
    tensors with one first axis; samples of a list or a data set are stacked as `torch.utils.data.default_collate` does.
    """

    @abstractmethod
    def model(self) -> nn.Module:
        """Return the model, newly built, with the weights that training starts from."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each example of a batch (n,), or their mean ().

        With one loss an example, clients can train in one batch; with a mean, they train one after the other.

        Args:
            model: what `model()` has built, with the weights of the moment.
            batch: some rows of a client's examples.
        """

    def data(self, client: int) -> Examples | None:
        """Return the examples of a client; None: they are dealt from the `pool`."""
        return None

    def pool(self) -> Pool | None:
        """Return all training examples, for fedsim to deal; None: each client has its own `data`."""
        return None

    def size(self, client: int) -> int | None:
        """Return how many examples `data(client)` will have; None: it is asked for them, client by client, before the start."""
        return None

    def held_out(self, client: int) -> Examples | None:
        """Return what a client keeps apart from its `data`; None: the share `task.holdout` of them."""
        return None

    def test(self) -> Examples | None:
        """Return examples that nobody trains on; None: one in ten of the pool, and no such split without a pool."""
        return None

    def metrics(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Return further metrics of a batch by name: one value an example (n,), or their mean (); no gradient is kept.

        The score is the mean over all examples. The loss is always one of the metrics, and the first.
        """
        return {}
