"""How many rows a run will write: its timeline, or as much of it as half a second allows, carried on to the end of the budget."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment
from fedsim.records.watching.pace import USED, shares_of
from fedsim.records.writer import Writer
from fedsim.runs.course import no_garbage_pauses, world
from fedsim.server.ledger import quiet
from fedsim.server.server import Server

PATIENCE_S = 0.5
"""Real seconds that a forecast may take."""
STEPS = 64
"""Events between two looks at the clock on the wall."""


@dataclass(frozen=True)
class Forecast:
    """What a run will come to.

    Attributes:
        visits, commits: how many.
        visited: clients that are asked at least once.
        whole: whether the timeline was followed to its end, so that the numbers are those of the run.
    """

    visits: int
    commits: int
    visited: int
    whole: bool


def forecast(plan: Plan, patience_s: float = PATIENCE_S) -> Forecast | None:
    """Return what a run will come to; None where losses decide whom the server asks, so that nobody knows.

    Components are made anew for it: nothing that one of them remembers reaches the run.
    """
    parts = plan.parts
    if parts.protocol.reads_values or parts.aggregator.reads_values:
        return None
    plain = plan.experiment.plain()
    if parts.sampler.reads_values:
        plain["sampler"] = {"kind": "uniform"}  # others are asked, about as many
    try:
        apart = plan.alike(Experiment.model_validate(plain))
        visited: set[int] = set()
        server = world(
            apart,
            None,
            Writer(None, apart.experiment),
            quiet,
            on_dispatch=lambda visit, _dispatched: visited.add(visit.client),
        )
        with no_garbage_pauses():
            whole = _stepped(server, patience_s)
    except Exception:  # what is wrong with the experiment is said by the run itself
        return None
    return _carried_on(server, len(visited), whole=whole)


def _stepped(server: Server, patience_s: float) -> bool:
    """Step the clock to the end of the budget, or until patience is at its end; returns whether it was the budget's."""
    horizon_s = server.experiment.budget.time_s or math.inf
    give_up_s, steps = time.monotonic() + patience_s, 0
    while not server.over and server.env.peek() <= horizon_s:
        if math.isinf(server.env.peek()):
            return True
        server.env.step()
        steps += 1
        if steps % STEPS == 0 and time.monotonic() > give_up_s:
            return False
    return True


def _carried_on(server: Server, visited: int, *, whole: bool) -> Forecast | None:
    """Return the numbers of a timeline, in proportion to the budget where it was not followed to its end."""
    visits, ended = server.visits.begun, server.visits.ended
    if whole:
        return Forecast(visits, server.version, visited, whole=True)
    used = {
        "time_s": float(server.env.now),
        "version": server.version,
        "total_up_bytes": server.ledger.up_bytes,
    }
    limits = {limit: value for limit, value in server.experiment.budget if limit in USED}
    share = max(shares_of(limits, used).values(), default=0.0)
    if share <= 0.0 or not ended:
        return None
    to_come = min(server.clients, math.ceil(visited / share))
    return Forecast(
        math.ceil(ended / share) + visits - ended, math.ceil(server.version / share), to_come, whole=False
    )
