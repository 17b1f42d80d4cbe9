"""Which matrices have an adapter, by the names of `lora.targets`; what a vector holds for a model that is known without transformers."""

from __future__ import annotations

from collections.abc import Sequence

from fedsim.adapters.adapter import Layout, Module
from fedsim.config.learning import LoraConfig
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
    """Return the layout of A (r, in) and B (out, r) of some matrices."""
    r, scale = lora.r, lora.alpha / lora.r
    return Layout(tuple(Module(m.name, r, (r, m.inputs), (m.outputs, r), scale) for m in adapted))


def known_to_train(name: str, lora: LoraConfig, path: Path) -> Architecture | None:
    """Return the architecture of a model that trains by the written-out path and is read without transformers, else None."""
    return None if lora.full or path not in ("auto", "fused") else known(name)


def known_layout(made: Architecture, lora: LoraConfig) -> Layout:
    """Return the layout of such a model; what is wrong with the targets is said as for every model."""
    return of_factors(picked(made.matrices, made.matrices, lora.targets, made.family), lora)
