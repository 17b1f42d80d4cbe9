"""What an experiment would take: the virtual side exactly, the real side from one measured visit."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from fedsim.clock.plan import Plan
from fedsim.config.learning import EvaluateConfig
from fedsim.executors.inline import Inline
from fedsim.jobs import Job, ScoreJob
from fedsim.records.info import Totals
from fedsim.records.resolved import Resolved
from fedsim.records.run import Run
from fedsim.runs.preflight.holding import Holding, holding
from fedsim.runs.simulation import simulate
from fedsim.server.after.personalize import visits_after


@dataclass(frozen=True)
class RealWork:
    """What a run takes of this machine, from one measured visit [s].

    Attributes:
        train_s_per_visit: training of a mean visit; score_s: one evaluation.
        machine_s: all of it on one worker.
    """

    train_s_per_visit: float
    score_s: float
    machine_s: float


@dataclass(frozen=True)
class Estimates:
    """What a run would be.

    Attributes:
        totals: of the timeline, which does not depend on training.
        virtual_s: virtual time of its end [s].
        trained_visits: visits whose training would be computed.
        evaluations: versions that would be scored.
        resolved: who was drawn, and which settings follow from others.
        real_work: on this machine; None: not measured.
        holding: who can hold the training in memory.
        may_end_sooner: whether scores may end it (`budget.target`), which no timeline knows.
    """

    totals: Totals
    virtual_s: float
    trained_visits: int
    evaluations: int
    resolved: Resolved
    real_work: RealWork | None = None
    holding: tuple[Holding, ...] = ()
    may_end_sooner: bool = False


def dry_run(plan: Plan, *, measure: bool = True) -> Estimates:
    """Return estimates of a run.

    Args:
        plan: a prepared experiment.
        measure: load the model and train one median visit, to estimate seconds on this machine.
    """
    run = simulate(plan, timeline_only=True)
    info = run.info
    assert info.resolved is not None  # every run says it
    estimates = Estimates(
        totals=info.totals,
        virtual_s=info.end_time_s,
        trained_visits=info.totals.handed_over or 0,
        evaluations=_evaluations(plan.experiment.evaluate, run),
        resolved=info.resolved,
        holding=tuple(holding(plan)),
        may_end_sooner=plan.experiment.budget.target is not None,
    )
    if not measure:
        return estimates
    return replace(estimates, real_work=_measured(plan, estimates.trained_visits, estimates.evaluations))


def _evaluations(evaluate: EvaluateConfig, run: Run) -> int:
    """Return how many versions are scored: version 0, those that are due, and the last one."""
    times, uploads = run.commits["time_s"].tolist(), run.commits["total_up_bytes"].tolist()
    made = [(0.0, 0.0), *zip(times, map(float, uploads), strict=True)]
    last = len(made) - 1
    return sum(
        version in (0, last)
        or evaluate.at_commit(version)
        or evaluate.in_between(made[version], made[version + 1])
        for version in range(last + 1)
    )


def _measured(plan: Plan, trained: int, evaluations: int) -> RealWork:
    task, experiment = plan.task, plan.experiment
    sizes = sorted((task.tokens(c, experiment.local), c) for c in range(task.clients))
    tokens, client = sizes[len(sizes) // 2]
    mean_tokens = sum(size for size, _ in sizes) / len(sizes)
    executor = Inline()
    executor.open(task)
    handle = executor.share(task.initial())
    job = Job(client, 0, handle, experiment.local, experiment.training_seed)
    executor.train([job]).result()  # the first call pays for warm-up
    began = time.perf_counter()
    executor.train([job]).result()
    visit_s = (time.perf_counter() - began) * mean_tokens / tokens
    probes = [
        p
        for split in experiment.evaluate.splits
        for p in task.probes(split, experiment.evaluate.most_windows)
    ]
    began = time.perf_counter()
    executor.score([ScoreJob(handle, probe) for probe in probes[:2]]).result()
    score_s = (time.perf_counter() - began) * len(probes) / max(1, min(2, len(probes)))
    executor.close()
    second = plan.parts.personal.alongside(experiment.local)
    beside = 0.0 if second is None else task.tokens(client, second) / tokens
    trainings = trained * (1 + beside) + visits_after(plan)
    return RealWork(visit_s, score_s, visit_s * trainings + score_s * evaluations)
