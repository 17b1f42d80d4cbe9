"""What a rule owes clients that have adapters in their last layers only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout
from fedsim.aggregators._base import Aggregator, Contribution, Invitation
from fedsim.aggregators._depth import offered
from fedsim.testing.factors import dense, some_model
from fedsim.testing.words import hold, name_of

NEAR = 1e-4
"""Largest difference of two products that are the same but for rounding."""


def moves_layers_by_those_that_trained_them(rule: Aggregator, layout: Layout) -> None:
    """With `traits.unequal_depths` a client of depth 1 changes nothing below the last layer, alone and beside a deeper one.

    Raises:
        AssertionError: it does.
    """
    if not rule.traits.unequal_depths or len(layout.blocks) < 2:
        return
    model = some_model(layout=layout)
    state, scale = rule.init(model), layout.modules[0].scale

    def visited(client: int, depth: int | None) -> Contribution:
        offer = offered(rule, state, model, Invitation(client, 0, layout.rank, scale, None, depth=depth))
        move = np.random.default_rng([11, client]).standard_normal(layout.size)
        free = layout.slots(None, offer.trains, depth)
        end = np.where(free, offer.start + move, offer.start).astype(np.float32)
        one = Contribution(client, 0, offer.start, end, client + 1.0, 0, 0, layout.rank, scale)
        return replace(one, phase=offer.phase, trains=offer.trains, depth=depth)

    def below(contributions: list[Contribution]) -> NDArray[np.float64]:
        taken = iter(contributions) if rule.one_pass else contributions
        after = rule.apply(state, model, taken)[0].adapter.vector
        lower = np.where(layout.slots(depth=1), np.float32(0), after)
        return dense(lower, scale, layout)

    before = dense(np.where(layout.slots(depth=1), np.float32(0), model.adapter.vector), scale, layout)
    what = f"{name_of(rule)}.apply moves layers by a client that has no adapters there"
    hold(np.allclose(below([visited(0, 1)]), before, rtol=NEAR, atol=NEAR), what)
    if not rule.traits.personal:
        deep = visited(1, None)
        alone, together = below([deep]), below([visited(0, 1), deep])
        hold(np.allclose(alone, together, rtol=NEAR, atol=NEAR), what)
