"""`adapter_config.json` of an adapter on a known folder, as PEFT reads it, written without PEFT, whose import takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

from fedsim.adapters.adapter import Layout
from fedsim.config.learning import LoraConfig
from fedsim.files.atomic import write_atomically
from fedsim.training.direct.architecture import Architecture

PLAIN: dict[str, object] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "bias": "none",
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_bias": False,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "peft_type": "LORA",
    "rank_pattern": {},
    "revision": None,
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}
"""Settings of a plain LoRA; what later versions of PEFT add has its default there."""


def write_config(made: Architecture, trained: Layout, lora: LoraConfig, base: str, folder: Path) -> None:
    """Write the file.

    Args:
        made: the architecture under the adapter.
        trained: its layout.
        lora: rank and alpha, and those by module.
        base: name of the model.
        folder: of the adapter.
    """
    wanted = {m.name for m in trained.modules}
    settings = PLAIN | {
        "base_model_name_or_path": base,
        "fan_in_fan_out": made.family == "gpt2",
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "r": lora.r,
        "use_rslora": lora.rslora,
        **patterns(trained, lora),
        "target_modules": sorted(_by_leaf(made, wanted) or wanted),
    }
    text = json.dumps(settings, indent=2, sort_keys=True)
    write_atomically(folder / "adapter_config.json", text.encode())


def patterns(trained: Layout, lora: LoraConfig) -> dict[str, dict[str, float]]:
    """Return PEFT's `rank_pattern` and `alpha_pattern`: the modules that differ from r and alpha, by their whole paths.

    A path with which another one ends has a ^ before it, as PEFT takes it for an end.
    """
    names = [m.name for m in trained.modules]
    also = {name for name in names if any(other.endswith(f".{name}") for other in names)}
    of = {f"^{name}" if name in also else name: lora.of_module(name) for name in names}
    return {
        "rank_pattern": {name: r for name, (r, _) in of.items() if r != lora.r},
        "alpha_pattern": {name: alpha for name, (_, alpha) in of.items() if alpha != lora.alpha},
    }


def plain_lora(lora: LoraConfig, rank: int) -> LoraConfig:
    """Return the settings of an adapter of one rank with scale 1, whatever was trained."""
    alike = {"rank_pattern": None, "alpha_pattern": None, "rslora": False}
    return lora.model_copy(update={"r": rank, "alpha": float(rank), **alike})


def _by_leaf(made: Architecture, wanted: set[str]) -> set[str]:
    """Return the last parts of the names if they name no other layer of the model, else nothing."""
    leaves = {name.rpartition(".")[2] for name in wanted}
    everywhere = {m.name for m in made.matrices if m.name.rpartition(".")[2] in leaves}
    return leaves if everywhere == wanted else set()
