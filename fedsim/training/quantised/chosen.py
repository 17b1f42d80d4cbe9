"""Which layers' weights are quantised, by the names of `task.quantise.modules`; no weights are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fedsim.adapters.adapter import Layout
from fedsim.cost.quantised import NOT_HELD, Held, Quantise
from fedsim.cost.shape import ModelShape
from fedsim.errors import DataError, ExperimentError, message, nearest
from fedsim.training.direct.architecture import Matrix

WHERE = "task.quantise.modules"


class FrozenLayer(NamedTuple):
    """A layer with a weight that may be quantised.

    Attributes:
        name: its path.
        weights: how many.
        linear: whether `all-linear` means it.
        turned: whether its weight is (inputs, outputs), as in GPT-2's Conv1D.
    """

    name: str
    weights: int
    linear: bool = True
    turned: bool = False


def of_matrices(matrices: Iterable[Matrix]) -> list[FrozenLayer]:
    """Return the layers of a text model's matrices."""
    return [FrozenLayer(m.name, m.inputs * m.outputs, turned=m.conv1d) for m in matrices]


def chosen(layers: Sequence[FrozenLayer], how: Quantise, where: str = WHERE) -> list[FrozenLayer]:
    """Return the layers whose weights are quantised, in their order.

    A name matches as in `lora.targets`: the whole path, or its end.

    Raises:
        DataError: the model has no linear layer.
        ExperimentError: a name matches nothing; the message lists what there is.
    """
    if not how.names:
        linear = [layer for layer in layers if layer.linear]
        if not linear:
            what, fix = "the model has no linear layer whose weights could be quantised", "set it to none"
            raise DataError(message("task.quantise", what, got=how.kind, fix=fix))
        return linear
    for name in how.names:
        if not any(_matches(layer.name, name) for layer in layers):
            leaves = sorted({_leaf(layer.name) for layer in layers})
            fix = f"{nearest(name, leaves)}; this model has {', '.join(leaves)} (or all-linear)"
            raise ExperimentError(message(where, "no layer has this name", got=name, fix=fix))
    return [layer for layer in layers if any(_matches(layer.name, name) for name in how.names)]


def held(layers: Sequence[FrozenLayer], how: Quantise | None, trained: Layout, where: str = WHERE) -> Held:
    """Return how many weights of a model are quantised, and their bytes; none where all of it trains.

    Args:
        layers: of the model.
        how: which of them; None: none.
        trained: what an update holds.
        where: the key that names them.

    Raises:
        ExperimentError: one of them is trained whole.
    """
    if how is None or trained.full:
        return NOT_HELD
    whole, picked = {tensor.name for tensor in trained.tensors}, chosen(layers, how, where)
    for layer in picked:
        if f"{layer.name}.weight" in whole:
            what = f"{layer.name} is trained whole, and task.quantise holds its weights in {how.kind}"
            fix = "name the other layers in task.quantise.modules, or leave it out here"
            raise ExperimentError(message("lora.modules_to_save", what, fix=fix))
    return how.held(layer.weights for layer in picked)


def notices(shape: ModelShape, how: Quantise | None) -> list[str]:
    """Return what is said of a model that holds frozen weights quantised."""
    if how is None or not shape.quantised_params:
        return []
    many = f"{shape.quantised_params:,} of {shape.params:,} frozen weights are {how}"
    return [
        f"{many}: {shape.quantised_weight_bytes:.4g} bytes each; training sees the values that they stand for"
    ]


def _matches(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _leaf(name: str) -> str:
    """Return what a layer is called in its block (`q_proj`, `to_out.0`)."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]
