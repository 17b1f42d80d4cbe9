"""Chats through a Hugging Face model as it is: losses of answers, and whether packed examples are kept apart.

A row is filled up at its end, where no real token of a causal model sees it. Packed examples are told apart by their
positions, which begin again at 0: transformers makes the mask of them (`transformers.masking_utils`).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedsim.errors import DataError, message
from fedsim.training.chats.sequences import Sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNPACKED = "set task.pack: false"


def token_losses(model: PreTrainedModel, tokens: Tensor, places: Tensor | None) -> Tensor:
    """Return the negative log likelihood [nats] of the predicted tokens (n, T) of rows (n, T + 1), in float32 or wider."""
    wide = _logits(model, tokens, places)
    losses = torch.nn.functional.cross_entropy(wide.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return losses.view(wide.shape[:2])


def graded(model: PreTrainedModel, tokens: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the same losses, and whether each predicted token is the likeliest."""
    wide = _logits(model, tokens, places)
    losses = torch.nn.functional.cross_entropy(wide.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return losses.view(wide.shape[:2]), wide.argmax(-1) == tokens[:, 1:]


def answer_losses(model: PreTrainedModel, rows: Sequences, device: torch.device) -> Tensor:
    """Return the losses of all learned tokens of some rows, in one row of numbers."""
    grid = rows.grid()
    tokens, learned = (torch.from_numpy(part).to(device) for part in (grid.tokens, grid.learned))
    places = torch.from_numpy(grid.places).to(device) if rows.packed else None
    return token_losses(model, tokens, places)[learned]


def _logits(model: PreTrainedModel, tokens: Tensor, places: Tensor | None) -> Tensor:
    apart = {} if places is None else {"position_ids": places}
    logits: Tensor = model(input_ids=tokens[:, :-1], use_cache=False, **apart).logits
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_takes_places(model: PreTrainedModel) -> None:
    """Refuse to pack for a model that is not told positions; its weights are not needed.

    Raises:
        DataError: it would see the examples of a row as one.
    """
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        raise mixes(model.config.model_type, "it takes no positions")


def mixes(name: str, why: str) -> DataError:
    """Return the error of a model that cannot keep packed examples apart."""
    what = f"the model cannot keep packed examples apart: {why}"
    return DataError(message("task.pack", what, got=name, fix=UNPACKED))
