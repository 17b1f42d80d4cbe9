"""What of a user's model can be trained: its layers that carry adapters, or its weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fedsim.adapters.adapter import Layout, Tensor
from fedsim.config.learning import LoraConfig
from fedsim.errors import ExperimentError, message, nearest
from fedsim.training.beside.tensors import with_beside
from fedsim.training.direct.architecture import Matrix
from fedsim.training.direct.sites import Site
from fedsim.training.direct.targets import in_layers, refuse_idle_patterns

GROUPS = ("all", "all-linear")
"""Names that stand for several layers: every layer that can carry an adapter; every linear map."""


def _matches(site: Site, target: str) -> bool:
    """Tell whether a target names a layer: by `GROUPS`, its whole path, or its end."""
    if target in GROUPS:
        return target == "all" or not site.kernel
    return site.ends_with(target)


def sites(model: nn.Module) -> list[Site]:
    """Return the layers of a model that can carry adapters, in its order.

    A layer in an `nn.MultiheadAttention` cannot: its weight is read past the layer.
    """
    from transformers.pytorch_utils import Conv1D

    past = {
        id(inner)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for inner in module.modules()
    }
    layers = []
    for name, module in model.named_modules():
        if id(module) in past or not name:
            continue
        if isinstance(module, nn.Linear):
            layers.append(Site(name, module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            layers.append(Site(name, *module.weight.shape))
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            layers.append(Site(name, module.in_channels, module.out_channels, tuple(module.kernel_size)))
    return layers


def chosen(model: nn.Module, targets: str | Iterable[str]) -> list[Site]:
    """Return the layers that `lora.targets` names.

    Raises:
        ExperimentError: a name matches nothing; the message lists what there is.
    """
    layers = sites(model)
    if not layers:
        what = f"{type(model).__name__} has no Linear, Conv1D or ungrouped Conv2d that could carry an adapter"
        raise ExperimentError(message("lora.targets", what, fix="train it whole: set lora.full: true"))
    names = (targets,) if isinstance(targets, str) else tuple(targets)
    for name in names:
        if not any(_matches(site, name) for site in layers):
            shown = ", ".join(site.name for site in layers[:12]) + (", ..." if len(layers) > 12 else "")
            known = [*GROUPS, *{site.name.rpartition(".")[2] for site in layers}, *(s.name for s in layers)]
            fix = f"{nearest(name, known)}; this model has {shown} (or all)"
            if name == "all-linear":
                fix = f"set lora.targets: all; this model has {shown}"
            raise ExperimentError(message("lora.targets", "no layer has this name", got=name, fix=fix))
    if not names:
        raise ExperimentError(message("lora.targets", "is empty", fix=f"name some of {', '.join(GROUPS)}"))
    return [site for site in layers if any(_matches(site, name) for name in names)]


def adapted(model: nn.Module, lora: LoraConfig) -> Layout:
    """Return what a vector of adapters holds: A and B of each target, then what trains beside them.

    Raises:
        ExperimentError: wrong targets, layers, patterns, biases or modules.
    """
    layers = chosen(model, lora.targets)
    within = {
        m.name for m in in_layers([Matrix(s.name, s.inputs, s.outputs, conv1d=False) for s in layers], lora)
    }
    modules = []
    for site in layers:
        if site.name in within:
            r, alpha = lora.of_module(site.name)
            modules.append(site.module(r, lora.ratio(alpha, r)))
    refuse_idle_patterns([module.name for module in modules], lora)
    return with_beside(Layout(tuple(modules)), model, lora, list(model.named_parameters()))


def whole(model: nn.Module, moved: Iterable[str] = ()) -> Layout:
    """Return what a vector of weights holds: every parameter that has a gradient, and the buffers that training moves.

    Args:
        model: parameters without `requires_grad` stay as they are, and are not sent.
        moved: names of the buffers.

    Raises:
        ExperimentError: no parameter trains, or one is not float32.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        what = f"no parameter of {type(model).__name__} has a gradient"
        fix = "return a model with parameters that train (requires_grad)"
        raise ExperimentError(message("task.module", what, fix=fix))
    for name, parameter in trained:
        if parameter.dtype != torch.float32:
            what = f"{name} trains in {str(parameter.dtype).removeprefix('torch.')}, and is sent in float32"
            raise ExperimentError(message("task.module", what, fix="return model.float()"))
    buffers = dict(model.named_buffers())
    held = [*trained, *((name, buffers[name]) for name in moved)]
    return Layout(tensors=tuple(Tensor(name, tuple(t.shape)) for name, t in held))


def multiplying(model: nn.Module) -> tuple[int, int, int]:
    """Return the weights of the layers that multiply, how many layers these are, and how wide the widest is; at least 1 each."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, nn.RNNBase)
    found = [module for module in model.modules() if isinstance(module, kinds)]
    weights = {id(p): p for module in found for p in module.parameters(recurse=False) if p.dim() > 1}
    widths = [p.shape[0] for p in weights.values()]
    return max(1, sum(p.numel() for p in weights.values())), max(1, len(found)), max([1, *widths])
