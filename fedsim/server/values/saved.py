"""All that depends on values, after a commit: taken out of a server for a checkpoint, and put into a replay without values.

What is not here follows from the schedule, which the replay makes again: who was asked, when, how it went, how often.
Results that were trained and are not needed yet are kept, never trained again: their last digits depend on which other
clients were in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Trains, Vector
from fedsim.adapters.moved_base import Base
from fedsim.executors import Executor
from fedsim.jobs import Update
from fedsim.server.server import Server
from fedsim.server.values.dispatched import Dispatched, PolledModel
from fedsim.server.values.goals import BestData
from fedsim.server.values.private_parts import PrivateData
from fedsim.server.values.versions import VersionsData


class SentData(TypedDict):
    """What a visit has left with, as far as it depends on values."""

    start: Vector
    trains: Trains
    phase: str
    slot_penalty: tuple[float, int] | None
    shared_start: Vector
    base: Base | None
    job_start: Vector
    job_base: Vector | None
    common: bool
    polled: tuple[Vector, Vector | None] | None


class ValuesData(TypedDict):
    """All that depends on values; visits by their order, lent vectors by their version."""

    versions: VersionsData
    memory: object
    average: NDArray[np.float64] | None
    private_parts: PrivateData
    sent: dict[int, SentData]
    updates: dict[int, Update]
    lent: dict[int, Vector]
    best: NotRequired[BestData | None]


def values_of(server: Server) -> ValuesData:
    """Return the values of a server as explicit data, see `ValuesData`; waits for what is being computed.

    Raises:
        FedsimError: some of it could not be computed.
    """
    memory, visits = server.maker.memory, server.visits
    return {
        "versions": server.versions.dump(),
        "memory": None if memory is None else memory.dump(),
        "average": server.average.total,
        "private_parts": server.private_parts.dump(),
        "sent": {order: _sent(sent, visits.polled.get(order)) for order, sent in visits.dispatched.items()},
        "updates": server.trainer.dump(),
        "lent": server.versions.lent.held(),
        "best": server.trainer.evaluations.best.dump(),
    }


def _sent(sent: Dispatched, polled: PolledModel | None) -> SentData:
    offer, job = sent.offer, sent.job
    return {
        "start": offer.start,
        "trains": offer.trains,
        "phase": offer.phase,
        "slot_penalty": offer.slot_penalty,
        "shared_start": sent.shared_start,
        "base": sent.base,
        "job_start": job.start,
        "job_base": job.base,
        "common": sent.common,
        "polled": None if polled is None else (polled.vector, polled.base),
    }


def put_values(server: Server, data: ValuesData, executor: Executor) -> None:
    """Put values in the place of none, and train from now on.

    Args:
        server: of a replay, at the version that the values are of.
        data: what `values_of` has returned.
        executor: where to train.

    Raises:
        ValueError: the values are not of this schedule.
    """
    held, sent = server.versions.lent.held(), data["sent"]
    if set(sent) != set(server.visits.dispatched):
        raise ValueError("it has other visits under way")
    if any(version and version not in data["lent"] for version in held):
        raise ValueError(f"the protocol {server.plan.parts.protocol.kind} holds a vector that it had not")
    dispatched = {order: _dispatched(server.visits.dispatched[order], sent[order]) for order in sent}
    polled = {order: PolledModel(*row["polled"]) for order, row in sent.items() if row["polled"] is not None}
    server.versions.load(data["versions"])
    server.versions.lent.go_on()
    if server.maker.memory is not None:
        server.maker.memory.load(data["memory"])
    server.average.load(server.model, data["average"])
    server.private_parts.go_on(executor, data["private_parts"])
    server.visits.go_on_from(dispatched, polled)
    server.trainer.evaluations.best.load(data.get("best"), server.model)
    server.trainer.go_on(executor, dispatched, _updates(data["updates"], server))


def _updates(updates: Mapping[int, Update], server: Server) -> Mapping[int, Update]:
    """Return the results by visit; raise if they are not those of the trainings that were handed over."""
    if set(updates) != server.trainer.handed_over_now():
        raise ValueError("it has results of other visits")
    return updates


def _dispatched(replayed: Dispatched, data: SentData) -> Dispatched:
    """Return what a visit of a replay has left with, with the values that it really had."""
    offer = replace(
        replayed.offer,
        start=data["start"],
        trains=data["trains"],
        phase=data["phase"],
        slot_penalty=data["slot_penalty"],
    )
    job = replace(
        replayed.job,
        start=data["job_start"],
        base=data["job_base"],
        trains=data["trains"],
        slot_penalty=data["slot_penalty"],
    )
    return Dispatched(replayed.invitation, offer, data["shared_start"], data["base"], job, data["common"])
