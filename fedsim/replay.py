"""One client's training alone, inline, for a debugger: the visit exactly as the run trained it.

Nothing but the final adapter is stored, so the version that the visit started from is made again
by running the experiment up to that commit; the result is the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim import simulation
from fedsim.adapter import Vector
from fedsim.errors import RunFolderError, message
from fedsim.executors.inline import Inline
from fedsim.experiment import Experiment
from fedsim.jobs import Job, ScoreJob, Update, add_sums
from fedsim.run import Writer, load
from fedsim.simulation import Plan, course, prepare


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


def replay(folder: Path | str, client: int, visit: int) -> Replay:
    """Train one recorded visit again, in this process.

    Args:
        folder: a run folder.
        client: index of the client.
        visit: k-th visit of this client, from 0.

    Raises:
        RunFolderError: no such folder, or no such visit in it.
    """
    run = load(Path(folder))
    rows = run.visits[(run.visits.client == client) & (run.visits.visit == visit)]
    if rows.empty:
        had = int((run.visits.client == client).sum())
        raise RunFolderError(
            message(
                str(folder),
                f"client {client} has no visit {visit}",
                fix=f"it made {had} visits, counted from 0" if had else "choose a client of visits.parquet",
            )
        )
    plan = prepare(Experiment.model_validate(run.experiment))
    start = model_at(plan, int(rows.version.iloc[0]), client)
    local = plan.experiment.local
    job = Job(client, visit, start, local, plan.experiment.seed, upto=_upto(plan, rows.iloc[0]))
    (update,) = plan.task.train([job])
    return Replay(
        start,
        update,
        float(rows.loss.iloc[0]),
        (_held_out(plan, start, client), _held_out(plan, update.end, client)),
    )


def _upto(plan: Plan, row: Any) -> int | None:
    """Return the steps of a visit that was cut short; None of one that was not."""
    if row.work_share == 1:
        return None
    task: Any = plan.task
    steps: int = task.steps(int(row.client), plan.experiment.local)
    return round(float(row.work_share) * steps)


def model_at(plan: Plan, version: int, client: int) -> Vector:
    """Return what a client downloads at a version, by running the experiment up to it."""
    if version == 0:
        return plan.task.initial()
    experiment = plan.experiment
    short = experiment.model_copy(
        update={
            "budget": experiment.budget.model_copy(update={"commits": version}),
            "evaluate": experiment.evaluate.model_copy(update={"every_commits": 10**9, "windows": 1}),
            "personal": experiment.personal.model_copy(update={"kind": "none"}),
        }
    )
    executor = simulation.executor_for(short)
    try:
        prefix = Plan(short, plan.population, plan.task, plan.shape)
        _, model = course(prefix, executor, Writer(None, short), lambda _kind, _facts: None)
    finally:
        executor.close()
    rule: Any = short.aggregator
    vector: Vector = rule.download(model, client, None)[0]
    return vector


def _held_out(plan: Plan, vector: Vector, client: int) -> dict[str, float]:
    executor = Inline()
    executor.open(plan.task)
    probes = plan.task.probes("client", client=client)
    sums = executor.score([ScoreJob(executor.share(vector), probe) for probe in probes]).result()
    executor.close()
    return plan.task.metrics(add_sums(sums))
