"""What of a model of others is refused before a library reads it: code, pickles, kernels, sizes of no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from fedsim.errors import DataError, message
from fedsim.files.opened import FACTS_BYTES, MIB, UnreadableError, opened

ALLOW_PICKLE = "FEDSIM_ALLOW_PICKLE"
"""Set to 1, weights are read from `.bin` files, too: pickles, of which torch takes tensors only (`weights_only`)."""
PLAIN_TEXT = (".json", ".txt", ".model", ".tiktoken", ".spm", ".jinja")
"""Suffixes of what describes a model: read whole, whatever is in it."""
TEXT_BYTES = 512 * MIB
"""Longest vocabulary."""
MOST_LAYERS = 10_000
SAFETENSORS = "write the folder again with save_pretrained, which writes model.safetensors"


def pickles_allowed() -> bool:
    """Tell whether whoever started this asks for weights from pickles, too."""
    return os.environ.get(ALLOW_PICKLE, "").lower() in ("1", "true", "yes", "on")


def only_safetensors() -> Literal[True] | None:
    """Return what `use_safetensors` is for transformers and diffusers: True, or None where pickles are asked for."""
    return None if pickles_allowed() else True


def no_pickle(name: str, files: str) -> DataError:
    """Return the error about a model whose weights are a pickle."""
    what = f"its weights are a pickle ({files}), and only safetensors are read"
    fix = f"{SAFETENSORS}; or set {ALLOW_PICKLE}=1 if you trust them"
    return DataError(message("task.model", what, got=name, fix=fix))


def check_texts(folder: Path, name: str) -> None:
    """Refuse a model's folder in which what describes it is no regular file, or longer than any such text.

    Raises:
        DataError: names the file.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PLAIN_TEXT:
            most = FACTS_BYTES if path.name == "config.json" else TEXT_BYTES
            refuse(path, most, "task.model", name)


def described(folder: Path, name: str) -> bool:
    """Tell whether a folder holds the configuration of a model.

    Raises:
        DataError: what describes it is no regular file, or too long.
    """
    there = (folder / "config.json").is_file()
    if there:
        check_texts(folder, name)
    return there


def refuse(path: Path, most: int | None, where: str, got: str) -> None:
    """Refuse a file that is not regular, or longer than `most` bytes.

    Raises:
        DataError: it is; a file that is not there is left to whoever reads it.
    """
    try:
        with opened(path, most):
            return
    except UnreadableError as problem:
        raise DataError(message(where, f"{path.name} {problem.what}", got=got, fix=problem.fix)) from problem
    except OSError:
        return


def check_settings(settings: Mapping[str, object], name: str) -> None:
    """Refuse a configuration of codes in place of weights, or one that asks for code of others, for files that it names itself, or for layers without end.

    Args:
        settings: of `config.json`.
        name: of the model.

    Raises:
        DataError: names the key.
    """
    if isinstance(stored := settings.get("quantization_config"), Mapping):
        got = str(stored.get("quant_method", "quantised"))
        fix = "give the model as it was before, and set task.quantise: nf4 (or int8)"
        raise DataError(message("task.model", f"{name}: its weights are stored quantised", got=got, fix=fix))
    waiting: list[tuple[str, object]] = list(settings.items())
    seen = 0
    while waiting and seen < FACTS_BYTES:
        key, value = waiting.pop()
        seen += 1
        if isinstance(value, Mapping):
            waiting += [(str(inner), part) for inner, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, part) for part in value]
        elif wrong := _wrong(key, value):
            got = str(value)[:200]
            raise DataError(message("task.model", f"{name}: config.json: {key} {wrong}", got=got, fix=_PLAIN))


_PLAIN = "give a model that transformers or diffusers know by themselves"


def _wrong(key: str, value: object) -> str | None:
    """Return what is wrong with one setting of a model; None: nothing."""
    if key == "transformers_weights" and value is not None:
        return "names the file of the weights, which is found by its usual name only"
    if "attn_implementation" in key and isinstance(value, str) and set(value) & set("/:@"):
        return "is a kernel of somebody's, which is code"
    count = isinstance(value, int) and not isinstance(value, bool)
    if count and ("layer" in key or "blocks" in key or "depth" in key) and abs(int(str(value))) > MOST_LAYERS:
        return f"is more than {MOST_LAYERS:,}"
    return None
