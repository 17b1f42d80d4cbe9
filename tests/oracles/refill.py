"""A slow second implementation of max-min sharing: at every event the link is filled anew from nothing."""

from __future__ import annotations

import math


def filled(caps, capacity):
    """Rates by progressive filling: all rise together until their cap, or until the link is full."""
    rates = dict.fromkeys(caps, 0.0)
    rising, spare = dict(caps), capacity
    while rising and spare > 0:
        step = min(min(rising.values()) - rates[next(iter(rising))], spare / len(rising))
        for flow in rising:
            rates[flow] += step
        spare -= step * len(rising)
        full = [flow for flow, cap in rising.items() if rates[flow] >= cap * (1 - 1e-15)]
        if not full:
            break
        for flow in full:
            rates[flow] = rising.pop(flow)
    return rates


def finishes(arrivals, capacity, changes=()):
    """Finish time of every flow, stepping from event to event with rates filled anew.

    Args:
        arrivals: (time, flow, size, cap).
        capacity: until the first change.
        changes: (time, what, value): `what` is a flow, whose cap changes, or None for the link. Those of flows
            that are not there are void; value None removes the flow.
    """
    events = sorted([(t, 0, flow, size, cap) for t, flow, size, cap in arrivals] + [(t, 1, *c) for t, *c in changes],
                    key=lambda e: e[:2])  # fmt: skip
    left, caps, done, now = {}, {}, {}, 0.0
    while events or left:
        rates = filled(caps, capacity)
        ends = {flow: now + left[flow] / rates[flow] if rates[flow] > 0 else math.inf for flow in left}
        first = min(ends.values(), default=math.inf)
        until = min(first, events[0][0] if events else math.inf)
        if math.isinf(until):
            break
        for flow in left:
            left[flow] -= rates[flow] * (until - now)
        now = until
        for flow in [flow for flow in left if ends[flow] <= now]:
            done[flow] = now
            del left[flow], caps[flow]
        while events and events[0][0] <= now:
            _, change, what, value, *cap = events.pop(0)
            if not change:
                left[what], caps[what] = value, cap[0]
            elif what is None:
                capacity = value
            elif what in caps and value is None:
                del left[what], caps[what]
            elif what in caps:
                caps[what] = value
    return done
