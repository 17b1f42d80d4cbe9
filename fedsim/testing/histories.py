"""Short histories of a rule: clients of unequal ranks get offers, move, and land, one of them a version late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout
from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Aggregator, Contribution, Invitation, Offer, ServerModel
from fedsim.testing.factors import SCALE, slot_mask, some_model

CLIENTS = 4


@dataclass(frozen=True)
class Commit:
    """What a rule is given for one commit.

    Attributes:
        number: commits before it.
        state, model: before it.
        contributions, offers: of its clients, in their order.
    """

    number: int
    state: Any
    model: ServerModel
    contributions: list[Contribution]
    offers: list[Offer]

    def still(self) -> list[Contribution]:
        """Return the contributions of clients that have not moved."""
        return [replace(c, end=c.start) for c in self.contributions]


def ranks_of(rule: Aggregator, layout: Layout) -> list[tuple[int, ...]]:
    """Return the ranks of a history's clients: all equal, and unequal ones if the rule takes them."""
    equal = (layout.rank,) * CLIENTS
    unequal = tuple(max(1, layout.rank - lacking) for lacking in (0, 2, 1, 3))
    return [equal, unequal] if rule.traits.unequal_ranks and layout.modules else [equal]


def applied(
    rule: Aggregator, commit: Commit, contributions: Sequence[Contribution] | None = None
) -> tuple[ServerModel, Any]:
    """Return the next model and state; an iterator goes to a rule that takes one."""
    taken = commit.contributions if contributions is None else contributions
    return rule.apply(commit.state, commit.model, iter(taken) if rule.one_pass else list(taken))


def history(
    rule: Aggregator,
    ranks: Sequence[int],
    first: ServerModel | None = None,
    *,
    commits: int = 3,
    seed: int = 0,
    stale: bool = True,
) -> Iterator[Commit]:
    """Yield the commits of a short run; the last client lags by one version if the rule takes such updates."""
    model = some_model(seed) if first is None else first
    past = [(rule.init(model), model)]
    for now in range(commits):
        lag = [0] * (len(ranks) - 1) + [int(stale and now > 0 and rule.traits.stale)]
        visits = [
            _visited(rule, *past[now - late], (client, rank), (now - late, now), seed)
            for client, (rank, late) in enumerate(zip(ranks, lag, strict=True))
        ]
        commit = Commit(now, *past[now], [c for c, _ in visits], [offer for _, offer in visits])
        yield commit
        model, state = applied(rule, commit)
        past.append((state, model))


def unmoved(rule: Aggregator, first: ServerModel, ranks: Sequence[int], commits: int = 12) -> ServerModel:
    """Return the model after commits in which nobody moves; clients have all slots and are asked for `ranks` of them."""
    model, state = first, rule.init(first)
    for _ in range(commits):
        still = [_still(rule, state, model, client, rank) for client, rank in enumerate(ranks)]
        model, state = rule.apply(state, model, iter(still) if rule.one_pass else still)
    return model


def _still(rule: Aggregator, state: Any, model: ServerModel, client: int, rank: int) -> Contribution:
    layout, version = model.adapter.layout, 0 if model.base is None else model.base.version
    scale = layout.modules[0].scale
    offer = rule.offer(state, model, Invitation(client, 0, rank, scale, None, layout.rank))
    return Contribution(
        client=client,
        visit=0,
        start=offer.start,
        end=offer.start,
        examples=client + 1.0,
        staleness=0,
        version=version,
        rank=rank,
        scale=scale,
        phase=offer.phase,
        base_version=version,
        trains=offer.trains,
        base=model.base,
        own_rank=layout.rank,
    )


def _visited(
    rule: Aggregator,
    state: Any,
    model: ServerModel,
    who: tuple[int, int],
    when: tuple[int, int],
    seed: int,
) -> tuple[Contribution, Offer]:
    """What a client (number, rank) of a version brings to a later commit (its version, the present one); its offer."""
    (client, rank), (version, now), layout = who, when, model.adapter.layout
    scale = layout.modules[0].scale if layout.modules else SCALE
    offer = rule.offer(state, model, Invitation(client, 0, rank, scale, None))
    free = slot_mask(0, rank, offer.trains, layout) if layout.modules else np.ones(layout.size, bool)
    noise = np.random.default_rng([seed, client, version]).standard_normal(layout.size)
    contribution = Contribution(
        client=client,
        visit=0,
        start=offer.start,
        end=np.where(free, offer.start + noise, offer.start).astype(np.float32),
        examples=client + 1.0,
        staleness=now - version,
        version=version,
        rank=rank,
        scale=scale,
        phase=offer.phase,
        base_version=0 if model.base is None else model.base.version,
        trains=offer.trains,
        base=model.base,
    )
    return contribution, offer


def travels(payload: Payload, layout: Layout) -> NDArray[np.bool_]:
    """Return which numbers of a vector a payload carries."""
    mask = np.zeros(layout.size, bool)
    for name, array in layout.arrays(mask).items():
        if payload.arrays is None or name in payload.arrays:
            array[tuple(map(slice, payload.shape(layout, name)))] = True
    return mask


def at_home(contribution: Contribution, offer: Offer, layout: Layout) -> NDArray[np.bool_]:
    """Return which numbers a client may train and does not send."""
    return slot_mask(0, contribution.rank, contribution.trains, layout) & ~travels(offer.up, layout)
