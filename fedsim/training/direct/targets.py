"""Which matrices have an adapter, by the names of `lora.targets`; what a vector holds for a model that is known without transformers."""

from __future__ import annotations

from collections.abc import Sequence

from fedsim.adapters.adapter import Layout, Module
from fedsim.config.learning import LoraConfig
from fedsim.config.lora.practice import matching
from fedsim.errors import ExperimentError, message, nearest
from fedsim.training.backbone import Path
from fedsim.training.direct.architecture import Architecture, Matrix
from fedsim.training.direct.folder import known


def picked(
    linear: Sequence[Matrix], layers: Sequence[Matrix], targets: str | tuple[str, ...], kind: str
) -> list[Matrix]:
    """Return those of `layers`, the matrices in `linear` that can carry an adapter, that are named.

    A name matches as in PEFT: the whole path, or its end. `kind` is the model's, for messages.

    Raises:
        ExperimentError: a name matches nothing, or a layer that PEFT refuses; the message lists what there is.
    """
    leaves = sorted({m.name.rpartition(".")[2] for m in layers})
    if not layers:
        what = f"this {kind} model has no linear layer that can have an adapter"
        raise ExperimentError(message("lora.targets", what, fix="set lora.full: true, or give another model"))
    if targets == "all-linear":
        return list(layers)
    names = (targets,) if isinstance(targets, str) else targets
    for name in names:
        if not any(_matches(m.name, name) for m in layers):
            if any(_matches(m.name, name) for m in linear):
                what = f"no adapter can be put on it in a {kind} model"
                fix = f"choose some of {', '.join(leaves)} (or all-linear)"
                raise ExperimentError(message("lora.targets", what, got=name, fix=fix))
            fix = f"{nearest(name, leaves)}; this model has {', '.join(leaves)} (or all-linear)"
            raise ExperimentError(message("lora.targets", "no linear layer has this name", got=name, fix=fix))
    if not names:
        raise ExperimentError(message("lora.targets", "is empty", fix=f"name some of {', '.join(leaves)}"))
    return [m for m in layers if any(_matches(m.name, name) for name in names)]


def _matches(module: str, target: str) -> bool:
    return module == target or module.endswith(f".{target}")


def of_factors(adapted: Sequence[Matrix], lora: LoraConfig) -> Layout:
    """Return the layout of A (r, in) and B (out, r) of those matrices that lie in `lora.layers_to_transform`.

    Raises:
        ExperimentError: there is no such layer, or a pattern of rank or alpha matches nothing.
    """
    modules = []
    for m in in_layers(adapted, lora):
        r, alpha = lora.of_module(m.name)
        modules.append(Module(m.name, r, (r, m.inputs), (m.outputs, r), lora.ratio(alpha, r)))
    refuse_idle_patterns([module.name for module in modules], lora)
    return Layout(tuple(modules))


def layer_of(name: str) -> int:
    """Return the layer's number in a module's path (`model.layers.3.mlp.up_proj`), -1 if there is none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


def in_layers(adapted: Sequence[Matrix], lora: LoraConfig) -> Sequence[Matrix]:
    """Return the matrices in the layers that carry adapters.

    Raises:
        ExperimentError: a layer has none of them.
    """
    if lora.layers_to_transform is None:
        return adapted
    layers = {layer_of(m.name) for m in adapted} - {-1}
    for number in lora.layers_to_transform:
        if number not in layers:
            fix = f"choose among {min(layers)} to {max(layers)}" if layers else "remove it"
            what = "no layer of this number has one of the targets"
            raise ExperimentError(message("lora.layers_to_transform", what, got=number, fix=fix))
    return [m for m in adapted if layer_of(m.name) in lora.layers_to_transform]


def refuse_idle_patterns(names: Sequence[str], lora: LoraConfig) -> None:
    """Refuse a pattern of rank or alpha that is the first to match no module.

    Raises:
        ExperimentError: it says which.
    """
    for key, patterns in (("rank_pattern", lora.rank_pattern), ("alpha_pattern", lora.alpha_pattern)):
        used = {matching({pattern: pattern for pattern in patterns or ()}, name, "") for name in names}
        for pattern in patterns or ():
            if pattern not in used:
                leaves = sorted({name.rpartition(".")[2] for name in names})
                fix = f"{nearest(pattern, leaves)}; adapters lie on {', '.join(leaves)}"
                what = "no adapted layer has this name that an earlier pattern has not"
                raise ExperimentError(message(f"lora.{key}", what, got=pattern, fix=fix))


def known_to_train(name: str, lora: LoraConfig, path: Path) -> Architecture | None:
    """Return the architecture of a model that trains by the written-out path and is read without transformers, else None."""
    return None if lora.full or lora.beside or path not in ("auto", "fused") else known(name)


def known_layout(made: Architecture, lora: LoraConfig) -> Layout:
    """Return the layout of such a model; what is wrong with the targets is said as for every model."""
    return of_factors(picked(made.matrices, made.matrices, lora.targets, made.family), lora)
