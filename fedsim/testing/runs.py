"""Ten properties of any run, whatever its rule, protocol, sampler, messages and devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Offer
from fedsim.clock.plan import Plan
from fedsim.clock.visit import Visit
from fedsim.executors.inline import Inline
from fedsim.network.base import Direction
from fedsim.network.messages import encode
from fedsim.records.rows import OUTCOMES
from fedsim.records.run import Run
from fedsim.records.verify import verify
from fedsim.records.writer import Writer
from fedsim.rng import stream
from fedsim.runs.course import course
from fedsim.server.values.dispatched import Dispatched
from fedsim.testing.words import hold

VALUES = {
    "visits": ["computed", "loss", "loss_square", "tokens", "examples"],
    "commits": ["update_norm", "mean_cosine"],
}
"""Columns that only training fills."""


@dataclass(frozen=True)
class Watched:
    """A run, its plan, and what was offered to each visit.

    Attributes:
        plan: what was run.
        run: its tables.
        offers: by (client, visit).
    """

    plan: Plan
    run: Run
    offers: dict[tuple[int, int], Offer] = field(repr=False)

    @property
    def taken(self) -> pd.DataFrame:
        """The visits that some version was made of."""
        return self.run.visits[self.run.visits.committed_version > 0]


def watched(plan: Plan) -> Watched:
    """Run a plan in this process and note what each visit left with."""
    offers = {}

    def note(visit: Visit, dispatched: Dispatched) -> None:
        invitation = dispatched.invitation
        offers[invitation.client, invitation.visit] = dispatched.offer

    executor = Inline()
    try:
        run, _ = course(plan, executor, Writer(None, plan.experiment), lambda *_: None, on_dispatch=note)
    finally:
        executor.close()
    return Watched(plan, run, offers)


def timeline_of(plan: Plan) -> Run:
    """Run a plan without training."""
    return course(plan, None, Writer(None, plan.experiment), lambda *_: None)[0]


def check_done(watched: Watched) -> None:
    """The run comes to its end, after as many commits as its budget has."""
    run, budget = watched.run, watched.plan.experiment.budget.commits
    hold(run.info.status == "done", f"the run ended as {run.info.status!r}")
    hold(len(run.commits) == budget, f"the run made {len(run.commits)} commits, its budget has {budget}")


def check_scores(watched: Watched) -> None:
    """Every score is a number."""
    hold(np.isfinite(watched.run.scores.value).all(), "the run has scores that are not finite")


def check_audit(watched: Watched) -> None:
    """The auditor, who knows nothing of the simulator, finds nothing."""
    problems = verify(watched.run)
    hold(not problems, "the audit fails: " + "; ".join(problems[:3]))


def check_endings(watched: Watched) -> None:
    """Every visit that was dispatched ends once, in one of the known ways."""
    visits = watched.run.visits
    twice = visits.duplicated(["client", "visit"]).any()
    hold(not twice, "a visit of a client is there twice")
    hold(sorted(visits.order) == list(range(len(visits))), "visits are not numbered in the order of dispatch")
    unknown = sorted(set(visits.outcome) - set(OUTCOMES))
    hold(not unknown, f"visits end as {unknown}, which is no outcome")


def check_commits(watched: Watched) -> None:
    """Every commit is made of landed visits, as many as its row says."""
    taken, commits = watched.taken, watched.run.commits
    hold(set(taken.outcome) == {"landed"}, "a commit is made of visits that did not land")
    sizes = taken.groupby("committed_version").size().tolist()
    hold(
        sizes == commits.updates.tolist(),
        f"commits take {sizes} visits, their rows say {commits.updates.tolist()}",
    )


def check_staleness(watched: Watched) -> None:
    """Staleness is the number of versions between dispatch and commit; 0 where the protocol says so."""
    taken = watched.taken
    right = (taken.staleness == taken.committed_version - 1 - taken.version).all()
    hold(right, "the staleness of a visit is not the number of versions made since its dispatch")
    if not watched.plan.parts.protocol.stale:
        hold((taken.staleness == 0).all(), "the protocol says that it takes no stale update, and does")


def check_bytes(watched: Watched) -> None:
    """A visit is counted as many bytes as its messages have; a download that came with a poll is not counted again."""
    plan, visits = watched.plan, watched.run.visits
    layout, wire = plan.task.layout, plan.experiment.wire
    polls = visits[visits.outcome == "polled"]
    polled = set(zip(polls.client, polls.visit, polls.version, strict=True))
    for row in watched.taken.to_dict("records"):
        client, number = int(row["client"]), int(row["visit"])
        offer, has_it = watched.offers[client, number], (client, number - 1, row["version"]) in polled
        payloads: tuple[tuple[Direction, Payload], ...] = (("down", offer.down), ("up", offer.up))
        for direction, payload in payloads:
            message = encode(wire, layout, payload, direction, offer.start, stream(0, "any"))
            expected = 0 if has_it and direction == "down" else len(message) + 4 * payload.extra_floats
            counted = row[f"serialized_{direction}_bytes"]
            what = f"client {client}, visit {number}: {counted} bytes {direction} are counted"
            hold(counted == expected, f"{what}, its message has {expected}")


def check_same_again(watched: Watched, again: Run) -> None:
    """The same plan gives the same scores and visits, to the bit."""
    hold(again.scores.equals(watched.run.scores), "the same run has other scores when it is run again")
    hold(again.visits.equals(watched.run.visits), "the same run has other visits when it is run again")


def check_timeline(watched: Watched, timeline: Run) -> None:
    """Without training there is the same schedule, to the bit."""
    for table, columns in VALUES.items():
        trained, alone = (getattr(run, table).drop(columns=columns) for run in (watched.run, timeline))
        hold(alone.equals(trained), f"a run without training has another schedule ({table})")


def reads_values(plan: Plan) -> bool:
    """Tell whether losses decide about the schedule, so that there is none without training."""
    parts = plan.parts
    return parts.sampler.reads_values or parts.protocol.reads_values or parts.aggregator.reads_values


CHECKS: tuple[Callable[[Watched], None], ...] = (
    check_done,
    check_scores,
    check_audit,
    check_endings,
    check_commits,
    check_staleness,
    check_bytes,
)
"""The properties that a run has by itself."""


def check_run(make: Callable[[], Plan]) -> Watched:
    """Run a plan, run it again, and run it without training; every property holds.

    Args:
        make: gives the plan, anew at each call.

    Returns:
        The run.

    Raises:
        AssertionError: a sentence that names the property.
    """
    first = watched(make())
    for check in CHECKS:
        check(first)
    check_same_again(first, watched(make()).run)
    if not reads_values(first.plan):
        check_timeline(first, timeline_of(make()))
    return first
