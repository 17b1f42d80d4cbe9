"""The seam between the training loop and what computes gradients: K clients through one frozen model.

`batched.py` owns everything that is per client and cheap (optimisers, clipping, data order); a
`Backbone` owns the model and knows only factors, tokens and weights. Clients never mix: row i of
every result is a function of row i of every input.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.payload import Trains

Path = Literal["auto", "fused", "swapped", "sequential"]
Noise = Callable[[int, tuple[int, ...]], Any]
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

    factors: Any
    scales: Any
    trains: Trains = "AB"
    noise: Noise | None = None


class Backbone(Hashable, Protocol):
    """A frozen causal language model through which k clients are sent at once."""

    layout: Layout
    device: Any
    """torch device of tokens and factors."""
    dtype: Any
    """torch dtype of the factors; the frozen weights may be narrower."""
    prefix_layers: int
    """Layers below the lowest adapter whose output can be given as `hidden`; 0 where it cannot."""

    def gradients(
        self, stack: Stack, tokens: Any, weights: Any, hidden: Any | None = None
    ) -> tuple[Any, Any]:
        """Return each client's loss and gradient; with L = sum_r weights[k, r] * mean_t nll[k, r, t].

        Args:
            stack: the clients' adapters.
            tokens: int64 (k, rows, T + 1); the first column is context, the others are predicted.
            weights: (k, rows): 1 / rows of a client's real rows; 0 for rows that only fill the shape.
            hidden: what the `prefix_layers` make of the tokens, (k, rows, T, width), or None.

        Returns:
            L (k,) in nats, without gradient, and dL/dfactors (k, layout.size). Both are the caller's to
            change, until the next call, which may use the same memory.
        """
        ...

    def losses(self, stack: Stack, tokens: Any) -> Any:
        """Return the negative log likelihood [nats] of every predicted token, (k, rows, T), no gradient."""
        ...

    def rebase(self, base: Vector | None) -> None:
        """Make the adapted modules' frozen weights W0 + change (`Base.vector`), or W0 again (None).

        It stays so until the next call; asking for the array that is there costs nothing.
        """
        ...
