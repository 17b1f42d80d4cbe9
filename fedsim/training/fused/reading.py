"""What a written-out decoder reads: windows of text, or chats, whose losses are masked and whose examples are kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedsim.training.chats.batch import Batch, apart
from fedsim.training.fused.program import Pass


@dataclass(frozen=True)
class Reading:
    """Tokens of k clients, (k, rows, T + 1).

    Attributes:
        tokens: int64; the first column is context, the others are predicted.
        learned: bool (k, rows, T): which of those are in the loss; None: all.
        places: int64 (k, rows, T): of each token in its own example; None: rows are of one example.
        masked: whether some tokens are not in the loss.
    """

    tokens: Tensor
    learned: Tensor | None = None
    places: Tensor | None = None
    masked: bool = False

    @classmethod
    def of(cls, tokens: Tensor | Batch) -> Reading:
        """Return what a backbone is given."""
        if isinstance(tokens, Batch):
            return cls(tokens.tokens, tokens.learned, tokens.places, masked=True)
        return cls(tokens)

    def part(self, clients: slice, rows: slice) -> Reading:
        """Return some rows of some clients."""
        places = None if self.places is None else self.places[clients, rows]
        return Reading(self.tokens[clients, rows], places=places, masked=self.masked)

    def shares(self, weights: Tensor) -> Tensor:
        """Return what each token's loss is multiplied with, (k, rows, 1) or (k, rows, T); see `Backbone.gradients`."""
        if self.learned is None:
            return (weights / (self.tokens.shape[2] - 1))[:, :, None]
        return self.learned * weights[:, :, None]

    def loss(self, nll: Tensor, weights: Tensor) -> Tensor:
        """Return each client's loss (k,) from those of all its tokens."""
        if self.learned is None:
            return (nll.mean(-1) * weights).sum(-1)
        return (torch.where(self.learned, nll, 0).sum(-1) * weights).sum(-1)


def add_places(hidden: Tensor, table: Tensor, places: Tensor) -> None:
    """Add learned positions (positions, width) to embedded tokens (n, width), each that of its place."""
    hidden.add_(table.index_select(0, places.reshape(-1)))


def kept_apart(p: Pass) -> Pass:
    """Return a pass whose tokens see those of their own example only, and count their places in it.

    Mask (rows, 1, T, T) and rotations (rows, 1, T, head_dim / 2) then belong to the rows, and are made first of all.
    """
    rows, length = p.k * p.shape.rows, p.shape.length
    mask = p.mask.new_empty(rows, 1, length, length)
    turns = {
        name: (cos.new_empty(rows, 1, length, cos.shape[-1]), sin.new_empty(rows, 1, length, sin.shape[-1]))
        for name, (cos, sin) in p.rotations.items()
    }
    own = replace(p, mask=mask, rotations=turns)
    own.do(_write_mask, p.places.view(rows, length), p.mask, mask)
    for name, tables in p.rotations.items():
        for table, turned in zip(tables, turns[name], strict=True):
            own.do(_write_turns, p.places.view(rows, length), table, turned)
    return own


def _write_mask(places: Tensor, causal: Tensor, mask: Tensor) -> None:
    mask.copy_(apart(places, causal))


def _write_turns(places: Tensor, table: Tensor, turned: Tensor) -> None:
    turned.copy_(table[places][:, None])
