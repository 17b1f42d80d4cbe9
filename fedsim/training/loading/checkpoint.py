"""What a checkpoint must hold: every weight of its model, each of them a number; nothing is drawn at random in silence."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.errors import DataError, message
from fedsim.files.opened import FACTS_BYTES, UnreadableError, bytes_of, opened
from fedsim.files.text_file import shown
from fedsim.training.loading import safety

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

log = logging.getLogger(__name__)

COMPLETE = "write the folder again with save_pretrained, or give a complete one"
MOST_HEAD_BYTES = 100_000_000
"""Of a safetensors file, as the format says."""
SHOWN = 3
"""Names in one sentence."""


def check_loaded(model: Module, info: Mapping[str, Any], name: str) -> None:
    """Refuse a model of which some weights were not in its checkpoint, or are no numbers.

    Both libraries draw a weight at random where the checkpoint has none, each process its own. Weights that
    share memory with one that is there are not missing. What the checkpoint has besides is logged as a warning.

    Args:
        model: as loaded, on the CPU.
        info: what `from_pretrained` says with `output_loading_info`.
        name: of the model.

    Raises:
        DataError: names the weights.
    """
    shaped = {key: (tuple(stored), tuple(wanted)) for key, stored, wanted in info.get("mismatched_keys", ())}
    missing = [key for key in sorted(info.get("missing_keys", ())) if key not in shaped]
    if missing:
        what = f"the checkpoint lacks {_named(missing)}, which would be random"
        raise DataError(message("task.model", what, got=name, fix=COMPLETE))
    if shaped:
        key, (stored, wanted) = min(shaped.items())
        what = f"the checkpoint has {len(shaped)} weights of other shapes: {key} is {_shape(stored)}, not {_shape(wanted)}"
        fix = "give weights and config.json of one model"
        raise DataError(message("task.model", what, got=name, fix=fix))
    if unused := sorted(info.get("unexpected_keys", ())):
        log.warning("task.model: %s has %s, which its model does not use", name, _named(unused))
    check_finite(model.named_parameters(), name)


def check_finite(weights: Iterable[tuple[str, Tensor]], name: str) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        weights: (name, tensor).
        name: of the model.

    Raises:
        DataError: names the weights.
    """
    import torch

    spoilt = [
        key
        for key, weight in weights
        if weight.is_floating_point() and not weight.detach().sum(dtype=torch.float64).isfinite()
    ]
    if spoilt:
        what = f"the checkpoint has numbers that are not finite in {_named(spoilt)}"
        raise DataError(message("task.model", what, got=name, fix="give weights that are numbers"))


def check_names(model: Module, skeleton: Module, name: str) -> None:
    """Refuse a model whose weights are called otherwise than its configuration says, as with an adapter loaded into it.

    Raises:
        DataError: names one.
    """
    there, wanted = ({key for key, _ in m.named_parameters()} for m in (model, skeleton))
    if there != wanted:
        what = f"its weights are not those of its config.json (one is {min(there ^ wanted)})"
        fix = "give the plain model; an adapter must be merged into it first"
        raise DataError(message("task.model", what, got=name, fix=fix))


def check_files(folder: Path, kinds: tuple[str, str], name: str, fix: str) -> None:
    """Refuse a folder without weights, or one that lacks a file of its own list.

    Args:
        folder: where weights lie.
        kinds: patterns of files of weights: safetensors, and pickles, which are read if that is asked for only.
        name: of the model, for the message.
        fix: what to do if there are none.

    Raises:
        DataError: no weights, only pickles, a missing part, or a list that cannot be read.
    """
    tensors, pickles = (sorted(folder.glob(kind)) for kind in kinds)
    if not tensors and not pickles:
        raise DataError(message("task.model", "the folder holds no weights", got=name, fix=fix))
    if not tensors and not safety.pickles_allowed():
        raise safety.no_pickle(name, pickles[0].name)
    for path in (*tensors, *pickles):
        safety.refuse(path, None, "task.model", name)
    for index in sorted(folder.glob("*.index.json")):
        try:
            parts = set(json.loads(bytes_of(index, FACTS_BYTES))["weight_map"].values())
            if any(part != Path(part).name for part in parts):
                raise ValueError("a name leads out of the folder")
            lacking = sorted(part for part in parts if not (folder / part).is_file())
        except (UnreadableError, OSError, ValueError, LookupError, TypeError, AttributeError) as problem:
            what = f"{index.name} is no list of files ({type(problem).__name__})"
            raise DataError(message("task.model", what, got=name, fix=COMPLETE)) from problem
        if lacking:
            what = f"the folder lacks {_named(lacking)}, which {index.name} names"
            raise DataError(message("task.model", what, got=name, fix=COMPLETE))


def check_stored(folder: Path, name: str) -> None:
    """Refuse matrices that are stored as whole numbers or in 8 bits: without the scales beside them they mean something else.

    Raises:
        DataError: names the weights.
    """
    for file in sorted(folder.glob("*.safetensors")):
        coded = sorted(
            f"{key} ({stored.kind})"
            for key, stored in header(file).items()
            if key.endswith(".weight")
            and len(stored.shape) > 1
            and not stored.kind.startswith(("F16", "F32", "F64", "BF16"))
        )
        if coded:
            what = f"{file.name} holds coded weights: {_named(coded)}"
            fix = "give the weights in 16 or 32 bits, as before they were quantised (task.quantise does that here)"
            raise DataError(message("task.model", what, got=name, fix=fix))


@dataclass(frozen=True)
class Stored:
    """A tensor as the head of a safetensors file says it: its kind of number (`F32`, `BF16`, ...) and its shape."""

    kind: str
    shape: tuple[int, ...]


def header(file: Path) -> dict[str, Stored]:
    """Return name -> tensor of a safetensors file; empty of one that is damaged or not there, which loading says."""
    try:
        with opened(file) as stored:
            length = int.from_bytes(stored.read(8), "little")
            head = json.loads(stored.read(length)) if length <= MOST_HEAD_BYTES else {}
        return {k: Stored(str(v["dtype"]), tuple(v["shape"])) for k, v in head.items() if k != "__metadata__"}
    except (UnreadableError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(map(shown, keys[:SHOWN])) + more


def _shape(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides)) or "a number"
