"""A moved base under a loaded model: the frozen weight of an adapted module is always W0 + change.

The change comes dense and in one orientation, (out, in kh kw) a module (`fedsim.adapters.moved_base`). It is added to W0
anew for every base, in at least float32, so a weight never depends on which bases came before. What lies
below the lowest adapter is no adapted module: hidden states kept from there hold for every base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.moved_base import split

if TYPE_CHECKING:
    from torch import Tensor


def weight_of(layer: Any, frozen: Tensor, change: Tensor) -> Tensor:
    """Return `frozen` + change, in the shape and dtype of `frozen`.

    Args:
        layer: whose weight it is: a Linear (out, in), a Conv2d (out, in, kh, kw), or GPT-2's Conv1D (in, out).
        frozen: its pretrained weight.
        change: (out, in kh kw), a tensor.
    """
    from transformers.pytorch_utils import Conv1D

    turned = change.t() if isinstance(layer, Conv1D) else change.reshape(frozen.shape)
    return added(frozen, turned)


def added(frozen: Tensor, change: Tensor) -> Tensor:
    """Return the sum, computed in the wider of the two types and at least in float32, in `frozen`'s."""
    import torch

    wide = torch.promote_types(frozen.dtype, torch.float32)
    return (frozen.to(wide) + change.to(frozen.device, wide)).to(frozen.dtype)


class Bases:
    """Which base a model has at the moment; moving to the one it has costs nothing.

    Attributes:
        moves: how often weights were really written.
    """

    def __init__(self, layout: Layout, write: Callable[[Sequence[Tensor] | None], None]) -> None:
        """Begin on the pretrained weights.

        Args:
            layout: whose modules a base changes.
            write: makes the model's weights W0 + change; gets the changes (out, in kh kw), one tensor a
                module in the layout's order, or None for W0 itself.
        """
        self._layout, self._write = layout, write
        self._now: Vector | None = None
        self.moves = 0

    def to(self, base: Vector | None) -> None:
        """Give the model this base (a `Base.vector`; None: the pretrained weights)."""
        import torch

        if base is self._now:
            return
        changes = None
        if base is not None:
            flat = np.array(base, dtype=np.float32)  # torch warns about read-only arrays
            changes = [torch.from_numpy(change) for _, change in split(self._layout, flat)]
        self._write(changes)
        self._now = base
        self.moves += 1


def of_part(
    whole: Layout, part: Layout, write: Callable[[Sequence[Tensor] | None], None]
) -> Callable[[Sequence[Tensor] | None], None]:
    """Return a `write` for the changes of a whole layout, of which `write` gets those of a part of its modules."""
    names = {m.name for m in part.modules}
    places = [i for i, m in enumerate(whole.modules) if m.name in names]

    def write_part(changes: Sequence[Tensor] | None) -> None:
        write(None if changes is None else [changes[i] for i in places])

    return write_part


class Layers:
    """Layers whose `weight` parameter is replaced; whoever shares the old memory keeps the old values."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """Remember the pretrained weights of the layout's modules, in its order."""
        self._layers = list(layers)
        self._frozen = [layer.weight.data for layer in self._layers]

    def write(self, changes: Sequence[Tensor] | None) -> None:
        """Set every weight to W0 + change, or back to W0."""
        for at, (layer, frozen) in enumerate(zip(self._layers, self._frozen, strict=True)):
            layer.weight.data = frozen if changes is None else weight_of(layer, frozen, changes[at])
