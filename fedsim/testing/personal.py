"""What every kind of personalisation owes the server: what is private stays, and nothing it is given is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Module, Vector
from fedsim.adapters.payload import WHOLE, Payload
from fedsim.aggregators._base import Offer
from fedsim.component import Component, placed
from fedsim.config.learning import LocalConfig
from fedsim.jobs import Job
from fedsim.personal._base import Home, Personal
from fedsim.personal.folding import Fold
from fedsim.testing.histories import travels
from fedsim.testing.words import fingerprint, hold, name_of

BLOCKS = Layout(
    modules=(
        Module("h.0.up", 2, (2, 3), (4, 2), 0.5),
        Module("h.1.up", 2, (2, 4), (3, 2), 0.5),
        Module("h.2.up", 2, (2, 5), (5, 2), 0.5),
    )
)
"""Three blocks of a decoder, as a kind needs them that keeps the last ones."""
LOCAL = LocalConfig(optimizer="sgd", lr=0.1, steps=3)


def check_personal(personal: Component, layout: Layout = BLOCKS) -> None:
    """Try the hooks of a kind on one client.

    Args:
        personal: with the hyperparameters to try.
        layout: of the adapter.

    Raises:
        AssertionError: a sentence that names the property.
        TypeError: the component is no personalisation.
    """
    component = placed("personal", personal)
    if not isinstance(component, Personal):
        raise TypeError(f"{name_of(personal)} is no personalisation")
    home = Home(layout, _vector(layout, 0), Fold())
    private_parts_do_not_travel(component, home)
    private_parts_come_back(component, home)
    trainings_are_pure(component, home)
    second_trainings_say_that_they_are_there(component, home)


def _vector(layout: Layout, seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(layout.size).astype(np.float32)


def _mask(home: Home, names: tuple[str, ...]) -> NDArray[np.bool_]:
    return travels(Payload(arrays=names), home.layout) if names else np.zeros(home.layout.size, np.bool_)


def private_parts_do_not_travel(personal: Personal, home: Home) -> None:
    """Private arrays are arrays of the layout, not all of them, and in no payload; the rest travels as before."""
    name, private = name_of(personal), personal.private(home.layout)
    unknown = sorted(set(private) - set(home.layout.slices))
    hold(not unknown, f"{name}.private names {', '.join(unknown)}, which the layout does not have")
    hold(set(private) != set(home.layout.slices), f"{name}.private leaves nothing that travels")
    offer = Offer(_vector(home.layout, 1), WHOLE, WHOLE)
    changed, mask = personal.offer(home, offer), _mask(home, private)
    for payload in (changed.down, changed.up):
        sent = travels(payload, home.layout)
        hold(not (sent & mask).any(), f"{name}.offer sends what is private")
        hold((sent | mask).all(), f"{name}.offer leaves out what is not private")


def private_parts_come_back(personal: Personal, home: Home) -> None:
    """`composed` puts back what `keeps` took out, and changes nothing else."""
    name, private = name_of(personal), personal.private(home.layout)
    mine, theirs = _vector(home.layout, 2), _vector(home.layout, 3)
    before = fingerprint([mine, theirs])
    own = personal.keeps(home, mine)
    hold((own is not None) == bool(private), f"{name}.keeps and {name}.private do not agree")
    if private:
        expected = np.where(_mask(home, private), mine, theirs)
        composed = personal.composed(home, theirs, own)
        hold(
            np.array_equal(composed, expected),
            f"{name}.composed is not the shared vector with the client's own parts",
        )
    hold(fingerprint([mine, theirs]) == before, f"{name} changes the vectors it is given")


def _own(personal: Personal, home: Home) -> list[Vector | None]:
    """What a client may have kept: nothing yet, or the parts or the adapter of its last visit."""
    last = _vector(home.layout, 4)
    return [None, personal.keeps(home, last) if personal.private(home.layout) else last]


def trainings_are_pure(personal: Personal, home: Home) -> None:
    """`beside`, `after` and `model` give the same again and leave job and vectors as they are."""
    name, job = name_of(personal), Job(0, 1, _vector(home.layout, 5), LOCAL, seed=0)
    for own in _own(personal, home):
        given = fingerprint([job, own])
        for hook in ("beside", "after"):
            method = {"beside": personal.beside, "after": personal.after}[hook]
            first, again = (fingerprint(method(home, job, own)) for _ in range(2))
            hold(first == again, f"{name}.{hook} answers otherwise when it is asked again")
        used = [personal.model(home, job, own, end) for end in (None, _vector(home.layout, 6))]
        for model in used:
            hold(model.vector.shape == (home.layout.size,), f"{name}.model gives a vector of another size")
        hold(fingerprint([job, own]) == given, f"{name} changes the job or what the client keeps")


def second_trainings_say_that_they_are_there(personal: Personal, home: Home) -> None:
    """A second training in a visit is there if, and only if, `alongside` says so: the clock charges by that."""
    job = replace(Job(0, 1, _vector(home.layout, 5), LOCAL, seed=0))
    second = personal.beside(home, job, None) is not None
    says = personal.alongside(LOCAL) is not None
    what = "trains a second time in a visit" if second else "has no second training in a visit"
    hold(second == says, f"{name_of(personal)} {what}, its `alongside` says otherwise")
