"""What every task owes the clock and the workers: sizes known without training, and updates that depend on the job alone."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from fedsim.component import Component, placed
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.jobs import Job, ScoreJob, Task, TaskContext, Update
from fedsim.metrics.sums import Stacked, add_sums
from fedsim.tasks._base import TaskComponent, built
from fedsim.testing.words import fingerprint, hold, is_vector, name_of

CLIENTS = 4
CONTEXT = TaskContext(
    clients=CLIENTS,
    seed=3,
    lora=LoraConfig(r=2, alpha=4.0),
    local=LocalConfig(optimizer="sgd", lr=0.05, steps=2, batch=4),
)


def check_task(task: Component, context: TaskContext = CONTEXT) -> None:
    """Build a task for a few clients, train three of them for a visit, and score.

    Args:
        task: the component, with its settings.
        context: what the experiment gives it; at least three clients.

    Raises:
        AssertionError: a sentence that names the property.
        TypeError: the component is no task.
    """
    component = placed("tasks", task)
    if not isinstance(component, TaskComponent):
        raise TypeError(f"{name_of(task)} is no task component")
    ready = built(component, context)
    begins_with_a_vector_of_the_layout(ready)
    updates = trained(ready, context)
    updates_are_what_was_announced(ready, context, updates)
    updates_do_not_depend_on_company(ready, context, updates)
    is_the_same_on_the_other_side_of_a_process(ready, context, updates)
    probes_add_up_to_metrics(ready)


def jobs_of(task: Task, context: TaskContext) -> list[Job]:
    """Return a visit of each of the first three clients, from version 0."""
    start = task.initial()
    return [Job(client, 0, start, context.local, context.seed) for client in range(3)]


def trained(task: Task, context: TaskContext) -> list[Update]:
    """Return the visits' updates; the jobs come back as they were given."""
    jobs = jobs_of(task, context)
    before = fingerprint(jobs)
    updates = task.train(jobs)
    hold(fingerprint(jobs) == before, f"{name_of(task)}.train changes the jobs or their vectors")
    hold(
        len(updates) == len(jobs), f"{name_of(task)}.train gives {len(updates)} updates for {len(jobs)} jobs"
    )
    return updates


def begins_with_a_vector_of_the_layout(task: Task) -> None:
    """Version 0 is float32, of the layout's size, and always the same."""
    name, first = name_of(task), task.initial()
    is_shaped = is_vector(first, task.layout.size)
    hold(is_shaped, f"{name}.initial gives {first.dtype} {first.shape}, not float32 ({task.layout.size},)")
    hold(
        np.array_equal(first, task.initial()),
        f"{name}.initial gives another version 0 when it is asked again",
    )


def updates_are_what_was_announced(task: Task, context: TaskContext, updates: Sequence[Update]) -> None:
    """An update fits the layout, and has the tokens that the clock was told before anything was trained."""
    name = name_of(task)
    for job, update in zip(jobs_of(task, context), updates, strict=True):
        fault = update.fault(task.layout.size)
        hold(fault is None, f"{name}.train, client {job.client}: {fault}")
        announced = task.tokens(job.client, context.local)
        what = f"{name}.train uses {update.tokens} tokens of client {job.client}, `tokens` says {announced}"
        hold(update.tokens == announced, what)
        hold(task.examples(job.client) >= 1, f"{name}.examples of client {job.client} is less than 1")
        hold(not np.array_equal(update.end, job.start), f"{name}.train moves nothing for client {job.client}")


def updates_do_not_depend_on_company(task: Task, context: TaskContext, updates: Sequence[Update]) -> None:
    """Trained one by one, again and in another order, jobs end where they ended together."""
    name, jobs = name_of(task), jobs_of(task, context)
    alone = [task.train([job])[0] for job in reversed(jobs)][::-1]
    for job, update, other in zip(jobs, updates, alone, strict=True):
        size = max(1e-30, float(np.abs(update.end - job.start).max()))
        off = float(np.abs(update.end - other.end).max()) / size
        what = f"client {job.client} ends {off:.1%} of its move elsewhere when it trains alone"
        hold(off < 1e-3, f"{name}.train depends on company: {what}")  # last bits of products
    fewer = task.train([replace(jobs[0], upto=1)])[0]
    hold(fewer.steps <= 1, f"{name}.train makes {fewer.steps} steps where `upto` allows 1")


def is_the_same_on_the_other_side_of_a_process(
    task: Task, context: TaskContext, updates: Sequence[Update]
) -> None:
    """A task can be pickled, and trains there as it does here."""
    name, other = name_of(task), pickle.loads(pickle.dumps(task))  # noqa: S301  # our own bytes
    hold(np.array_equal(other.initial(), task.initial()), f"a pickled {name} begins elsewhere")
    again = other.train(jobs_of(task, context))
    same = [fingerprint(update.end) for update in again] == [fingerprint(update.end) for update in updates]
    hold(same, f"a pickled {name} trains to other bits")


def probes_add_up_to_metrics(task: Task) -> None:
    """The probes of the test split give sums, the same again, that make finite metrics."""
    name, vector = name_of(task), task.initial()
    probes = task.probes("test", windows=8)
    hold(bool(probes), f"{name}.probes gives no piece of the test split")
    sums = [add_sums([task.score(vector, probe) for probe in probes]) for _ in range(2)]
    hold(
        fingerprint(sums[0]) == fingerprint(sums[1]), f"{name}.score gives other sums when it is asked again"
    )
    together = add_sums(task.score_together([ScoreJob(vector, probe) for probe in probes]))
    apart = [key for key in sums[0] if not _alike(together.get(key, np.nan), sums[0][key])]
    hold(not apart, f"{name}.score_together gives another {', '.join(apart)} than score does piece by piece")
    metrics, named = task.metrics(sums[0]), task.metric_names("test")
    hold(bool(metrics), f"{name}.metrics gives no metric")
    broken = [metric for metric, value in metrics.items() if not np.isfinite(value)]
    hold(not broken, f"{name}.metrics gives {', '.join(broken)} that are not finite")
    hold(named is None or named == tuple(metrics), f"{name}.metric_names names others than metrics gives")


def _alike(found: ArrayLike, expected: ArrayLike) -> bool:
    """Tell whether two parts of sums are the same to rounding; of rows, array by array."""
    if isinstance(found, Stacked) and isinstance(expected, Stacked):
        return len(found) == len(expected) and all(map(_alike, found, expected))
    kinds = isinstance(found, Stacked), isinstance(expected, Stacked)
    same = not any(kinds) and np.shape(found) == np.shape(expected)
    return same and np.allclose(found, expected, rtol=1e-5)
