"""A small layout of every kind of layer, and dense products of its factors, without any code of the rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Adapter, Layout, Module, Tensor
from fedsim.aggregators._base import ServerModel

RANK, SCALE = 4, 2.0
LAYERS = Layout(
    modules=(
        Module("linear", RANK, (RANK, 5), (7, RANK), SCALE),
        Module("conv1d", RANK, (RANK, 6), (3, RANK), SCALE),
        Module("conv2d", RANK, (RANK, 2, 3, 2), (5, RANK, 1, 1), SCALE),
    )
)
"""A Linear and a Conv1D that are not square, and a Conv2d with a kernel of 3 x 2."""
WHOLE_MODEL = Layout(tensors=(Tensor("x", (3, 4)), Tensor("y", (5,))))
"""A model that is trained whole."""


def dense(vector: NDArray[Any], scale: float = SCALE, layout: Layout = LAYERS) -> NDArray[np.float64]:
    """Return the update of every weight, scale * B A, one module after the other, in float64."""
    arrays = {name: array.astype(np.float64) for name, array in layout.arrays(np.asarray(vector)).items()}
    products = []
    for m in layout.modules:
        a, b = arrays[f"{m.name}.lora_A"], arrays[f"{m.name}.lora_B"]
        indices = "orxy,rihw->oihw" if a.ndim == 4 else "or,ri->oi"
        products.append(scale * np.einsum(indices, b, a).ravel())
    return np.concatenate(products)


def slot_mask(
    first: int, stop: int | None = None, which: str = "AB", layout: Layout = LAYERS
) -> NDArray[np.bool_]:
    """Return which numbers of a vector lie in the slots from `first` to `stop`, by the shapes alone."""
    mask = np.zeros(layout.size, bool)
    arrays = layout.arrays(mask)
    for m in layout.modules:
        if "A" in which:
            arrays[f"{m.name}.lora_A"][first:stop] = True
        if "B" in which:
            arrays[f"{m.name}.lora_B"][:, first:stop] = True
    return mask


def some_model(seed: int = 0, *, b: bool = True, layout: Layout = LAYERS) -> ServerModel:
    """Return a model with random numbers, or with B = 0 as LoRA begins."""
    vector = np.random.default_rng([7, seed]).standard_normal(layout.size).astype(np.float32)
    if not b:
        vector[slot_mask(0, which="B", layout=layout)] = 0
    return ServerModel(Adapter(layout, vector))


def effect(model: ServerModel) -> NDArray[np.float64]:
    """Return the change of every weight against the pretrained model, in float64: base + scale B A."""
    layout = model.adapter.layout
    if not layout.modules:
        return model.adapter.vector.astype(np.float64)
    update = dense(model.adapter.vector, layout.modules[0].scale, layout)
    return update if model.base is None else model.base.vector.astype(np.float64) + update
