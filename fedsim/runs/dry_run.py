"""What an experiment would take: the virtual side exactly, the real side from one measured visit."""

from __future__ import annotations

import time
from typing import Any

from fedsim.clock.plan import Plan
from fedsim.executors.inline import Inline
from fedsim.jobs import Job, ScoreJob
from fedsim.runs.simulation import simulate
from fedsim.server.after.personalize import epochs_after


def dry_run(plan: Plan, *, measure: bool = True) -> dict[str, Any]:
    """Return estimates of a run.

    Args:
        plan: a prepared experiment.
        measure: load the model and train one median visit, to estimate seconds on this machine.

    Returns:
        visits, commits, landed, outcomes, up_bytes, down_bytes, virtual_s, joules, gross_joules (from the
        timeline, which does not depend on training), trained_visits, evaluations and, if measured,
        train_s_per_visit, score_s and machine_s for one worker [s].
    """
    run = simulate(plan, timeline_only=True)
    totals = run.info.totals
    commits, every = totals.commits, plan.experiment.evaluate.every_commits
    trained = totals.handed_over or 0
    facts: dict[str, Any] = {
        "visits": totals.visits,
        "commits": commits,
        "outcomes": dict(totals.outcomes),
        "up_bytes": totals.up_bytes,
        "down_bytes": totals.down_bytes,
        "virtual_s": run.info.end_time_s,
        "joules": totals.joules,
        "gross_joules": totals.gross_joules,
        "trained_visits": trained,
        "evaluations": 1 + commits // every + bool(commits % every),
    }
    if measure:
        facts |= _measured(plan, trained, facts["evaluations"])
    return facts


def _measured(plan: Plan, trained: int, evaluations: int) -> dict[str, float]:
    task, experiment = plan.task, plan.experiment
    sizes = sorted((task.tokens(c, experiment.local), c) for c in range(task.clients))
    tokens, client = sizes[len(sizes) // 2]
    mean_tokens = sum(size for size, _ in sizes) / len(sizes)
    executor = Inline()
    executor.open(task)
    handle = executor.share(task.initial())
    job = Job(client, 0, handle, experiment.local, experiment.seed)
    executor.train([job]).result()  # the first call pays for warm-up
    began = time.perf_counter()
    executor.train([job]).result()
    visit_s = (time.perf_counter() - began) * mean_tokens / tokens
    probes = [
        p for split in experiment.evaluate.splits for p in task.probes(split, experiment.evaluate.windows)
    ]
    began = time.perf_counter()
    executor.score([ScoreJob(handle, probe) for probe in probes[:2]]).result()
    score_s = (time.perf_counter() - began) * len(probes) / max(1, min(2, len(probes)))
    executor.close()
    personal: Any = experiment.personal
    second = personal.alongside(experiment.local)
    beside = 0.0 if second is None else task.tokens(client, second) / tokens
    return {
        "train_s_per_visit": visit_s,
        "score_s": score_s,
        "machine_s": visit_s * (trained * (1 + beside) + epochs_after(experiment)) + score_s * evaluations,
    }
