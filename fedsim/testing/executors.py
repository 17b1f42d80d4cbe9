"""What every executor owes the server: the task's own results, in order, and nothing left behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import WorkerError
from fedsim.executors._base import Executor
from fedsim.jobs import Job, ScoreJob, Task, TaskContext
from fedsim.tasks.quadratic import Quadratic
from fedsim.testing.words import fingerprint, hold, name_of

CLIENTS = 6
LOCAL = LocalConfig(optimizer="sgd", lr=0.1, steps=3)


def check_executor(executor: Executor) -> None:
    """Train and score the quadratic task on an executor, open it again, and close it twice.

    Args:
        executor: closed; it is closed again at the end.

    Raises:
        AssertionError: a sentence that names the property.
    """
    try:
        for dimension in (8, 5):
            task = quadratic(dimension)
            executor.open(task)
            hold(executor.workers >= 1, f"{name_of(executor)} is open and has {executor.workers} workers")
            gives_the_tasks_own_results(executor, task)
            gives_scores_in_order(executor, task)
            names_the_visit_that_raised(executor, task)
    finally:
        executor.close()
        executor.close()


def quadratic(dimension: int) -> Task:
    """Return the task that an executor is tried on."""
    lora = LoraConfig()
    return Quadratic(dimension=dimension).build(TaskContext(CLIENTS, 0, lora, LOCAL))


def jobs_of(task: Task) -> list[Job]:
    """Return a visit of every client, from version 0."""
    return [Job(client, 0, task.initial(), LOCAL, 0) for client in range(CLIENTS)]


def _on_handles(executor: Executor, jobs: Sequence[Job]) -> list[Job]:
    start = executor.share(np.asarray(jobs[0].start))
    return [Job(job.client, job.visit, start, job.local, job.seed) for job in jobs]


def gives_the_tasks_own_results(executor: Executor, task: Task) -> None:
    """Batches give the updates of `task.train`, to the bit and in order, whichever ticket is read first."""
    jobs = jobs_of(task)
    expected = [fingerprint(update) for update in task.train(jobs)]
    handles = _on_handles(executor, jobs)
    tickets = [executor.train(handles[:2]), executor.train(handles[2:])]
    tickets[1].want()
    last, first = tickets[1].result(), tickets[0].result()
    same = [fingerprint(update) for update in [*first, *last]] == expected
    hold(same, f"{name_of(executor)}.train gives other updates than the task")
    hold(tickets[0].done(), f"a ticket of {name_of(executor)} is not done although its result was read")


def gives_scores_in_order(executor: Executor, task: Task) -> None:
    """Pieces of an evaluation give the sums of `task.score`, in order."""
    vector = task.initial()
    probes = task.probes("clients")
    expected = [task.score(vector, probe) for probe in probes]
    handle = executor.share(vector)
    sums = executor.score([ScoreJob(handle, probe) for probe in probes]).result()
    same = fingerprint(sums) == fingerprint(expected)
    hold(same, f"{name_of(executor)}.score gives other sums than the task")


def names_the_visit_that_raised(executor: Executor, task: Task) -> None:
    """What the task's code raises comes as a WorkerError that names the client, and the executor goes on."""
    stranger = Job(CLIENTS + 3, 0, executor.share(task.initial()), LOCAL, 0)
    name = name_of(executor)
    try:
        executor.train([stranger]).result()
    except WorkerError as problem:
        hold(f"client {CLIENTS + 3}" in str(problem), f"a WorkerError of {name} does not name the client")
    else:
        raise AssertionError(f"{name}.train gives a result where the task raised")
    again = executor.train(jobs_of(task)[:1]).result()
    hold(len(again) == 1, f"{name} gives no result after a job that raised")
