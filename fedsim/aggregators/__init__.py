"""Rules: pure functions of (state, model, contributions); uses adapters and files of vectors.

A rule is a frozen component with `init`, `offer` and `apply`: its first state, what one client gets
and sends, and the next model. Sums run in a fixed order (client, then visit) with float64 accumulators.

Contributions come one at a time, as workers finish them, so that a round of 10,000 fits in memory:
a rule with `one_pass = True` gets an iterator and keeps none of them. Others get a list.
"""

from __future__ import annotations

from fedsim.adapters.payload import NOTHING, WHOLE, Payload
from fedsim.aggregators._base import Aggregator, Contribution, Invitation, Offer, ServerModel, Traits

SEAMS = (Aggregator,)
Ask = Invitation
"""The name that an invitation had before."""

__all__ = [
    "NOTHING",
    "WHOLE",
    "Aggregator",
    "Ask",
    "Contribution",
    "Invitation",
    "Offer",
    "Payload",
    "ServerModel",
    "Traits",
]
