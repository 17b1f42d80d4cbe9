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
        lora: rank and alpha.
        base: name of the model.
        folder: of the adapter.
    """
    wanted = {m.name for m in trained.modules}
    settings = PLAIN | {
        "base_model_name_or_path": base,
        "fan_in_fan_out": made.family == "gpt2",
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "r": lora.r,
        "target_modules": sorted(_by_leaf(made, wanted) or wanted),
    }
    text = json.dumps(settings, indent=2, sort_keys=True)
    write_atomically(folder / "adapter_config.json", text.encode())


def _by_leaf(made: Architecture, wanted: set[str]) -> set[str]:
    """Return the last parts of the names if they name no other layer of the model, else nothing."""
    leaves = {name.rpartition(".")[2] for name in wanted}
    everywhere = {m.name for m in made.matrices if m.name.rpartition(".")[2] in leaves}
    return leaves if everywhere == wanted else set()
