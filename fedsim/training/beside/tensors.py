"""Which whole tensors are trained beside the factors: DoRA's magnitudes, biases, modules that are trained whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedsim.adapters.adapter import MAGNITUDE, Layout, Module, Tensor, Vector
from fedsim.config.learning import LoraConfig
from fedsim.errors import ExperimentError, message, nearest

if TYPE_CHECKING:
    import torch

ADAPTER = "default"
"""What PEFT calls an adapter that nobody has named."""


def with_beside(
    factors: Layout, model: torch.nn.Module, lora: LoraConfig, parameters: Sequence[tuple[str, torch.Tensor]]
) -> Layout:
    """Return a layout of adapted modules with what `lora` has trained beside them.

    Args:
        factors: the adapted modules.
        model: whose layers they are; weights are not needed.
        lora: `dora`, `bias` and `modules_to_save`.
        parameters: (path, parameter) of what may be trained, tied ones once.

    Raises:
        ExperimentError: there are no such biases or modules, or one carries an adapter already.
    """
    if not lora.beside:
        return factors
    saved = _saved(model, lora.modules_to_save, factors.modules)
    whole = {tensor.name for tensor in saved}
    biases = () if lora.bias == "none" else _biases(factors, model, lora.bias, parameters)
    magnitudes = tuple(map(_magnitude, factors.modules)) if lora.dora else ()
    return Layout(factors.modules, (*magnitudes, *(b for b in biases if b.name not in whole), *saved))


def _magnitude(module: Module) -> Tensor:
    ones = (1,) * (len(module.b_shape) - 2)
    shape = (1, module.b_shape[0], *ones) if ones else (module.b_shape[0],)
    return Tensor(f"{module.name}.{MAGNITUDE}", shape, "magnitude")


def _biases(
    factors: Layout, model: torch.nn.Module, which: str, parameters: Sequence[tuple[str, torch.Tensor]]
) -> tuple[Tensor, ...]:
    """Return the biases, which are what PEFT takes for one: every parameter with the word in its path."""
    if which == "all":
        biases = [(name, p) for name, p in parameters if "bias" in name]
    else:
        layers = [(m.name, model.get_submodule(m.name)) for m in factors.modules]
        biases = [(f"{name}.bias", layer.bias) for name, layer in layers if layer.bias is not None]
    if not biases:
        where = "this model has no biases" if which == "all" else "no adapted layer has a bias"
        fix = "remove lora.bias, or give another model" if which == "all" else "set lora.bias: none"
        raise ExperimentError(message("lora.bias", where, got=which, fix=fix))
    return tuple(Tensor(name, tuple(p.shape), "bias") for name, p in biases)


def _saved(model: torch.nn.Module, names: Sequence[str], adapted: Sequence[Module]) -> tuple[Tensor, ...]:
    """Return the parameters of the modules that are named by their path, or by its end."""
    tensors: dict[str, Tensor] = {}
    paths = [path for path, _ in model.named_modules() if path]
    for name in names:
        matching = [path for path in paths if path == name or path.endswith(f".{name}")]
        if not matching:
            leaves = sorted(
                {path.rpartition(".")[2] for path in paths if not path.rpartition(".")[2].isdigit()}
            )
            fix = f"{nearest(name, leaves)}; this model has {', '.join(leaves)}"
            raise ExperimentError(
                message("lora.modules_to_save", "no module has this name", got=name, fix=fix)
            )
        for path in matching:
            inside = [m.name for m in adapted if m.name == path or m.name.startswith(f"{path}.")]
            if inside:
                what = f"cannot be trained whole: {inside[0]} carries an adapter"
                fix = f"leave {inside[0]} out of lora.targets, or {name} out of lora.modules_to_save"
                raise ExperimentError(message("lora.modules_to_save", what, got=name, fix=fix))
            also = [other for other in paths if other.endswith(path) and other != path]
            if also:
                what = f"PEFT would train {also[0]} whole, too, because its name ends with this one"
                fix = f"give one of the two another name in the model, or leave {name} out"
                raise ExperimentError(message("lora.modules_to_save", what, got=name, fix=fix))
            parameters = dict(model.get_submodule(path).named_parameters())
            if not parameters:
                fix = "name a module that has weights, such as lm_head"
                raise ExperimentError(
                    message("lora.modules_to_save", "this module has no weights", got=name, fix=fix)
                )
            for key, p in parameters.items():
                tensors[f"{path}.{key}"] = Tensor(f"{path}.{key}", tuple(p.shape), "saved")
    return tuple(tensors.values())


def saved_modules(layout: Layout, model: torch.nn.Module) -> list[str]:
    """Return the paths of the modules that are trained whole: the shortest that hold nothing else and that end no other path.

    PEFT takes what it is told for an end.
    """
    paths = [path for path, _ in model.named_modules()]
    names = {tensor.name for tensor in layout.beside if tensor.kind == "saved"}
    whole = [
        path
        for path, module in model.named_modules()
        if path
        and (inside := [f"{path}.{key}" for key, _ in module.named_parameters()])
        and names >= set(inside)
        and not any(other.endswith(path) for other in paths if other != path)
    ]
    return [path for path in whole if not any(path.startswith(f"{other}.") for other in whole)]


def value_of(model: torch.nn.Module, tensor: Tensor) -> Vector:
    """Return what a whole tensor is in a pretrained model: the parameter, or the lengths of an adapted weight's rows."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if tensor.kind != "magnitude":
        value: Vector = model.get_parameter(tensor.name).detach().float().cpu().numpy()
        return value
    layer = model.get_submodule(tensor.name.removesuffix(f".{MAGNITUDE}"))
    weight = layer.weight.detach().cpu().double()
    rows = weight.t() if isinstance(layer, Conv1D) else weight.flatten(1)
    lengths: Vector = torch.linalg.vector_norm(rows, dim=1).view(tensor.shape).numpy().astype(np.float32)
    return lengths


def plain_name(name: str) -> str:
    """Return what a layout calls a parameter of a model that PEFT has wrapped.

    >>> plain_name("base_model.model.h.0.attn.lora_A.default.weight"), plain_name("base_model.model.h.0.base_layer.bias")
    ('h.0.attn.lora_A', 'h.0.bias')
    >>> plain_name("base_model.model.lm_head.modules_to_save.default.weight")
    'lm_head.weight'
    """
    plain = name.removeprefix("base_model.model.").replace(f".modules_to_save.{ADAPTER}.", ".")
    if ".lora_" in plain:
        return plain.removesuffix(f".{ADAPTER}.weight")
    return plain.replace(".base_layer.", ".")


def stored_names(layout: Layout) -> dict[str, str]:
    """Return the name of every array of a layout -> what stock PEFT calls it in a file."""
    adapted = {module.name for module in layout.modules}
    kinds = {tensor.name: tensor.kind for tensor in layout.tensors}
    names = {}
    for name in layout.slices:
        owner, _, last = name.rpartition(".")
        if name not in kinds:
            names[name] = f"base_model.model.{name}.weight"
        elif kinds[name] == "bias" and owner in adapted:
            names[name] = f"base_model.model.{owner}.base_layer.{last}"
        else:
            names[name] = f"base_model.model.{name}"
    return names
