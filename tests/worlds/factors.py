"""Factors for tests of the rules: layers of three kinds, dense products in float64, clients that moved."""

from __future__ import annotations

import numpy as np

from fedsim.adapters.adapter import Adapter
from fedsim.aggregators._base import Contribution, Invitation, ServerModel
from fedsim.aggregators._staleness import Constant
from fedsim.testing.factors import LAYERS, RANK, SCALE, dense, slot_mask, some_model

__all__ = ["LAYERS", "RANK", "SCALE", "dense", "slot_mask", "some_model"]
FRESH = Constant()


def rng_of(seed):
    return np.random.default_rng(seed)


def parts(vector, which, layout=LAYERS):
    """All A, or all B, one after the other."""
    arrays = layout.arrays(np.asarray(vector))
    return np.concatenate([arrays[f"{m.name}.lora_{which}"].ravel() for m in layout.modules])


def model_of(vector, layout=LAYERS):
    return ServerModel(Adapter(layout, np.asarray(vector, np.float32)))


def visited(rule, state, model, client, *, rank=RANK, scale=SCALE, move=None, seed=0, **facts):
    """The contribution of a client that got the rule's offer and moved by `move` (default: at random)."""
    layout = model.adapter.layout
    offer = rule.offer(state, model, Invitation(client, 0, rank, scale, None))
    if move is None:
        move = rng_of([seed, client]).standard_normal(layout.size)
    free = slot_mask(0, rank, offer.trains, layout)
    end = np.where(free, offer.start + move, offer.start).astype(np.float32)
    return landed(offer.start, end, client=client, rank=rank, scale=scale, trains=offer.trains,
                  phase=offer.phase, **facts)  # fmt: skip


def landed(start, end, *, client=0, rank=RANK, scale=SCALE, weight=1.0, staleness=0, version=0, visit=0,
           phase="", trains="AB"):  # fmt: skip
    return Contribution(
        client=client, visit=visit, start=np.asarray(start, np.float32), end=np.asarray(end, np.float32),
        examples=weight, staleness=staleness, version=version, rank=rank, scale=scale, phase=phase, trains=trains,
    )  # fmt: skip


def after(rule, model, contributions, state=None):
    """The vector of the next version."""
    state = rule.init(model) if state is None else state
    return rule.apply(state, model, contributions)[0].adapter.vector
