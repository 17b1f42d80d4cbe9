"""A slow second implementation of max-min fair rates over several links: progressive filling, anew at every event.

Nothing in it knows that the links are a tree: all flows rise together, and those stop that have reached their cap or
pass a link that is full (Bertsekas and Gallager, Data Networks, 2nd ed., 1992, section 6.5.2). Sums are exact fractions.
"""

from __future__ import annotations

import math
from fractions import Fraction


def filled(flows, capacities):
    """Rates of flows.

    Args:
        flows: flow -> (cap, names of the links it passes).
        capacities: link -> capacity, may be infinite.
    """
    rate = Fraction(0)
    rates, rising = {}, {flow: (Fraction(cap), tuple(links)) for flow, (cap, links) in flows.items()}
    room = {link: Fraction(c) for link, c in capacities.items() if not math.isinf(c)}
    while rising:
        on = {link: sum(link in links for _, links in rising.values()) for link in room}
        steps = [cap - rate for cap, _ in rising.values()]
        steps += [room[link] / n for link, n in on.items() if n]
        step = min(steps)
        rate += step
        for link, n in on.items():
            room[link] -= step * n
        full = {link for link, n in on.items() if n and room[link] <= 0}
        for flow, (cap, links) in list(rising.items()):
            if cap <= rate or full & set(links):
                rates[flow] = float(rate)
                del rising[flow]
    return rates


def finishes(arrivals, capacities, changes=()):
    """Finish time of every flow, stepping from event to event with rates filled anew.

    Args:
        arrivals: (time, flow, size, cap, names of the links).
        capacities: link -> capacity.
        changes: (time, what, value): a link's new capacity, or a flow's new cap; value None takes a flow out.
    """
    events = sorted(
        [(t, 0, *rest) for t, *rest in arrivals] + [(t, 1, *c) for t, *c in changes], key=lambda e: e[:2]
    )
    capacities, left, flows, done, now = dict(capacities), {}, {}, {}, 0.0
    while events or left:
        rates = filled(flows, capacities)
        ends = {flow: now + left[flow] / rates[flow] if rates[flow] > 0 else math.inf for flow in left}
        until = min(min(ends.values(), default=math.inf), events[0][0] if events else math.inf)
        if math.isinf(until):
            break
        for flow in left:
            left[flow] -= rates[flow] * (until - now)
        now = until
        for flow in [flow for flow in left if ends[flow] <= now]:
            done[flow] = now
            del left[flow], flows[flow]
        while events and events[0][0] <= now:
            _, change, what, value, *rest = events.pop(0)
            if not change:
                left[what], flows[what] = value, (rest[0], tuple(rest[1]))
            elif what in capacities:
                capacities[what] = value
            elif what in flows and value is None:
                del left[what], flows[what]
            elif what in flows:
                flows[what] = (value, flows[what][1])
    return done
