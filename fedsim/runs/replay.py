"""One client's training alone, inline, for a debugger: the visit as the run trained it.

Nothing but the final adapter is stored, so what the client was sent is made again by running the
experiment up to that dispatch; that is the same to the bit. The run may have trained the visit together
with others, so its result is the same to the bit only where company changes none
(`fedsim.training.fused.decoder`), and else to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedsim.adapters.adapter import Vector
from fedsim.checks.gate import prepared
from fedsim.clock.plan import Plan
from fedsim.clock.visit import Visit
from fedsim.errors import RunFolderError, message
from fedsim.executors.inline import Inline
from fedsim.jobs import Job, ScoreJob, Update
from fedsim.metrics.sums import add_sums
from fedsim.records.run import load
from fedsim.records.writer import Writer
from fedsim.runs import course, simulation
from fedsim.runs.stored import stored_experiment
from fedsim.server.ledger import quiet
from fedsim.server.values.dispatched import Dispatched

ROUNDING = 1e-3
"""Largest relative difference between losses that passes for rounding, after AdamW has lifted it."""


@dataclass(frozen=True)
class Replay:
    """A visit trained again.

    Attributes:
        start, update: the vector it started from, and what training gave back.
        recorded_loss: the loss in the run's table (NaN if the run did not read it).
        held_out: the client's held-out metrics before and after.
    """

    start: Vector
    update: Update
    recorded_loss: float
    held_out: tuple[dict[str, float], dict[str, float]]

    @property
    def agreement(self) -> str:
        """How the loss compares with the recorded one, in words."""
        loss, recorded = self.update.loss, self.recorded_loss
        if math.isnan(recorded):
            return "nothing to compare with"
        if loss == recorded:
            return "the same to the bit"
        if math.isclose(loss, recorded, rel_tol=ROUNDING):
            return "the same to rounding (trained alone here, in a batch there)"
        return (
            f"apart by more than {ROUNDING:.1%}: by AdamW, which lifts rounding at a high learning rate, "
            "or by another machine or version"
        )


def replay(folder: Path | str, client: int, visit: int, *, trust: bool = False) -> Replay:
    """Train one recorded visit again, in this process.

    Args:
        folder: a run folder.
        client: index of the client.
        visit: k-th visit of this client, from 0.
        trust: whether modules that its settings name are imported (`fedsim.runs.stored`).

    Raises:
        RunFolderError: no such folder, or no such visit in it.
    """
    run = load(Path(folder))
    visits = run.frame("visits", "client", "visit", "outcome", "loss", "work_share")
    rows = visits[(visits.client == client) & (visits.visit == visit)]
    if rows.empty:
        had = int((visits.client == client).sum())
        raise RunFolderError(
            message(
                str(folder),
                f"client {client} has no visit {visit}",
                fix=f"it made {had} visits, counted from 0" if had else "choose a client of visits.parquet",
            )
        )
    if rows.outcome.iloc[0] == "polled":
        what = f"visit {visit} of client {client} answered a poll: nothing was trained"
        raise RunFolderError(message(str(folder), what, fix="choose a visit of another outcome"))
    plan = prepared(stored_experiment(run, trust=trust), where=str(Path(folder) / "experiment.yaml"))
    job = job_of(plan, client, visit)
    job = replace(job, upto=_upto(plan, job, rows.iloc[0]))
    (update,) = plan.task.train([job])
    before, after = (_held_out(plan, vector, job.base, client) for vector in (job.start, update.end))
    return Replay(job.start, update, float(rows.loss.iloc[0]), (before, after))


def _upto(plan: Plan, job: Job, row: Any) -> int | None:
    """Return the steps of a visit that was cut short; None of one that was not."""
    if row.work_share == 1:
        return None
    return round(float(row.work_share) * job.local.steps_over(plan.task.examples(job.client)))


def job_of(plan: Plan, client: int, visit: int) -> Job:
    """Return what this client was sent to train, by running the experiment up to that dispatch."""
    experiment = plan.experiment
    scoring = experiment.evaluate.model_copy(
        update={
            "every_commits": None,
            "every_s": None,
            "every_bytes": None,
            "windows": 1,
            "keep_best": None,
        }
    )
    budget = experiment.budget.model_copy(update={"target": None})  # no version is scored as the run did
    short = experiment.model_copy(update={"evaluate": scoring, "budget": budget})
    executor = simulation.executor_for(short)
    jobs: list[Job] = []

    try:
        prefix = Plan(short, plan.population, plan.task, plan.shape)

        def watch(begun: Visit, dispatched: Dispatched) -> None:
            if (begun.client, begun.visit) == (client, visit):
                jobs.append(dispatched.job)
                server.end()

        server = course.world(prefix, executor, Writer(None, short), quiet, watch)
        course.run_to_the_end(server, quiet)
    finally:
        executor.close()
    if not jobs:
        what = f"its settings give no visit {visit} of client {client}"
        raise RunFolderError(message(f"run {experiment.name}", what, fix="see `fedsim verify`"))
    return jobs[0]


def _held_out(plan: Plan, vector: Vector, base: Vector | None, client: int) -> dict[str, float]:
    executor = Inline()
    executor.open(plan.task)
    probes = plan.task.probes("client", client=client)
    shared, under = executor.share(vector), None if base is None else executor.share(base)
    sums = executor.score([ScoreJob(shared, probe, under) for probe in probes]).result()
    executor.close()
    return plan.task.metrics(add_sums(sums))
