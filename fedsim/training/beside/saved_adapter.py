"""A saved PEFT adapter as version 0: read from its folder, and held against what the experiment trains."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.config.learning import LoraConfig
from fedsim.config.lora.practice import matching
from fedsim.errors import ExperimentError, message
from fedsim.files.opened import FACTS_BYTES, UnreadableError, bytes_of
from fedsim.training.beside.tensors import stored_names
from fedsim.training.loading.checkpoint import header

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CLOSE = 1e-6
"""How much the scales of the file and of the experiment may differ, as a share: rounding of their quotients."""


def check_saved(layout: Layout, lora: LoraConfig) -> None:
    """Refuse a saved adapter, if `lora` starts from one, that is not what the experiment trains; its numbers are not read yet.

    Raises:
        ExperimentError: says what differs.
    """
    folder = lora.start_from
    if folder is None:
        return
    settings = _settings(folder)
    if settings.get("peft_type") != "LORA":
        _refuse("is no LoRA adapter", folder, "give one of peft_type LORA", settings.get("peft_type"))
    if bool(settings.get("use_dora")) != lora.dora:
        there = bool(settings.get("use_dora"))
        _refuse(f"has use_dora: {str(there).lower()}", folder, f"set lora.dora: {str(there).lower()}")
    stored = {key: entry.shape for key, entry in header(Path(folder) / WEIGHTS).items()}
    if not stored:
        fix = "save it again with PEFT's save_pretrained, which writes safetensors"
        _refuse(f"has no {WEIGHTS} that can be read", folder, fix)
    names = stored_names(layout)
    missing = [name for name, key in names.items() if key not in stored]
    if missing:
        what = f"lacks {len(missing)} of the {len(names)} arrays that are trained here, {missing[0]} first"
        _refuse(
            what,
            folder,
            "make lora.targets, bias, modules_to_save and layers_to_transform those of the adapter",
        )
    extra = sorted(key for key in stored.keys() - set(names.values()) if not _is_again(key, names.values()))
    if extra:
        what = f"has {len(extra)} arrays that are not trained here, {extra[0]} first"
        _refuse(
            what,
            folder,
            "make lora.targets, bias, modules_to_save and layers_to_transform those of the adapter",
        )
    for name, key in names.items():
        if stored[key] != layout.slices[name][1]:
            _refuse_shape(name, stored[key], layout, folder)
    _check_scales(settings, layout, folder)


def _is_again(key: str, trained: Collection[str]) -> bool:
    """Tell whether PEFT has stored an array of a whole module once more, as it does with `bias: all`, or the one before it trained."""
    copies = (key.replace(f".{part}.", ".") for part in ("modules_to_save", "original_module"))
    return any(copy != key and copy in trained for copy in copies)


def read_saved(folder: str, layout: Layout) -> Vector:
    """Return the numbers of a saved adapter that `check_saved` has let pass, (layout.size,) float32.

    Raises:
        ExperimentError: the file is damaged, or holds what is no number.
    """
    from safetensors import SafetensorError, safe_open

    vector = np.zeros(layout.size, np.float32)
    arrays = layout.arrays(vector)
    try:
        with safe_open(Path(folder) / WEIGHTS, framework="pt") as stored:
            for name, key in stored_names(layout).items():
                arrays[name][...] = stored.get_tensor(key).float().numpy()
    except (SafetensorError, OSError) as problem:
        _refuse(f"cannot be read ({problem})", folder, "give the folder as PEFT's save_pretrained wrote it")
    if not np.isfinite(vector).all():
        _refuse("holds numbers that are not finite", folder, "give an adapter that is whole")
    return vector


def digest(folder: str) -> str:
    """Return the SHA-256 of the numbers' file."""
    return sha256(bytes_of(Path(folder) / WEIGHTS)).hexdigest()


def _settings(folder: str) -> Mapping[str, object]:
    try:
        settings = json.loads(bytes_of(Path(folder) / CONFIG, FACTS_BYTES))
    except (UnreadableError, OSError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        _refuse(
            f"has no {CONFIG} that can be read", folder, "give a folder that PEFT's save_pretrained wrote"
        )
    return settings


def _check_scales(settings: Mapping[str, object], layout: Layout, folder: str) -> None:
    """Refuse an adapter whose B A is multiplied with something else than here."""
    r, alpha = _number(settings.get("r")), _number(settings.get("lora_alpha"))
    ranks, alphas = _pattern(settings.get("rank_pattern")), _pattern(settings.get("alpha_pattern"))
    rooted = bool(settings.get("use_rslora"))
    for module in layout.modules:
        rank, of = matching(ranks, module.name, r), matching(alphas, module.name, alpha)
        scale = of / (math.sqrt(rank) if rooted else rank) if rank > 0 else math.nan
        if not math.isclose(scale, module.scale, rel_tol=CLOSE):
            what = f"multiplies B A of {module.name} with {scale:g}, and here it is {module.scale:g}"
            fix = f"set lora.r: {r:g}, alpha: {alpha:g}, rslora: {str(rooted).lower()}, and its patterns"
            _refuse(what, folder, fix)


def _refuse_shape(name: str, shape: tuple[int, ...], layout: Layout, folder: str) -> NoReturn:
    axis, here = layout.slot_axes[name], layout.slices[name][1]
    if axis is not None and len(shape) == len(here):
        fix = f"set lora.r: {shape[axis]}, or lora.rank_pattern"
        _refuse(f"has rank {shape[axis]} at {name}, and here it is {here[axis]}", folder, fix)
    what = f"has {name} in shape {list(shape)}, and this model's is {list(here)}"
    _refuse(what, folder, "give an adapter of this model")


def _refuse(what: str, folder: str, fix: str, got: object = None) -> NoReturn:
    value = folder if got is None else got
    raise ExperimentError(message("lora.start_from", f"the saved adapter {what}", got=value, fix=fix))


def _number(value: object) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good else math.nan  # type: ignore[arg-type]  # a number by now


def _pattern(value: object) -> dict[str, float]:
    return {str(key): _number(item) for key, item in value.items()} if isinstance(value, dict) else {}
