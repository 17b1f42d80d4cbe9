"""LoRA in and out of a causal language model: stock PEFT modules, one flat vector.

What is trained is known without weights (`layout`), so the server, the clock and the byte counter
never load a model. A worker wraps its backbone once (`Trainee`) and then only copies vectors in
and out: a `get_peft_model` per client would leak adapters, and PEFT's own state dict aliases live
parameters.
"""

from __future__ import annotations

import math
import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.adapters.adapter import Layout, Tensor, Vector
from fedsim.adapters.folding import base_into_adapter
from fedsim.config.learning import LoraConfig
from fedsim.cost.quantised import Quantise
from fedsim.rng import stream
from fedsim.training import hub
from fedsim.training.backbone import Backbone
from fedsim.training.backbone import Path as TrainingPath
from fedsim.training.beside.tensors import (
    ADAPTER,
    plain_name,
    saved_modules,
    stored_names,
    value_of,
    with_beside,
)
from fedsim.training.direct.adapter_config import patterns, plain_lora, write_config
from fedsim.training.direct.architecture import Matrix
from fedsim.training.direct.folder import known
from fedsim.training.direct.targets import known_layout, known_to_train, of_factors, picked
from fedsim.training.loading.configuration import of_text, of_text_parameters
from fedsim.training.loading.unadaptable import takes_none
from fedsim.training.local import lr_ratios
from fedsim.training.paths import choose, resolved
from fedsim.training.quantised.base import in_place
from fedsim.training.quantised.chosen import of_matrices
from fedsim.training.rebase import Bases, Layers
from fedsim.training.written import save_config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def matrices(model: torch.nn.Module) -> list[Matrix]:
    """Return the Linear and Conv1D layers that a text goes through (weights not needed), the output head apart."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    layers = []
    for name, module in of_text(model) if head is not None else model.named_modules():
        if module is head or not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        conv1d = isinstance(module, Conv1D)
        rows, columns = module.weight.shape
        inputs, outputs = (rows, columns) if conv1d else (columns, rows)
        layers.append(Matrix(name, inputs, outputs, conv1d))
    return layers


def chosen(model: PreTrainedModel, targets: str | tuple[str, ...]) -> list[Matrix]:
    """Return the matrices that `targets` names, in the model's order.

    A name matches as in PEFT: the whole path, or its end (`q_proj`, `attn.c_proj`).

    Raises:
        ExperimentError: a name matches nothing, or a layer that PEFT refuses; the message lists what there is.
    """
    linear = matrices(model)
    layers = [m for m in linear if not takes_none(model, m)]
    return picked(linear, layers, targets, model.config.model_type)


def layout(model: PreTrainedModel, lora: LoraConfig) -> Layout:
    """Return what a flat vector holds for this model; its weights are not needed.

    With `full`, every parameter, tied ones once; else A (r, in) and B (out, r) of each target.

    Raises:
        ExperimentError: wrong targets.
    """
    if lora.full:
        return Layout(tensors=tuple(Tensor(n, tuple(p.shape)) for n, p in of_text_parameters(model)))
    factors = of_factors(chosen(model, lora.targets), lora)
    return with_beside(factors, model, lora, _trainable(model)) if lora.beside else factors


def _trainable(model: PreTrainedModel) -> list[tuple[str, torch.Tensor]]:
    """Return (path, parameter) of what a text goes through, or of any other model."""
    text = hasattr(model, "get_output_embeddings")
    return of_text_parameters(model) if text else list(model.named_parameters())


def initial(trained: Layout, seed: int) -> Vector:
    """Return LoRA's initialisation: A uniform in +-1/sqrt(in) (PEFT's Kaiming with a = sqrt 5), B = 0.

    Each A has its own random address and one float32 multiplication per number, so the vector is
    the same to the bit on every machine. (PEFT draws from torch's global generator instead.)
    """
    vector = np.zeros(trained.size, dtype=np.float32)
    arrays = trained.arrays(vector)
    for m in trained.modules:
        unit = stream(seed, "init", m.name).random(m.a_shape, dtype=np.float32)  # 24-bit, in [0, 1)
        bound = np.float32(1.0 / math.sqrt(math.prod(m.a_shape[1:])))
        arrays[f"{m.name}.lora_A"][...] = (2 * unit - 1) * bound
    return vector


def pretrained(name: str, trained: Layout, quantise: Quantise | None = None) -> Vector:
    """Return the backbone's own values of the whole tensors, one after the other: version 0 of full-model training."""
    model = frozen(name, "float32", quantise)
    vector: Vector = np.concatenate([value_of(model, tensor).ravel() for tensor in trained.tensors])
    return vector


class Trainee:
    """A backbone in memory with its trainable parameters in the layout's order."""

    def __init__(self, model: Any, trained: Layout, lora: LoraConfig) -> None:
        """Wrap `model` (which is changed) with stock PEFT, or free all its weights if `full`."""
        self.layout = trained
        self.lr_ratios = lr_ratios(trained, lora.lr_ratio)
        if trained.full:
            self.model = model
            named = dict(model.named_parameters())
            self.parameters = [named[t.name].requires_grad_(requires_grad=True) for t in trained.tensors]
        else:
            self.model = _wrapped(model, trained, lora)
            named = {plain_name(name): p for name, p in self.model.named_parameters()}
            self.parameters = [named[name] for name in trained.slices]
        self.model.eval()
        adapted = [self.model.get_submodule(f"base_model.model.{m.name}") for m in trained.modules]
        self._bases = Bases(trained, Layers([layer.base_layer for layer in adapted]).write)
        shapes = [place[1] for place in trained.slices.values()]
        assert [tuple(p.shape) for p in self.parameters] == shapes, "the weights differ from their config"

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.parameters[0].device

    def rebase(self, base: Vector | None) -> None:
        """Make the adapted modules' frozen weights W0 + change (`Base.vector`), or W0 again (None)."""
        self._bases.to(base)

    def write(self, vector: Vector) -> None:
        """Copy a vector into the model."""
        import torch

        if vector.shape != (self.layout.size,):
            raise ValueError(f"vector has shape {vector.shape}, layout needs ({self.layout.size},)")
        flat = torch.from_numpy(np.array(vector, dtype=np.float32))  # torch warns about read-only arrays
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self.split(flat), strict=True):
                parameter.copy_(part)

    def read(self) -> Vector:
        """Return the model's current vector, its own copy."""
        import torch

        flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        vector: Vector = flat.cpu().numpy()
        return vector

    def split(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Return views of a flat tensor, one a parameter, on the model's device."""
        flat = flat.to(self.parameters[0].device)
        return [flat[place].view(shape) for place, shape in self.layout.slices.values()]


def _wrapped(model: Any, trained: Layout, lora: LoraConfig) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import get_peft_model

        return get_peft_model(model, peft_config(model, trained, lora), adapter_name=ADAPTER)


def peft_config(model: Any, trained: Layout, lora: LoraConfig, base: str | None = None) -> Any:
    """Return the PEFT configuration that adapts exactly the layout's modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig as PeftLora

    wanted = {m.name for m in trained.modules}
    leaves = {name.rpartition(".")[2] for name in wanted}
    everywhere = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in leaves}
    return PeftLora(
        task_type="CAUSAL_LM" if hasattr(model, "get_output_embeddings") else None,
        base_model_name_or_path=base,
        r=lora.r,
        lora_alpha=int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        lora_dropout=0.0,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias=lora.bias,
        modules_to_save=saved_modules(trained, model) or None,
        **patterns(trained, lora),
        target_modules=sorted(leaves) if everywhere == wanted else _exactly(wanted, model),
        fan_in_fan_out=any(m.conv1d for m in matrices(model) if m.name in wanted),
        inference_mode=base is not None,
    )


def _exactly(wanted: set[str], model: Any) -> list[str] | str:
    """Return PEFT's `target_modules` of some layers and no others: their paths, or an expression where one ends another's."""
    ends = tuple(f".{name}" for name in wanted)
    if any(name.endswith(ends) and name not in wanted for name, _ in model.named_modules()):
        return "|".join(map(re.escape, sorted(wanted)))
    return sorted(wanted)


def frozen(name: str, dtype: str, quantise: Quantise | None) -> PreTrainedModel:
    """Return a model whose frozen weights are those of `quantise` (`fedsim.training.quantised`)."""
    model = hub.weights(name, dtype)
    in_place(model, of_matrices(matrices(model)), quantise)
    return model


@lru_cache(maxsize=4)
def trainee(
    name: str,
    lora: LoraConfig,
    device: str = "cpu",
    dtype: str = "float32",
    quantise: Quantise | None = None,
) -> Trainee:
    """Return this process's copy of a model, loaded and wrapped once."""
    trained = layout(hub.skeleton(name), lora)
    return Trainee(frozen(name, dtype, quantise).to(device), trained, lora)


@lru_cache(maxsize=4)
def backbone(
    name: str,
    lora: LoraConfig,
    path: TrainingPath,
    device: str = "cpu",
    dtype: str = "float32",
    quantise: Quantise | None = None,
) -> Backbone | None:
    """Return this process's copy of a model as a backbone for client batches; None: `trainee` trains."""
    made = known_to_train(name, lora, path)
    if made is not None:
        from fedsim.training.direct.weights import decoder

        direct = decoder(name, made, known_layout(made, lora), device, dtype, quantise)
        if direct is not None:
            return direct
    trained = layout(hub.skeleton(name), lora)
    if resolved(hub.skeleton(name), trained, path) == "sequential":
        return None
    return choose(frozen(name, dtype, quantise).to(device), trained, path)


def save(vector: Vector, name: str, lora: LoraConfig, folder: Path, base: Vector | None = None) -> int:
    """Write a PEFT folder (`PeftModel.from_pretrained`), or a transformers folder if `lora.full`.

    The adapter's file is written from the vector alone: no weights are loaded, and the payload is
    4 bytes a number of the layout. With a `base` that has moved it holds change and adapter as one adapter
    (`fedsim.adapters.folding`).

    Returns:
        The adapter's rank, 0 for a whole model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if lora.full:
        whole = trainee(name, lora)
        whole.write(vector)
        whole.model.save_pretrained(folder)
        hub.tokenizer(name).save_pretrained(folder)
        return 0
    from safetensors.numpy import save_file

    made = None if lora.beside else known(name)
    trained = layout(hub.skeleton(name), lora) if made is None else known_layout(made, lora)
    if base is not None:
        trained, vector = base_into_adapter(trained, vector, base)
        lora = plain_lora(lora, trained.rank)
    arrays = trained.arrays(np.ascontiguousarray(vector, dtype=np.float32))
    tensors = {key: np.array(arrays[array]) for array, key in stored_names(trained).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if made is None:
        save_config(peft_config(hub.skeleton(name), trained, lora, base=name), folder)
    else:
        write_config(made, trained, lora, name, folder)
    return trained.rank
