"""Clients that have the adapters of their last layers only: what of a rule's offer is theirs, and what they may move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Aggregator, Invitation, Offer, ServerModel
from fedsim.aggregators._returned import checked_offer
from fedsim.errors import RunError, message
from fedsim.jobs import Job


def offered(rule: Aggregator, state: object, model: ServerModel, invitation: Invitation) -> Offer:
    """Return what a rule offers a client, less what lies below its depth: that does not travel, and is zero in the start.

    Raises:
        RunError: it is no offer of this layout.
    """
    layout = model.adapter.layout
    offer = checked_offer(rule, rule.offer(state, model, invitation), layout)
    if not layout.below(invitation.depth):
        return offer
    start = model.adapter.above(offer.start, invitation.depth)
    down, up = (_upper(layout, payload, invitation.depth) for payload in (offer.down, offer.up))
    return replace(offer, start=start, down=down, up=up)


def _upper(layout: Layout, payload: Payload, depth: int | None) -> Payload:
    if payload.arrays is None:
        return replace(payload, arrays=layout.above(depth))
    return payload.without(layout, layout.below(depth))


def refuse_moved_below(layout: Layout, job: Job, end: Vector) -> None:
    """Check that a client left the layers below its depth alone, to the bit.

    Raises:
        RunError: it did not: it trained adapters that it does not have.
    """
    places = [layout.slices[name][0] for name in layout.below(job.depth)]
    if any(not np.array_equal(job.start[place], end[place]) for place in places):
        what = (
            f"client {job.client}, visit {job.visit} moved an adapter below its depth of {job.depth} layers"
        )
        raise RunError(message("lora.depth_by", what, fix="let the task's training honour `Job.depth`"))
