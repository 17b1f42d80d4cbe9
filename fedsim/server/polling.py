"""Polls: clients are asked for their loss before it is decided who trains (power-of-choice).

A poll is a visit without training: the model comes down, one forward pass goes through the client's
training data, one float32 goes up. Its outcome is `polled`. The device is asked for the memory of a
training too: one that could not train says so at once.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import Offer
from fedsim.cost.formulas import forward_flops, moved_bytes
from fedsim.cost.work import Work
from fedsim.instants import Instant

if TYPE_CHECKING:
    from fedsim.clock.plan import Plan
    from fedsim.clock.visit import Visit
    from fedsim.server.server import Server

ANSWER_BYTES = 4
"""The loss, one float32."""


@dataclass(frozen=True)
class Poll:
    """A poll under way.

    Attributes:
        visit: how it goes.
        vector: the adapter whose loss is asked for, in the layout's scale.
        base: change of the frozen weights under it; None: none.
    """

    visit: Visit
    vector: Vector
    base: Vector | None


def poll_work(plan: Plan, client: int, rank: int, offer: Offer) -> Work:
    """Return what a poll of a client moves and computes.

    Tokens are those of its training data, once; under `charge_as.tokens_per_visit` in proportion. FLOPs are
    those of a forward pass, and each pass reads the weights once.

    Args:
        plan: of the experiment.
        client: whom.
        rank: slots of each factor that it would train; 0 for whole models.
        offer: what it would get for a training: it downloads the same.
    """
    local = plan.experiment.local
    whole = plan.sent(plan.work(client, None, rank or None), offer)
    once = plan.task.tokens(client, local.model_copy(update={"epochs": 1, "steps": None}))
    tokens = max(1, round(whole.tokens * once / plan.task.tokens(client, local)))
    shape = plan.way_of(client, rank or None).memory.shape
    passes = math.ceil(tokens / (shape.sequence * shape.batch))
    forward = replace(shape, phi=0.0, checkpoint=False)
    compute = plan.experiment.compute
    return replace(
        whole,
        flops=forward_flops(shape, tokens, layered=compute.flops == "layers"),
        tokens=tokens,
        steps=passes,
        moved_bytes=moved_bytes(forward, passes, 0, copied=compute.dequantisation == "copy"),
        up_bytes=ANSWER_BYTES,
        serialized_up_bytes=ANSWER_BYTES,
    )


def polled(
    server: Server, candidates: Sequence[int], n: int, among: NDArray[np.int64] | None = None
) -> Generator[Any, Any, list[int]]:
    """Poll candidates (busy), choose n of them by `sampler.keep`, and let the others go.

    Waits until every candidate has answered or is known to be lost. Those who have answered wait meanwhile, and
    drop out if their window closes. With nobody left, new candidates are asked for.

    Args:
        server: whose clock.
        candidates: whom the sampler has drawn; not polled if they are n.
        n: how many are wanted.
        among: the pool that new candidates come from; None: everybody.

    Returns:
        The chosen, at least one and at most n, busy until they are dispatched.
    """
    sampler: Any = server.experiment.sampler
    while len(candidates) > n:
        polls = [server.poll(client) for client in candidates]
        for poll in polls:
            assert poll.visit.process.callbacks is not None
            poll.visit.process.callbacks.append(partial(_keep_busy, server, poll.visit))
        yield server.all_of([poll.visit.process for poll in polls])
        yield server.turn(Instant.DISPATCH)
        answered = [poll for poll in polls if poll.visit.outcome == "polled"]
        there = [poll for poll in answered if server.online(poll.visit.client)]
        losses = server.trainer.losses([(p.visit.client, p.vector, p.base) for p in there])
        clients = np.array([poll.visit.client for poll in there], dtype=np.int64)
        chosen = [int(client) for client in sampler.keep(clients, np.array(losses), n)]
        server.free([p.visit.client for p in answered if p.visit.client not in chosen])
        if chosen:
            return chosen
        candidates = yield from server.grant(n, among)
    return list(candidates)


def _keep_busy(server: Server, visit: Visit, _: Any) -> None:
    """Whoever has answered is not asked by somebody else before the choice."""
    if visit.outcome == "polled":
        server.desk.keep(visit.client)
