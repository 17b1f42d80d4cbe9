"""What goes out with a visit: kept beside it until its fate is final."""

from __future__ import annotations

from dataclasses import dataclass

from fedsim.adapters.adapter import Adapter, Vector
from fedsim.adapters.moved_base import Base
from fedsim.adapters.units import in_server_units
from fedsim.aggregators._base import Invitation, Offer
from fedsim.jobs import Job


@dataclass(frozen=True)
class Dispatched:
    """What a visit left with.

    Attributes:
        invitation, offer: whom the rule was asked about, and what it offered.
        shared_start: where the client starts as far as the server and the rule know: nothing private is in it.
        base: the frozen weights that it trains on, for the rule; the job has their change for the worker.
        job: its training, vectors as they are; `job.start` is where the client really starts, as the wire's
            coder must know: with what is private.
        common: whether many clients of this version start there.
    """

    invitation: Invitation
    offer: Offer
    shared_start: Vector
    base: Base | None
    job: Job
    common: bool


@dataclass(frozen=True)
class PolledModel:
    """What a poll asks about.

    Attributes:
        vector: the adapter whose loss is asked for, in the layout's scale.
        base: change of the frozen weights under it; None: none.
    """

    vector: Vector
    base: Vector | None


def counted(adapter: Adapter, start: Vector, invitation: Invitation, scale: float) -> Vector:
    """Return where a client starts as the server counts it: one array for all whose start is a cut of the shared model."""
    if invitation.scale == scale:
        return start
    if adapter.holds(start):
        return adapter.above(adapter.cut(invitation.rank), invitation.depth)
    return in_server_units(adapter.layout, start, invitation.scale)
