"""What every aggregation rule owes the server, the wire and its clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from fedsim.adapters.adapter import Adapter, Layout, Vector
from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Aggregator, Contribution, Invitation, Offer, ServerModel
from fedsim.component import Component, placed
from fedsim.config.network import WireConfig
from fedsim.network.base import Direction
from fedsim.network.messages import bytes_of, decode, encode
from fedsim.rng import stream
from fedsim.testing.depths import moves_layers_by_those_that_trained_them
from fedsim.testing.factors import LAYERS, WHOLE_MODEL, dense, effect, slot_mask, some_model
from fedsim.testing.histories import Commit, applied, at_home, history, ranks_of, travels, unmoved
from fedsim.testing.words import fingerprint, hold, is_vector, name_of

NEAR = 1e-4
"""Largest difference of two models that are the same but for the order of their sums."""
WIRES = {
    **{dtype: WireConfig(dtype=dtype, down_dtype=dtype) for dtype in get_args(WireConfig.model_fields["dtype"].annotation)},
    "top-k": WireConfig(top_k=0.25),
    "top-k of every tensor": WireConfig(top_k=0.25, top_k_by="tensor"),
    "top-k with feedback": WireConfig(top_k=0.25, error_feedback=True),
    "int4, top-k, nearest": WireConfig(dtype="int4", top_k=0.4, rounding="nearest", down_dtype="bfloat16"),
}  # fmt: skip
"""Every number format, and sparse updates."""


@dataclass(frozen=True)
class Subject:
    """A rule under test.

    Attributes:
        rule: as its seam knows it.
        layout: of the models that it is tried on, all modules of one scale.
        in_order: whether it takes one client after the other, so that their order matters by definition.
    """

    rule: Aggregator
    layout: Layout = LAYERS
    in_order: bool = False

    @property
    def name(self) -> str:
        """How a sentence names it."""
        return name_of(self.rule)

    def commits(self, *, b: bool = True, seed: int = 0, stale: bool = True) -> Iterator[Commit]:
        """Yield the commits of a history for every choice of ranks that the rule takes."""
        for ranks in ranks_of(self.rule, self.layout):
            first = some_model(seed, b=b, layout=self.layout)
            yield from history(self.rule, ranks, first, seed=seed, stale=stale)


def subject_of(rule: Component, layout: Layout = LAYERS, *, in_order: bool = False) -> Subject:
    """Return a rule as it is tried: with the defaults of its seam.

    Raises:
        TypeError: the component is no aggregator.
    """
    component = placed("aggregators", rule)
    if not isinstance(component, Aggregator):
        raise TypeError(f"{name_of(rule)} is no aggregator")
    return Subject(component, layout, in_order)


def check_aggregator(rule: Component, layout: Layout = LAYERS, *, in_order: bool = False) -> None:
    """Try a rule on short histories of four clients.

    Args:
        rule: with the hyperparameters to try; a claim of `traits.exact` is held for these.
        layout: of the adapter, all modules of one scale; by default a Linear, a Conv1D and a Conv2d.
        in_order: it takes one client after the other, so that their order matters by definition.

    Raises:
        AssertionError: a sentence that names the property.
    """
    subject = subject_of(rule, layout, in_order=in_order)
    for check in CHECKS:
        check(subject)
    moves_layers_by_those_that_trained_them(subject.rule, layout)


def changes_nothing_and_answers_alike(subject: Subject) -> None:
    """`apply` is a function: it leaves what it is given, and gives the same for the same."""
    for commit in subject.commits():
        before = fingerprint([commit.state, commit.model, commit.contributions])
        first, again = (fingerprint(applied(subject.rule, commit)) for _ in range(2))
        hold(first == again, f"{subject.name}.apply gives two models for the same contributions")
        after = fingerprint([commit.state, commit.model, commit.contributions])
        hold(after == before, f"{subject.name}.apply changes what it is given")


def does_not_depend_on_the_order(subject: Subject) -> None:
    """The order of the contributions does not matter, unless the rule takes one after the other."""
    for commit in subject.commits():
        forth = effect(applied(subject.rule, commit)[0])
        back = effect(applied(subject.rule, commit, commit.contributions[::-1])[0])
        same = np.allclose(back, forth, rtol=NEAR, atol=NEAR)
        if subject.in_order:
            hold(not same, f"{subject.name} is said to take clients in order, and no order matters to it")
        else:
            hold(same, f"{subject.name}.apply depends on the order of the contributions")


def keeps_the_shape(subject: Subject) -> None:
    """A model keeps its layout and its type, and its base moves once a commit or never, as `traits` says."""
    for commit in subject.commits():
        after, _ = applied(subject.rule, commit)
        vector, moves = after.adapter.vector, subject.rule.traits.moves_base
        is_shaped = is_vector(vector, subject.layout.size)
        hold(
            is_shaped, f"{subject.name}.apply gives {vector.dtype} {vector.shape}, not float32 of the layout"
        )
        hold(np.isfinite(vector).all(), f"{subject.name}.apply gives numbers that are not finite")
        hold(after.adapter.layout is commit.model.adapter.layout, f"{subject.name}.apply changes the layout")
        version = 0 if after.base is None else after.base.version
        expected = commit.number + 1 if moves else 0
        what = f"has a base of version {version} after {commit.number + 1} commits, its traits say {expected}"
        hold(version == expected, f"{subject.name} {what}")


def leaves_the_model_if_nobody_moved(subject: Subject) -> None:
    """Contributions that end where they started change no weight."""
    for commit in history(
        subject.rule,
        ranks_of(subject.rule, subject.layout)[0],
        some_model(layout=subject.layout),
        stale=False,
    ):
        after, _ = applied(subject.rule, commit, commit.still())
        same = np.allclose(effect(after), effect(commit.model), rtol=NEAR, atol=NEAR)
        hold(same, f"{subject.name}.apply changes the model although nobody moved")


def takes_nothing_for_slots_that_were_not_asked_for(subject: Subject) -> None:
    """Twelve commits in which nobody moves leave the model, also where clients were asked for fewer slots than they have."""
    for ranks in ranks_of(subject.rule, subject.layout):
        first = some_model(layout=subject.layout)
        after = effect(unmoved(subject.rule, first, ranks))
        same = np.allclose(after, effect(first), rtol=NEAR, atol=NEAR)
        what = f"changes the model although nobody moved, when clients train {list(ranks)} of their slots"
        hold(same, f"{subject.name}.apply {what}")


def product_error(subject: Subject) -> list[float]:
    """Return, commit by commit, how far the model's product is from the weighted mean of the clients', relatively."""
    errors, scale = [], subject.layout.modules[0].scale
    for commit in subject.commits(b=False, stale=False):
        whole = sum(c.examples for c in commit.contributions)
        ends = [c.examples / whole * dense(c.end, scale, subject.layout) for c in commit.contributions]
        base = 0.0 if commit.model.base is None else commit.model.base.vector.astype(np.float64)
        mean = base + np.sum(ends, axis=0)
        off = np.abs(effect(applied(subject.rule, commit)[0]) - mean).max()
        errors.append(float(off / np.abs(mean).max()))
    return errors


def is_exact_if_it_says_so(subject: Subject) -> None:
    """With `traits.exact` the product of the new model is the weighted mean of the clients' products."""
    if subject.rule.traits.exact:
        error = max(product_error(subject))
        what = f"says that it is exact, and is {error:.1%} off the weighted mean of the products"
        hold(error < NEAR, f"{subject.name} {what}")


def offers_are_pure(subject: Subject) -> None:
    """`offer` is a function, and a client starts in its own slots whatever it has seen last."""
    for commit in subject.commits():
        before = fingerprint([commit.state, commit.model])
        for c in commit.contributions:
            offers = [
                subject.rule.offer(commit.state, commit.model, Invitation(c.client, 0, c.rank, c.scale, seen))
                for seen in (None, c.version)
            ]
            starts = [fingerprint(offer.start) for offer in offers]
            hold(
                starts[0] == starts[1], f"{subject.name}.offer starts a client elsewhere by what it saw last"
            )
            for offer in offers:
                _holds_its_slots(subject, c, offer)
        same = fingerprint([commit.state, commit.model]) == before
        hold(same, f"{subject.name}.offer changes the state or the model")


def _holds_its_slots(subject: Subject, c: Contribution, offer: Offer) -> None:
    layout, name = subject.layout, subject.name
    is_shaped = is_vector(offer.start, layout.size)
    hold(is_shaped, f"{name}.offer starts a client with {offer.start.dtype} {offer.start.shape}")
    beyond = offer.start[slot_mask(c.rank, layout=layout)]
    hold(not beyond.any(), f"{name}.offer fills slots that a client of rank {c.rank} does not have")
    for payload in (offer.down, offer.up):
        unknown = set(payload.arrays or ()) - set(layout.slices)
        hold(not unknown, f"{name}.offer sends {', '.join(sorted(unknown))}, which the layout does not have")
        hold(payload.floats(layout) >= 0, f"{name}.offer sends less than nothing")


def bytes_do_not_depend_on_values(subject: Subject) -> None:
    """What travels follows from ranks, versions and phases: a timeline without training needs to know it."""
    sent = [
        [(o.down, o.up, o.trains, o.phase) for commit in subject.commits(seed=seed) for o in commit.offers]
        for seed in (1, 2)
    ]
    hold(sent[0] == sent[1], f"{subject.name}.offer lets the values of the model decide what travels")


def what_stays_at_home_is_not_used(subject: Subject) -> None:
    """What a client trains and does not send does not reach the shared model."""
    for commit in subject.commits():
        secret = [
            replace(
                c, end=np.where(at_home(c, offer, subject.layout), c.end + 100.0, c.end).astype(np.float32)
            )
            for c, offer in zip(commit.contributions, commit.offers, strict=True)
        ]
        plain, other = (applied(subject.rule, commit, given)[0] for given in (commit.contributions, secret))
        same = fingerprint([plain.adapter.vector, plain.base]) == fingerprint(
            [other.adapter.vector, other.base]
        )
        hold(same, f"{subject.name}.apply uses what its clients do not send")


def keeps_parts_for_clients_if_it_says_so(subject: Subject) -> None:
    """A client has a model of its own after a commit if, and only if, `traits.personal` says so."""
    *_, commit = subject.commits()
    after, _ = applied(subject.rule, commit)
    own = subject.rule.client_model(after, commit.contributions[0].client) is not None
    says, is_so = subject.rule.traits.personal, "keeps" if own else "keeps no"
    hold(own == says, f"{subject.name} {is_so} models for its clients, its traits say personal={says}")


def whole_models_are_averaged_if_it_says_so(subject: Subject) -> None:
    """With `traits.full_model` the same holds for a model that is trained whole."""
    rule, name = subject.rule, subject.name
    if not rule.traits.full_model:
        return
    first = ServerModel(Adapter(WHOLE_MODEL, np.arange(WHOLE_MODEL.size, dtype=np.float32)))
    for commit in history(rule, (0, 0, 0), first, stale=False):
        before = fingerprint([commit.state, commit.model, commit.contributions])
        after, still = (applied(rule, commit, c)[0] for c in (commit.contributions, commit.still()))
        hold(
            after.adapter.vector.dtype == np.float32, f"{name}.apply gives a whole model that is not float32"
        )
        same = fingerprint([commit.state, commit.model, commit.contributions]) == before
        hold(same, f"{name}.apply changes what it is given of a whole model")
        sent = {offer.up.floats(WHOLE_MODEL) for offer in commit.offers}
        hold(sent <= {0, WHOLE_MODEL.size}, f"{name}.offer sends a part of a whole model")
        unmoved = np.allclose(effect(still), effect(commit.model), rtol=1e-5)
        hold(unmoved, f"{name}.apply changes a whole model although nobody moved")


def payloads_are_the_bytes_they_count(subject: Subject) -> None:
    """Whatever it offers can be encoded in every format, in as many bytes as the clock charges, and arrives."""
    for wire in WIRES.values():
        for commit in subject.commits():
            for c, offer in zip(commit.contributions, commit.offers, strict=True):
                _arrives(subject, wire, c, offer)


def _arrives(subject: Subject, wire: WireConfig, c: Contribution, offer: Offer) -> None:
    layout = subject.layout
    messages: tuple[tuple[Direction, Payload, Vector], ...] = (
        ("down", offer.down, offer.start),
        ("up", offer.up, c.end - c.start),
    )
    for direction, payload, vector in messages:
        message = encode(wire, layout, payload, direction, vector, stream(0, "check", c.client))
        counted = bytes_of(wire, layout, payload, direction)
        is_counted = len(message) + 4 * payload.extra_floats == counted
        hold(is_counted, f"a message of {subject.name} has {len(message)} bytes, {counted} are counted")
        arrived = decode(wire, layout, payload, direction, message)
        if wire == WIRES["float32"]:
            expected = np.where(travels(payload, layout), vector, 0.0)
            hold(np.array_equal(arrived, expected), f"a message of {subject.name} is not what was sent")


CHECKS = (
    changes_nothing_and_answers_alike,
    does_not_depend_on_the_order,
    keeps_the_shape,
    leaves_the_model_if_nobody_moved,
    takes_nothing_for_slots_that_were_not_asked_for,
    is_exact_if_it_says_so,
    offers_are_pure,
    bytes_do_not_depend_on_values,
    what_stays_at_home_is_not_used,
    keeps_parts_for_clients_if_it_says_so,
    whole_models_are_averaged_if_it_says_so,
    payloads_are_the_bytes_they_count,
)
"""Every property that `check_aggregator` holds, in its order."""
