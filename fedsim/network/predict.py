"""How long transfers take beside each other, without a clock: a pipe that runs until all have arrived."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fedsim.network.base import Rates
from fedsim.network.pipe import Pipe
from fedsim.network.sharing.flow import Flow, LinkInUse, OneWayLink

MOST_CHANGES = 50_000
"""`transfers_s` calls it for ever when nothing moves while rates change so often: two looping rates that are never
positive together change without end."""


class PlannedTransfer(NamedTuple):
    """A transfer to predict: who, how much payload, from when."""

    client: int
    n_bytes: int
    start_s: float


def transfers_s(
    transfers: Sequence[PlannedTransfer],
    links: Mapping[int, OneWayLink] | Sequence[OneWayLink],
    server: Rates,
) -> list[float]:
    """Return the seconds that each of some transfers in one direction takes, beside the others.

    Args:
        transfers: in any order.
        links: each client's own link.
        server: the rate of the server's link, headers included.

    Returns:
        Seconds from `start_s` to the last byte's arrival, one a transfer; inf where rates stay 0, or let
        nothing through in `MOST_CHANGES` changes.
    """
    pipe = Pipe(server)
    in_use: dict[int, LinkInUse] = {}
    flows: dict[int, Flow] = {}
    for i in sorted(range(len(transfers)), key=lambda i: (transfers[i].start_s, i)):
        client, n_bytes, start_s = transfers[i]
        pipe.run(start_s)
        if client not in in_use:
            in_use[client] = LinkInUse(links[client])
        flows[i] = pipe.open(in_use[client], n_bytes, start_s)
    now_s, moved = max((transfer.start_s for transfer in transfers), default=0.0), -1
    while pipe.next_s() < math.inf:
        for _ in range(MOST_CHANGES):
            next_s = pipe.next_s()
            if next_s == math.inf:
                break
            now_s = max(now_s, next_s)
            pipe.run(now_s)
        before, moved = moved, sum(pipe.sent(flow, now_s) for flow in flows.values())
        if moved == before:
            break
    durations_s = (flows[i].arrived_s - flows[i].began_s for i in range(len(transfers)))
    return [math.inf if math.isnan(seconds) else seconds for seconds in durations_s]
