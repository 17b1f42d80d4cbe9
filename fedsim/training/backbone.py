"""The seam between the training loop and what computes gradients: K clients through one frozen model.

`stacked/batched.py` owns everything that is per client and cheap (optimisers, clipping, data order); a
`Backbone` owns the model and knows only factors, tokens and weights. Clients never mix: row i of
every result is a function of row i of every input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fedsim.adapters.adapter import Layout, Trains, Vector
from fedsim.jobs import Job
from fedsim.training.chats.sequences import Sequences

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fedsim.training.chats.batch import Batch
    from fedsim.training.feeds import Feed

Path = Literal["auto", "fused", "swapped", "sequential"]
Noise = Callable[[int, tuple[int, ...]], "Tensor"]
"""(index of the module, shape (k, rows, ...) of its input) -> factors 0 or 1/(1-p) to multiply it with.

A pure function of its arguments while a step lasts: it may be asked again for the same module.
"""


@dataclass(frozen=True)
class Stack:
    """The adapters of k clients, as a backbone sees them.

    Attributes:
        factors: float tensor (k, layout.size); row i is client i's vector in the layout's order.
            Slots above a client's rank are 0. Read only.
        scales: float tensor (k, modules): alpha / rank of client i in module m.
        trains: which factors need a gradient; the others' gradient is 0 and need not be computed.
        noise: LoRA dropout of the adapter's input, or None.
    """

    factors: Tensor
    scales: Tensor
    trains: Trains = "AB"
    noise: Noise | None = None


class Backbone(ABC):
    """A frozen model through which k clients are sent at once: of text, if a subclass says nothing else.

    Attributes:
        layout: of the factors.
        device: torch device of tokens and factors.
        dtype: torch dtype of the factors; the frozen weights may be narrower.
        prefix_layers: layers below the lowest adapter whose output can be given as `hidden`; 0 where it cannot.
    """

    layout: Layout
    device: torch.device
    dtype: torch.dtype
    prefix_layers: int = 0

    @abstractmethod
    def gradients(
        self, stack: Stack, tokens: Any, weights: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each client's loss and gradient; with L = sum_r weights[k, r] * mean_t nll[k, r, t].

        Of a `Batch` of chats L = sum_r weights[k, r] * sum_t nll[k, r, t] over the tokens that are learned.

        Args:
            stack: the clients' adapters.
            tokens: int64 (k, rows, T + 1); the first column is context, the others are predicted. Of
                other data what the `feed` gives.
            weights: (k, rows): 1 / rows of a client's real rows; 0 for rows that only fill the shape. Of chats
                1 / learned tokens of all of a client's rows.
            hidden: what the `prefix_layers` make of the tokens, (k, rows, T, width), or None.

        Returns:
            L (k,) in nats, without gradient, and dL/dfactors (k, layout.size). Both are the caller's to
            change, until the next call, which may use the same memory.
        """

    @abstractmethod
    def losses(self, stack: Stack, tokens: Any) -> Tensor:
        """Return the negative log likelihood [nats] of every predicted token, (k, rows, T), no gradient."""

    def graded(self, stack: Stack, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the negative log likelihood [nats] of every predicted token, and whether it is the likeliest, (k, rows, T)."""
        raise NotImplementedError(f"{type(self).__name__} grades no answers")

    @abstractmethod
    def rebase(self, base: Vector | None) -> None:
        """Make the adapted modules' frozen weights W0 + change (`Base.vector`), or W0 again (None).

        It stays so until the next call; asking for the array that is there costs nothing.
        """

    def at_depth(self, depth: int) -> Backbone:
        """Return this model with the adapters of its last `depth` layers only (`Layout.last`), and the same frozen weights.

        A `base` that it is given is one of the whole layout, with no change below those layers.
        """
        raise NotImplementedError(f"{type(self).__name__} has no part without the lower adapters")

    def feed(self, data: Sequence[Any], jobs: Sequence[Job]) -> Feed:
        """Return what cuts batches from the clients' examples."""
        from fedsim.training.feeds import Texts

        if isinstance(data[0], Sequences):
            from fedsim.training.chats.feed import Chats

            return Chats(data, self.device)
        return Texts(data, self.device)

    def length(self, examples: Any) -> int:
        """Return a number that is equal for clients whose examples go into one batch: columns of their windows."""
        if isinstance(examples, Sequences):
            return int(examples.packed)
        columns: int = examples.shape[1]
        return columns

    def frozen_prefix(self, tokens: Tensor) -> Tensor:
        """Return what the `prefix_layers` make of windows (n, T + 1): (n, T, width)."""
        raise NotImplementedError(f"{type(self).__name__} has no layers below its adapters")
