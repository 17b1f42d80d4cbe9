"""Which adapter of a layout sits on which frozen matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.training.fused.lora import Matrix, Part


class Adapters:
    """A layout's modules by name, handed out to the matrices that carry them."""

    def __init__(self, layout: Layout) -> None:
        """Index the layout."""
        self._modules = {m.name: (i, m) for i, m in enumerate(layout.modules)}
        self._slices = layout.slices

    def matrix(self, layer: int, pieces: Sequence[tuple[str, Any]]) -> Matrix:
        """Return one matrix of the pieces (module's name, weight (in, out)) that read the same input."""
        parts: list[Part] = []
        column = rank = 0
        for name, weight in pieces:
            width = weight.shape[1]
            if name in self._modules:
                index, module = self._modules[name]
                a, b = (self._slices[f"{name}.lora_{factor}"][0] for factor in "AB")
                columns, rows = slice(column, column + width), slice(rank, rank + module.rank)
                parts.append(Part(index, module.rank, a, b, columns, rows))
                rank += module.rank
            column += width
        whole = pieces[0][1] if len(pieces) == 1 else torch.cat([w.t() for _, w in pieces]).t()
        return Matrix(pieces[0][0].split(".", 3)[-1], layer, whole, tuple(parts))


def fits(layout: Layout, matrices: dict[str, tuple[int, int]]) -> bool:
    """Tell whether all that is trained are factors of the matrices (name -> (in, out)), of their shapes."""
    if layout.full or layout.beside or not layout.modules or not matrices:
        return False
    return all(
        m.name in matrices
        and m.a_shape == (m.rank, matrices[m.name][0])
        and m.b_shape == (matrices[m.name][1], m.rank)
        for m in layout.modules
    )


def tensors_of(model: Any) -> dict[str, Tensor]:
    """Return a model's parameters by name, tied ones by each of their names; the memory is the model's."""
    return {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}
