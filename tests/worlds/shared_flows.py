"""Transfers played on links that they share, event by event: what the tests of max-min rates have in common."""

from __future__ import annotations


def played(links, path_of, arrivals, capacities, changes=(), *, server=None, watch=None):
    """Return the finish time of every flow.

    Args:
        links: empty, with the interface of `MaxMinTree`.
        path_of: names of links and the capacities -> the links that a flow is let in with.
        arrivals: (time, flow, size, cap, names of the links).
        capacities: link -> capacity.
        changes: (time, what, value): the server's new capacity, or a flow's new cap; value None takes a flow out.
        server: the name of the link whose capacity may change.
        watch: sees the links, the flows that are there and the capacities after every event.
    """
    events = sorted(
        [(t, 0, *rest) for t, *rest in arrivals] + [(t, 1, *c) for t, *c in changes], key=lambda e: e[:2]
    )
    done, flows, capacities = {}, {}, dict(capacities)
    while events or flows:
        due = links.next_finish()
        if due is not None and (not events or due[0] <= events[0][0]):
            at_s, flow = links.finish()
            done[flow] = at_s
            del flows[flow]
        elif not events:
            break
        else:
            at_s, change, what, value, *rest = events.pop(0)
            if not change:
                cap, names = rest
                links.add(what, value, cap, at_s, path_of(names, capacities))
                flows[what] = (cap, tuple(names))
            elif server is not None and what == server:
                capacities[server] = value
                links.set_capacity(value, at_s)
            elif what in flows and value is None:
                links.remove(what, at_s)
                del flows[what]
            elif what in flows:
                links.set_cap(what, value, at_s)
                flows[what] = (value, flows[what][1])
        if watch is not None:
            watch(links, flows, capacities)
    return done
