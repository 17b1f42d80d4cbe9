"""LoRA in and out of a denoiser: linear layers and convolutions, stock PEFT modules, one flat vector.

`get_peft_model` wraps every model alike: UNet2DModel and DiT have no adapter mixin of diffusers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedsim.adapters.adapter import Layout, Module, Tensor, Vector
from fedsim.adapters.folding import base_into_adapter
from fedsim.config.learning import LoraConfig
from fedsim.cost.quantised import Quantise
from fedsim.errors import ExperimentError, message, nearest
from fedsim.training.backbone import Path as TrainingPath
from fedsim.training.beside.tensors import stored_names, value_of, with_beside
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion.denoising import Denoiser
from fedsim.training.diffusion.process import Process
from fedsim.training.direct.adapter_config import plain_lora
from fedsim.training.direct.sites import Site
from fedsim.training.direct.targets import refuse_idle_patterns
from fedsim.training.lora import Trainee, peft_config
from fedsim.training.quantised.base import in_place
from fedsim.training.quantised.chosen import FrozenLayer
from fedsim.training.stacked import swapped
from fedsim.training.written import order_header, save_config

if TYPE_CHECKING:
    from torch import nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
RESNETS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
GROUPS = ("all", "all-linear", "attention", "resnets")
"""Names that stand for several layers: everything; every Linear; the maps of attention; the blocks beside it."""


def sites(model: Any) -> list[Site]:
    """Return the Linear layers and ungrouped convolutions of a model (weights not needed), in its order."""
    import torch

    layers = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            layers.append(Site(name, module.in_features, module.out_features))
        elif isinstance(module, torch.nn.Conv2d) and module.groups == 1:
            layers.append(Site(name, module.in_channels, module.out_channels, tuple(module.kernel_size)))
    return layers


def chosen(model: Any, targets: str | Iterable[str]) -> list[Site]:
    """Return the layers that `targets` names: `GROUPS`, whole paths, or their ends as in PEFT.

    Raises:
        ExperimentError: a name matches nothing; the message lists what there is.
    """
    layers = sites(model)
    names = (targets,) if isinstance(targets, str) else tuple(targets)
    picked: set[str] = set()
    for name in names:
        matching = {s.name for s in layers if _matches(s, name)}
        if not matching:
            leaves = sorted({_leaf(s.name) for s in layers})
            fix = f"{nearest(name, [*GROUPS, *leaves])}; this model has {', '.join(leaves)} (or {', '.join(GROUPS)})"
            raise ExperimentError(message("lora.targets", "no layer has this name", got=name, fix=fix))
        picked |= matching
    if not picked:
        raise ExperimentError(message("lora.targets", "is empty", fix=f"name some of {', '.join(GROUPS)}"))
    return [s for s in layers if s.name in picked]


def _leaf(name: str) -> str:
    """Return what a layer is called in its block (`to_out.0`, `net.2`, `conv1`)."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]


def _matches(site: Site, target: str) -> bool:
    if target == "all":
        return True
    if target == "all-linear":
        return not site.kernel
    ends = {"attention": ATTENTION, "resnets": RESNETS}.get(target, (target,))
    return any(map(site.ends_with, ends))


def layout(model: Any, lora: LoraConfig) -> Layout:
    """Return what a flat vector holds for this model; its weights are not needed.

    With `full`, every parameter; else A and B of each target.

    Raises:
        ExperimentError: wrong targets.
    """
    if lora.full:
        return Layout(tensors=tuple(Tensor(n, tuple(p.shape)) for n, p in model.named_parameters()))
    if lora.layers_to_transform is not None:
        what = "the layers of a denoiser have no numbers of their own"
        fix = "name them in lora.targets, by their whole paths"
        got = list(lora.layers_to_transform)
        raise ExperimentError(message("lora.layers_to_transform", what, got=got, fix=fix))
    adapted = chosen(model, lora.targets)
    refuse_idle_patterns([site.name for site in adapted], lora)
    factors = Layout(tuple(_module(site, lora) for site in adapted))
    return with_beside(factors, model, lora, list(model.named_parameters()))


def _module(site: Site, lora: LoraConfig) -> Module:
    r, alpha = lora.of_module(site.name)
    return site.module(r, lora.ratio(alpha, r))


def resolved(model: Any, trained: Layout, path: TrainingPath) -> Literal["swapped", "sequential"]:
    """Return the path that trains `trained`: whole models one by one, adapters by module swap where it can.

    Raises:
        ExperimentError: the path was asked for and cannot train this model.
    """
    refusal = "a whole model trains one client at a time" if trained.full else swapped.refusal(model, trained)
    if path == "fused":
        fix = "set numerics.training: auto or swapped"
        raise ExperimentError(message("numerics.training", "no denoiser is written out", got=path, fix=fix))
    if path == "swapped" and refusal is not None:
        fix = "set numerics.training: sequential"
        raise ExperimentError(message("numerics.training", refusal, got=path, fix=fix))
    return "sequential" if path == "sequential" or refusal is not None else "swapped"


@dataclass(frozen=True)
class Source:
    """Which denoiser, trained how: what a worker needs to load it.

    Attributes:
        name: folder or hub name.
        prediction: of its schedule, or what replaces it.
        lora: what is trained.
        told: whether it is told the classes.
        quantise: how its frozen weights are held; None: as the model has them.
    """

    name: str
    prediction: Any
    lora: LoraConfig
    told: bool
    quantise: Quantise | None = None

    @property
    def process(self) -> Process:
        """Its diffusion."""
        return Process.of(denoisers.schedule(self.name, self.prediction))


def frozen_layers(model: nn.Module) -> list[FrozenLayer]:
    """Return the layers whose weights may be quantised; convolutions if they are named."""
    return [
        FrozenLayer(s.name, s.inputs * s.outputs * math.prod(s.kernel), linear=not s.kernel)
        for s in sites(model)
    ]


def frozen(source: Source, dtype: str) -> nn.Module:
    """Return a denoiser whose frozen weights are held as its source says."""
    model: nn.Module = denoisers.weights(source.name, dtype)
    in_place(model, frozen_layers(model), source.quantise)
    return model


@lru_cache(maxsize=4)
def trainee(source: Source, device: str = "cpu", dtype: str = "float32") -> Trainee:
    """Return this process's copy of a denoiser, loaded and wrapped once."""
    trained = layout(denoisers.skeleton(source.name), source.lora)
    return Trainee(frozen(source, dtype).to(device), trained, source.lora)


@lru_cache(maxsize=4)
def backbone(
    source: Source, path: TrainingPath, device: str = "cpu", dtype: str = "float32"
) -> Denoiser | None:
    """Return this process's copy of a denoiser for client batches; None: `trainee` trains."""
    skeleton = denoisers.skeleton(source.name)
    trained = layout(skeleton, source.lora)
    if resolved(skeleton, trained, path) == "sequential":
        return None
    model = frozen(source, dtype).to(device)
    how = denoisers.signature(source.name)
    return Denoiser(model, trained, how, source.process, told=source.told)


def pretrained(source: Source, trained: Layout) -> Vector:
    """Return the denoiser's own values of the whole tensors, one after the other: version 0 of full-model training."""
    model = frozen(source, "float32")
    vector: Vector = np.concatenate([value_of(model, tensor).ravel() for tensor in trained.tensors])
    return vector


def save(vector: Vector, source: Source, folder: Path, base: Vector | None = None) -> int:
    """Write a PEFT folder with `diffusers/` in it, or a diffusers model with its schedule if `lora.full`.

    `PeftModel.from_pretrained(model, folder)` loads the first; models with diffusers' own mixin
    also take `model.load_lora_adapter(f"{folder}/diffusers", prefix=None)`. Rank and alpha are in the
    configuration of both: without them diffusers takes alpha = r and the output is another one. With a `base` that has
    moved, change and adapter are one adapter (`fedsim.adapters.folding`).

    Returns:
        The adapter's rank, 0 for a whole model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source.lora.full:
        whole = trainee(source)
        whole.write(vector)
        whole.model.save_pretrained(folder)
        denoisers.schedule(source.name, source.prediction).save_pretrained(folder)
        return 0
    from safetensors.numpy import save_file

    model = denoisers.skeleton(source.name)
    lora, trained = source.lora, layout(model, source.lora)
    if base is not None:
        trained, vector = base_into_adapter(trained, vector, base)
        lora = plain_lora(lora, trained.rank)
    arrays = trained.arrays(np.ascontiguousarray(vector, dtype=np.float32))
    tensors = {key: np.array(arrays[array]) for array, key in stored_names(trained).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = peft_config(model, trained, lora, base=source.name)
    save_config(config, folder)
    bare = {key.removeprefix("base_model.model."): value for key, value in tensors.items()}
    described = json.dumps(plain(config.to_dict()), sort_keys=True)
    into = folder / "diffusers"
    into.mkdir(exist_ok=True)
    header = {"format": "pt", "lora_adapter_metadata": described}
    save_file(bare, into / "pytorch_lora_weights.safetensors", metadata=header)
    order_header(into / "pytorch_lora_weights.safetensors")
    return trained.rank


def plain(value: Any) -> Any:
    """Return a PEFT configuration's values as JSON has them: sets become sorted lists, enumerations their names."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
