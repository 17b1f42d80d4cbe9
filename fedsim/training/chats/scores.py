"""How good a model's answers are, token by token: the sums of a piece of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from fedsim.adapters.adapter import Vector
from fedsim.arrays import Ints
from fedsim.blame import described
from fedsim.training.backbone import Backbone, Stack
from fedsim.training.chats import stock
from fedsim.training.chats.batch import Batch
from fedsim.training.chats.sequences import Sequences
from fedsim.training.local import one_thread
from fedsim.training.lora import Trainee

CLOSE = 1e-3
"""Difference of losses that another mask of equal meaning explains in float32."""
CLOSE_HALF = 5e-2
"""The same in 16 bits."""
Grade = Callable[[Batch], tuple[Tensor, Tensor]]
"""A batch of one client -> losses and hits of all predicted tokens, (1, rows, T) each."""


def score(
    model: Backbone | Trainee, vector: Vector, rows: Sequences, most: int, base: Vector | None
) -> dict[str, float]:
    """Return nll [nats], tokens and hits of the learned tokens of all rows: summed loss, their number, those predicted right.

    Args:
        model: what scores.
        vector: the adapter.
        rows: examples.
        most: tokens in one pass.
        base: change of the frozen weights, or None.
    """
    grade = _by_backbone(model, vector, base) if isinstance(model, Backbone) else _stock(model, vector, base)
    nll = hits = 0.0
    with one_thread(), torch.no_grad():
        for batch in _batches(rows, most, model.device):
            losses, right = grade(batch)
            nll += float(losses[batch.learned].double().sum())
            hits += float(right[batch.learned].sum())
    return {"nll": nll, "tokens": float(rows.answers.sum()), "hits": hits}


def check_apart(model: Backbone | Trainee, vocabulary: int, name: str) -> None:
    """Refuse to pack for a model whose losses of an example depend on the one before it in its row.

    Raises:
        DataError: they do, or the model cannot be run on positions.
    """
    nothing = np.zeros(model.layout.size, dtype=np.float32)
    grade = (
        _by_backbone(model, nothing, None) if isinstance(model, Backbone) else _stock(model, nothing, None)
    )
    tokens = (torch.arange(1, 10, device=model.device) % vocabulary)[None, None]
    places = torch.tensor([[[0, 1, 2, 3, 0, 1, 2, 3]]], device=model.device)
    learned = torch.ones_like(places, dtype=torch.bool)
    try:
        with torch.no_grad():
            packed, _ = grade(Batch(tokens, learned, places))
            alone, _ = grade(Batch(tokens[..., 4:], learned[..., 4:]))
    except Exception as problem:  # whatever a model of others raises
        raise stock.mixes(name, f"it cannot be run on them ({described(problem)})") from problem
    close = CLOSE_HALF if alone.dtype in (torch.float16, torch.bfloat16) else CLOSE
    if not torch.allclose(packed[..., 4:], alone, rtol=close, atol=close):
        raise stock.mixes(name, "an example changes what is predicted of the next one")


def _batches(rows: Sequences, most: int, device: torch.device) -> Iterator[Batch]:
    """Yield all rows, those of about equal length together, as batches of one client."""
    order = np.argsort(rows.counts, kind="stable")
    for part in _cut(rows, order, most):
        grid = rows[part].grid()
        tokens, learned, places = (torch.from_numpy(array)[None].to(device) for array in grid)
        yield Batch(tokens, learned, places if rows.packed else None)


def _cut(rows: Sequences, order: Ints, most: int) -> Iterator[Ints]:
    """Cut rows, ascending in length, where their width changes or a pass would have more than `most` tokens."""
    widths = np.array([rows.width(int(n)) for n in rows.counts[order]])
    for part in np.split(order, np.flatnonzero(np.diff(widths)) + 1):
        step = max(1, most // rows.width(int(rows.counts[part[0]])))
        yield from (part[at : at + step] for at in range(0, len(part), step))


def _by_backbone(backbone: Backbone, vector: Vector, base: Vector | None) -> Grade:
    backbone.rebase(base)
    factors = torch.from_numpy(np.array(vector)[None]).to(backbone.device, backbone.dtype)
    scales = factors.new_tensor([m.scale for m in backbone.layout.modules])[None]
    return lambda batch: backbone.graded(Stack(factors, scales), batch)


def _stock(trainee: Trainee, vector: Vector, base: Vector | None) -> Grade:
    trainee.rebase(base)
    trainee.write(vector)

    def grade(batch: Batch) -> tuple[Tensor, Tensor]:
        places = None if batch.places is None else batch.places[0]
        losses, hits = stock.graded(trainee.model, batch.tokens[0], places)
        return losses[None], hits[None]

    return grade
