"""What the contract suite is about: every rule and wire format by discovery, and short histories of a rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import get_args

import numpy as np

from fedsim.adapters.adapter import Layout, Tensor
from fedsim.aggregators._base import Contribution, Invitation
from fedsim.component import build, kinds
from fedsim.config.network import WireConfig
from fedsim.files.client_vectors import ClientVectors
from worlds.factors import LAYERS, SCALE, dense, slot_mask, some_model

OWN_RULE, OWN_PROTOCOL, OWN_SAMPLER = "my_rules:Median", "my_protocols:Relay", "my_samplers:Fair"
RULES = [*kinds("aggregators"), OWN_RULE]
IN_ORDER = {"mixing"}
"""Rules that take one client after the other, so the order matters by definition."""
MIXED = (4, 2, 3, 1)
EQUAL = (4, 4, 4, 4)
WHOLE_MODEL = Layout(tensors=(Tensor("x", (3, 4)), Tensor("y", (5,))))


def rule_of(kind):
    return build("aggregators", {"kind": kind})


def ranks_of(rule):
    return [EQUAL, MIXED] if rule.traits.unequal_ranks else [EQUAL]


def visited(rule, state, model, client, rank, *, version=0, now=0, move=None, seed=0):
    """What a client of some version brings to the commit that makes version `now` + 1, and its offer."""
    layout = model.adapter.layout
    offer = rule.offer(state, model, Invitation(client, 0, rank, SCALE, None))
    free = slot_mask(0, rank, offer.trains, layout) if layout.modules else True
    noise = np.random.default_rng([seed, client, version]).standard_normal(layout.size)
    end = np.where(free, offer.start + (noise if move is None else move), offer.start).astype(np.float32)
    came = Contribution(
        client=client,
        visit=0,
        start=offer.start,
        end=end,
        examples=client + 1.0,
        staleness=now - version,
        version=version,
        rank=rank,
        scale=SCALE,
        phase=offer.phase,
        base_version=0 if model.base is None else model.base.version,
        trains=offer.trains,
        base=model.base,
    )
    return came, offer


def applied(rule, state, model, came):
    return rule.apply(state, model, iter(came) if rule.one_pass else list(came))


def course(rule, ranks, *, commits=3, seed=0, first=None, stale=True):
    """Yield (state, model, contributions, offers) of some commits; the last client lags by one version."""
    model = some_model(seed) if first is None else first
    past = [(rule.init(model), model)]
    for now in range(commits):
        lag = [0] * (len(ranks) - 1) + [int(stale and now > 0 and rule.traits.stale)]
        visits = [
            visited(rule, *past[now - late], client, rank, version=now - late, now=now, seed=seed)
            for client, (rank, late) in enumerate(zip(ranks, lag, strict=True))
        ]
        came, offers = [c for c, _ in visits], [o for _, o in visits]
        yield *past[now], came, offers
        state, model = past[now]
        model, state = applied(rule, state, model, came)
        past.append((state, model))


def effect(model):
    """The change of every weight against the pretrained model, in float64: base + scale B A."""
    if not model.adapter.layout.modules:
        return model.adapter.vector.astype(np.float64)
    base = 0.0 if model.base is None else model.base.vector.astype(np.float64)
    return base + dense(model.adapter.vector)


def print_of(thing):
    """All arrays and plain values of a state, model, contribution or offer, to compare."""
    if isinstance(thing, np.ndarray):
        return (thing.dtype.str, thing.shape, thing.tobytes())
    if isinstance(thing, ClientVectors):
        return [print_of(thing.get(client)) for client in range(9)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, Layout):
        return [(f.name, print_of(getattr(thing, f.name))) for f in dataclasses.fields(thing)]
    if isinstance(thing, Mapping):
        return [(repr(key), print_of(value)) for key, value in thing.items()]
    if isinstance(thing, list | tuple):
        return [print_of(part) for part in thing]
    return repr(thing)


def at_home(c, offer):
    """What a client may train and does not send."""
    return slot_mask(0, c.rank, c.trains) & ~travels(offer.up)


def travels(payload):
    mask = np.zeros(LAYERS.size, bool)
    for name, array in LAYERS.arrays(mask).items():
        if payload.arrays is None or name in payload.arrays:
            array[tuple(map(slice, payload.shape(LAYERS, name)))] = True
    return mask


DTYPES = get_args(WireConfig.model_fields["dtype"].annotation)
WIRES = {
    **{dtype: WireConfig(dtype=dtype, down_dtype=dtype) for dtype in DTYPES},
    "top-k": WireConfig(top_k=0.25),
    "top-k with feedback": WireConfig(top_k=0.25, error_feedback=True),
    "int4, top-k, nearest": WireConfig(dtype="int4", top_k=0.4, rounding="nearest", down_dtype="bfloat16"),
}
