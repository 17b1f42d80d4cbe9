"""Factors for tests of the rules: layers of three kinds, dense products in float64, clients that moved."""

from __future__ import annotations

import numpy as np

from fedsim.adapters.adapter import Adapter, Layout, Module
from fedsim.aggregators._base import Contribution, Invitation, ServerModel
from fedsim.aggregators._staleness import Constant

RANK, SCALE = 4, 2.0
LAYERS = Layout(
    modules=(
        Module("linear", RANK, (RANK, 5), (7, RANK), SCALE),
        Module("conv1d", RANK, (RANK, 6), (3, RANK), SCALE),
        Module("conv2d", RANK, (RANK, 2, 3, 2), (5, RANK, 1, 1), SCALE),
    )
)
"""A non-square Linear and Conv1D, and a Conv2d with a kernel of 3 x 2."""
FRESH = Constant()


def rng_of(seed):
    return np.random.default_rng(seed)


def dense(vector, scale=SCALE, layout=LAYERS):
    """The update of every weight, scale * B A, written out index by index (no shared code with the rules)."""
    arrays = {name: array.astype(np.float64) for name, array in layout.arrays(np.asarray(vector)).items()}
    found = []
    for m in layout.modules:
        a, b = arrays[f"{m.name}.lora_A"], arrays[f"{m.name}.lora_B"]
        if a.ndim == 4:
            found.append(scale * np.einsum("orxy,rihw->oihw", b, a).ravel())
        else:
            found.append(scale * np.einsum("or,ri->oi", b, a).ravel())
    return np.concatenate(found)


def parts(vector, which, layout=LAYERS):
    """All A, or all B, one after the other."""
    arrays = layout.arrays(np.asarray(vector))
    return np.concatenate([arrays[f"{m.name}.lora_{which}"].ravel() for m in layout.modules])


def slot_mask(first, stop=None, which="AB", layout=LAYERS):
    """Which numbers of a vector lie in the slots from `first` to `stop`, by the shapes alone."""
    mask = np.zeros(layout.size, bool)
    arrays = layout.arrays(mask)
    for m in layout.modules:
        if "A" in which:
            arrays[f"{m.name}.lora_A"][first:stop] = True
        if "B" in which:
            arrays[f"{m.name}.lora_B"][:, first:stop] = True
    return mask


def model_of(vector, layout=LAYERS):
    return ServerModel(Adapter(layout, np.asarray(vector, np.float32)))


def some_model(seed=0, b=True):
    """A model with random factors, or B = 0 as LoRA begins."""
    vector = rng_of([7, seed]).standard_normal(LAYERS.size).astype(np.float32)
    if not b:
        vector[slot_mask(0, which="B")] = 0
    return model_of(vector)


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
