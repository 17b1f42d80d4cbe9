"""Which folders are read straight: those that `save_pretrained` writes of a written-out family, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

from fedsim.errors import FedsimError
from fedsim.files.opened import FACTS_BYTES, UnreadableError, bytes_of
from fedsim.training.direct.architecture import Architecture
from fedsim.training.direct.reading import architecture
from fedsim.training.loading.checkpoint import header
from fedsim.training.loading.safety import MOST_LAYERS, check_texts

WEIGHTS = "model.safetensors"
KINDS = ("F16", "BF16", "F32", "F64")
"""Kinds of numbers, as safetensors calls them, that weights may be stored in."""


def known(name: str) -> Architecture | None:
    """Return the architecture of a model's folder, None if it goes the way of all others, which says what is wrong with it.

    Its configuration must be plain (`fedsim.training.direct.reading`), and its one file of weights must hold
    exactly the parameters of that architecture in their shapes.
    """
    folder = Path(name)
    try:
        if not folder.is_dir() or any(map(_is_other, folder.iterdir())):
            return None
        check_texts(folder, name)
        made = architecture(json.loads(bytes_of(folder / "config.json", FACTS_BYTES)))
    except (FedsimError, UnreadableError, OSError, ValueError, AttributeError, RecursionError):
        return None
    if made is None or made.layers > MOST_LAYERS:
        return None
    stored = header(folder / WEIGHTS)
    if any(entry.kind not in KINDS for entry in stored.values()):
        return None
    return made if {key: entry.shape for key, entry in stored.items()} == made.parameters else None


def _is_other(path: Path) -> bool:
    """Tell whether a file of a folder makes more of it than one plain model: an adapter, or weights beside the one file."""
    name = path.name
    return (
        name == "adapter_config.json"
        or (name.endswith((".safetensors", ".safetensors.index.json")) and name != WEIGHTS)
        or name.startswith("pytorch_model")
    )
