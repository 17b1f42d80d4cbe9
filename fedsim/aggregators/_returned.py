"""What a rule returns, held against what its methods promise; a user's class is blamed by name, file and line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np

from fedsim.adapters.adapter import Layout, Trains, Vector
from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Aggregator, Offer
from fedsim.blame import is_users, name_of, place_of
from fedsim.errors import RunError, message


def wrong(component: object, method: str, what: str, got: object, fix: str) -> RunError:
    """Return the error that a method of a component has returned something else than it promises."""
    shown = list(got)[:20] if isinstance(got, Sequence) and not isinstance(got, str) else got
    text = f"`{name_of(component)}.{method}` {what}"
    return RunError(message(place_of(component, method), text, got=shown, fix=fix))


def checked_vector(component: object, method: str, name: str, vector: object, size: int) -> Vector:
    """Return a float32 vector of the layout's size.

    Raises:
        RunError: it is something else.
    """
    if not isinstance(vector, np.ndarray | np.generic):
        told = f"returned {name} of type {type(vector).__name__}, the layout needs shape ({size},)"
    elif not isinstance(vector, np.ndarray) or vector.shape != (size,):
        told = f"returned {name} of shape {vector.shape}, the layout needs ({size},)"
    elif vector.dtype != np.float32:
        told = f"returned {name} of {vector.dtype} numbers, not float32"
    else:
        return vector
    fix = "return a float32 vector like `model.adapter.vector`: `.astype(np.float32)`"
    what = f"`{name_of(component)}.{method}` {told}"
    raise RunError(message(place_of(component, method), what, fix=fix))


def checked_offer(rule: Aggregator, offer: object, layout: Layout) -> Offer:
    """Return what a rule offers a client.

    Raises:
        RunError: it is no `Offer`, its start is no adapter of this layout, or it sends or trains what there is not.
    """
    if not isinstance(offer, Offer):
        raise wrong(rule, "offer", "returned no Offer", offer, "return fedsim.aggregators.Offer(...)")
    if is_users(rule):
        checked_vector(rule, "offer", "a start", offer.start, layout.size)
        for way, payload in (("down", offer.down), ("up", offer.up)):
            _check_payload(rule, way, payload, layout)
        if offer.trains not in get_args(Trains):
            fix = "give trains='AB', 'A' or 'B'"
            raise wrong(rule, "offer", "returned an offer that trains no factors", offer.trains, fix)
    return offer


def _check_payload(rule: Aggregator, way: str, payload: object, layout: Layout) -> None:
    if not isinstance(payload, Payload):
        what = f"returned an offer whose `{way}` is no Payload"
        raise wrong(rule, "offer", what, payload, "give WHOLE, NOTHING or Payload(...) of fedsim.aggregators")
    arrays: object = payload.arrays
    if arrays is not None and not isinstance(arrays, tuple | list):
        fix = "give names of `model.adapter.layout.slices`, in a tuple"
        raise wrong(rule, "offer", f"returned an offer whose `{way}` has no names of arrays", arrays, fix)
    for name in arrays or ():
        if name not in layout.slices:
            what = f"returned an offer whose `{way}` has an array that the layout does not have"
            raise wrong(rule, "offer", what, name, f"give some of {', '.join(list(layout.slices)[:4])}")
    for name, number, least in (("rank", payload.rank, 1), ("extra_floats", payload.extra_floats, 0)):
        if number is not None and not (isinstance(number, int | np.integer) and number >= least):
            what = f"returned an offer whose `{way}` has no {name} of at least {least}"
            raise wrong(rule, "offer", what, number, f"give a whole number, {least} at least")


def checked_flops(rule: Aggregator, flops: object) -> float:
    """Return the operations that a rule says a commit takes.

    Raises:
        RunError: they are no finite number of at least 0.
    """
    number = isinstance(flops, int | float | np.number) and not isinstance(flops, bool)
    if not number or not 0 <= float(flops) < math.inf:  # type: ignore[arg-type]
        raise wrong(rule, "commit_flops", "returned no number of operations", flops, "return 0.0 or more")
    return float(flops)  # type: ignore[arg-type]


def checked_rule(rule: Aggregator, suited: object) -> Aggregator:
    """Return the rule that `suited` has made of itself.

    Raises:
        RunError: it is none of the same class.
    """
    if not isinstance(suited, type(rule)):
        fix = "return `self`, or `self.model_copy(update=...)`"
        raise wrong(rule, "suited", "returned no rule of its own class", suited, fix)
    return suited
