"""Polls: clients are asked for their loss before it is decided who trains (power-of-choice).

A poll is a visit without training: the model comes down, one forward pass goes through the client's
training data, one float32 goes up. Its outcome is `polled`. The device is asked for the memory of a
training too: one that could not train says so at once.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from fedsim.aggregators._base import Offer
from fedsim.clock.plan import Plan
from fedsim.clock.protocol import Verbs
from fedsim.clock.visit import Visit
from fedsim.cost.formulas import expanded_bytes, forward_flops, moved_bytes
from fedsim.cost.work import Work
from fedsim.instants import Instant
from fedsim.samplers._base import PollingSampler
from fedsim.server import returned
from fedsim.server.values.dispatched import PolledModel
from fedsim.server.values.trainer import Trainer

ANSWER_BYTES = 4
"""The loss, one float32."""


@dataclass(frozen=True)
class Poll:
    """A poll under way; `visit` says how it goes."""

    visit: Visit


def poll_work(plan: Plan, client: int, rank: int, offer: Offer) -> Work:
    """Return what a poll of a client moves and computes.

    Tokens are those of its training data, once; under `charge_as.tokens_per_visit` in proportion. FLOPs are
    those of a forward pass, and each pass goes through the layers once and reads (and unpacks) the weights once.

    Args:
        plan: of the experiment.
        client: whom.
        rank: slots of each factor that it would train; 0 for whole models.
        offer: what it would get for a training: it downloads the same.
    """
    local = plan.experiment.local
    whole = plan.work(client, offer, rank=rank or None)
    batches = plan.sizing.batches(client, local.model_copy(update={"epochs": 1, "steps": None}))
    shape = plan.training_plan(client, rank or None).memory.shape
    tokens, passes = batches.tokens, batches.cut(shape.sequence, shape.batch)
    forward = replace(shape, phi=0.0, checkpoint=False)  # then nothing is above, either
    compute = plan.experiment.compute
    return replace(
        whole,
        flops=forward_flops(shape, tokens, layered=compute.flops == "layers"),
        tokens=tokens,
        steps=passes,
        moved_bytes=moved_bytes(forward, passes, 0, copied=compute.dequantisation == "copy"),
        layer_passes=float(passes * shape.layers),
        expanded_bytes=passes * expanded_bytes(forward),
        coded_bytes=plan.sizing.coding_bytes(offer.down, "down"),
        up_bytes=ANSWER_BYTES,
        serialized_up_bytes=ANSWER_BYTES,
    )


class PollVerbs(Verbs, Protocol):
    """What the server does for polls."""

    @property
    def last_commit_s(self) -> float:
        """When the last version was ready, or will be [virtual s]."""
        ...

    def grant(self, n: int, among: NDArray[np.int64] | None = None) -> Generator[simpy.Event, Any, list[int]]:
        """Wait until n clients are idle and online, and have the sampler choose candidates."""
        ...

    def poll(self, client: int) -> Poll:
        """Ask a client for its loss; once it has answered it stays busy until it is freed or dispatched."""
        ...

    def losses(self, polls: Sequence[Poll]) -> list[float]:
        """Return what polled clients answer."""
        ...

    def close_polls(self, polls: Sequence[Poll]) -> None:
        """Write the visits of polls that were answered."""
        ...

    def online(self, client: int) -> bool:
        """Tell whether a client is online now."""
        ...


def polled(
    server: PollVerbs,
    sampler: PollingSampler,
    candidates: Sequence[int],
    n: int,
    among: NDArray[np.int64] | None = None,
) -> Generator[simpy.Event, Any, list[int]]:
    """Poll candidates (busy), choose n of them by `sampler.keep`, and let the others go.

    Waits until every candidate has answered or is known to be lost, and until the version that the server works on is
    there. Those who have answered wait meanwhile, and
    drop out if their window closes. With nobody left, new candidates are asked for.

    Args:
        server: whose clock.
        sampler: who chooses.
        candidates: whom the sampler has drawn; not polled if they are n.
        n: how many are wanted.
        among: the pool that new candidates come from; None: everybody.

    Returns:
        The chosen, at least one and at most n, busy until they are dispatched.
    """
    while len(candidates) > n:
        polls = [server.poll(client) for client in candidates]
        yield server.all_of([poll.visit.process for poll in polls])
        yield server.turn(Instant.DISPATCH)
        while (
            server.now_s < server.last_commit_s
        ):  # commits take time: nothing is sent of a version that is not ready
            yield server.turn(Instant.DISPATCH, at_s=server.last_commit_s)
        answers = [poll for poll in polls if poll.visit.outcome == "polled"]
        online = [poll for poll in answers if server.online(poll.visit.client)]
        losses = np.array(server.losses(online))
        server.close_polls(answers)
        clients = np.array([poll.visit.client for poll in online], dtype=np.int64)
        trainees = returned.kept(sampler, clients, n, sampler.keep(clients, losses, n))
        chosen = [int(client) for client in trainees]
        server.free([poll.visit.client for poll in answers if poll.visit.client not in chosen])
        if chosen:
            return chosen
        candidates = yield from server.grant(n, among)
    return list(candidates)


def told_losses(trainer: Trainer, polls: Sequence[Poll], models: Mapping[int, PolledModel]) -> list[float]:
    """Return what polled clients answer, and note it beside their visits: of a replay, what stands in the tables.

    Args:
        trainer: has their losses computed.
        polls: that were answered.
        models: what each was asked about, by the order of its visit.
    """
    log = trainer.log
    if log is not None:
        losses = [log.of(poll.visit).loss for poll in polls]
    else:
        asked = [(poll.visit.client, models[poll.visit.order]) for poll in polls]
        losses = trainer.evaluations.losses([(client, model.vector, model.base) for client, model in asked])
    for poll, loss in zip(polls, losses, strict=True):
        poll.visit.report_loss(loss)
    return losses
