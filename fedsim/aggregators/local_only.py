"""Local only: nobody shares anything; the baseline of every federation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Literal

from fedsim.adapters.payload import NOTHING
from fedsim.aggregators._base import Aggregator, Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import kept_by, start


class LocalOnly(Aggregator):
    """Each client goes on from its own last adapter; nothing is downloaded or uploaded.

    The shared adapter stays at version 0. Use it with `buffered` and `buffer: 1`, so that a
    client's own result is there before its next visit. Scores are means over the clients' own
    adapters, which are kept in the server's scale. Slots that a client has not trained yet are those of version 0.
    """

    traits: ClassVar[Traits] = Traits(
        exact=False,
        unequal_ranks=True,
        unequal_depths=True,
        personal=True,
        optimizer=False,
        compressible=False,
        full_model=True,
        history=False,
        beside=True,
        unequal_modules=True,
    )
    one_pass: ClassVar[bool] = True
    kind: Literal["local-only"] = "local-only"

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return a model that remembers each contributor's own end."""
        personal, layout = model.personal, model.adapter.layout
        for c in contributions:
            before = personal.get(c.client)
            kept = kept_by(layout, c, model.adapter.vector if before is None else before)
            personal = personal.including({c.client: kept})
        return replace(model, personal=personal), state

    def offer(self, state: Any, model: ServerModel, invitation: Invitation) -> Offer:
        """Return the client's own adapter; nothing is sent."""
        vector = model.personal.get(invitation.client)
        adapter = model.adapter if vector is None else model.adapter.replace(vector)
        return Offer(start(adapter, invitation), NOTHING, NOTHING)
