"""The frozen weights of a model in memory, replaced by the values that their codes stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fedsim.cost.quantised import Quantise
from fedsim.training.quantised.chosen import FrozenLayer, chosen

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def quantised(weight: Tensor, how: Quantise, *, turned: bool = False) -> Tensor:
    """Return the values that a weight has once it is quantised, in its dtype, shape and strides.

    Args:
        weight: as the model has it; codes are those of its numbers in this dtype.
        how: kind, block, and whether scales are quantised.
        turned: whether it is (inputs, outputs): blocks run along the inputs all the same.
    """
    from fedsim.training.quantised.codes import coded

    if not turned:
        return coded(weight, how).values().to(weight.dtype)
    return coded(weight.t(), how).values().t().contiguous().to(weight.dtype)


def in_place(model: Module, layers: Sequence[FrozenLayer], how: Quantise | None) -> None:
    """Quantise the chosen layers of a loaded model; what shares memory with their weights keeps the old ones.

    Args:
        model: with weights.
        layers: of which `how` chooses.
        how: None: the model stays as it is.
    """
    if how is None:
        return
    for layer in chosen(layers, how):
        weight = model.get_parameter(f"{layer.name}.weight")
        weight.data = quantised(weight.data, how, turned=layer.turned)


def of_tensors(
    tensors: Iterable[tuple[str, Tensor]], layers: Sequence[FrozenLayer], how: Quantise | None
) -> dict[str, Tensor]:
    """Return a model's tensors by name, those of the chosen layers quantised."""
    if how is None:
        return dict(tensors)
    turned = {f"{layer.name}.weight": layer.turned for layer in chosen(layers, how)}
    return {
        name: quantised(tensor, how, turned=turned[name]) if name in turned else tensor
        for name, tensor in tensors
    }
