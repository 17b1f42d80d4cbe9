"""One batch of chats as a backbone is given it: tokens, which of them are learned, and which see each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of k clients, filled up to one length.

    Attributes:
        tokens: int64 (k, rows, T + 1); what fills a row is at its end.
        learned: bool (k, rows, T): which of the predicted tokens are in the loss.
        places: int64 (k, rows, T), the place of a token in its own example, where rows are of several; None: of one each.
    """

    tokens: Tensor
    learned: Tensor
    places: Tensor | None = None

    @property
    def flat(self) -> tuple[Tensor, Tensor | None]:
        """Tokens (k rows, T + 1) and places (k rows, T) of all clients, one after the other."""
        return self.tokens.flatten(0, 1), None if self.places is None else self.places.flatten(0, 1)


def segments(places: Tensor) -> Tensor:
    """Return the number of the example that each token of a row is of, (..., T)."""
    return (places == 0).cumsum(-1)


def apart(places: Tensor, causal: Tensor) -> Tensor:
    """Return the mask (..., 1, T, T) that is `causal` (T, T) within an example and minus infinity between two."""
    number = segments(places)
    same = number[..., :, None] == number[..., None, :]
    return torch.where(same, causal, -torch.inf)[..., None, :, :]
