"""What `auto` settings stand for, and what a task is built from: decided once, and written down with the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedsim.aggregators._base import Setting
from fedsim.aggregators._returned import checked_rule
from fedsim.clock.components import parts_of
from fedsim.component import Component
from fedsim.config.experiment import Experiment
from fedsim.config.learning import EvaluateConfig
from fedsim.jobs import CALL_BYTES, Task, TaskContext

FEW, MANY = 8, 64
"""Clients of one call where the task suggests nothing, in a small round and in a large one."""
SERVERS = {
    "rank_by": "fixed",
    "ranks": None,
    "depth": None,
    "depth_by": "fixed",
    "depths": None,
    "first": "depth",
}
"""Settings of `lora` that are the clients', as they are for a task: a client's rank and depth come with its jobs."""
CALLS = 32
"""Calls that a large round is cut into, as far as `MANY` allows."""


def context_of(experiment: Experiment) -> TaskContext:
    """Return what a task component is built from: the server's rank; a client's comes with its jobs."""
    return TaskContext(
        experiment.population.clients,
        experiment.data_seed,
        experiment.lora.model_copy(update=SERVERS),
        experiment.local,
        experiment.numerics,
        1e6 * experiment.runtime.cache_mb,
        experiment.runtime.gpus_per_worker,
        experiment.training_seed,
    )


def with_auto_filled(experiment: Experiment, task: Task) -> Experiment:
    """Return the experiment with `auto` settings of numerics and of the rule replaced by what will be used.

    The task says what suits it. A client batch is also at most a quarter of a round or buffer, so that
    four workers have something to do, and at most what makes results of `CALL_BYTES`; the number of
    workers of this machine is never looked at. On a GPU it is what a worker's share of its memory holds, up to
    the same share of a round: workers with a quarter of a card each get a quarter of the clients each.
    """
    numerics, filled = experiment.numerics, dict[str, Any]()
    if numerics.client_batch == "auto":
        at_once = parts_of(experiment).protocol.updates_per_commit or FEW
        size = task.suggested_client_batch() or max(FEW, min(MANY, at_once // CALLS))
        room = CALL_BYTES // (4 * max(1, task.layout.size))
        share = min(1.0, experiment.runtime.gpus_per_worker or 1.0)
        most = math.ceil(at_once * share) if _on_gpu(experiment) else min(math.ceil(at_once / 4), room)
        filled["client_batch"] = max(1, min(size, most))
    training = task.suggested_training() if numerics.training == "auto" else None
    if training is not None:
        filled["training"] = training
    blocks = {
        "numerics": numerics.model_copy(update=filled),
        "aggregator": _suited_rule(experiment),
        "evaluate": _bounded(experiment, task),
    }
    return experiment.model_copy(update=blocks)


def _bounded(experiment: Experiment, task: Task) -> EvaluateConfig:
    """Return what is scored, bounded where all of it took longer than the training between two evaluations.

    Versions are scored every so many commits; on a grid of time or bytes nobody knows how many lie between.
    """
    evaluate, updates = experiment.evaluate, parts_of(experiment).protocol.updates_per_commit
    if evaluate.windows is not None or evaluate.every_commits is None or updates is None:
        return evaluate
    most = task.suggested_windows(evaluate.every_commits * updates, experiment.local, evaluate.splits)
    return evaluate if most is None else evaluate.model_copy(update={"windows": most})


def keys_filled(asked: Experiment, filled: Experiment) -> tuple[str, ...]:
    """Return the keys, as `numerics.training`, whose `auto` in one experiment is something else in the other."""
    blocks = (
        ("aggregator", asked.aggregator, filled.aggregator),
        ("numerics", asked.numerics, filled.numerics),
    )
    windows = ("evaluate.windows",) if asked.evaluate.windows != filled.evaluate.windows else ()
    return windows + tuple(
        f"{name}.{field}"
        for name, before, after in blocks
        for (field, value), (_, now) in zip(before, after, strict=True)
        if value == "auto" and now != "auto"
    )


def _suited_rule(experiment: Experiment) -> Component:
    """Return the rule with its `auto` settings decided by protocol and sampler."""
    parts = parts_of(experiment)
    setting = Setting(parts.protocol.fedbuff, parts.sampler.chooses_by_size)
    rule = checked_rule(parts.aggregator, parts.aggregator.suited(setting))
    return experiment.aggregator if rule is parts.aggregator else rule


def _on_gpu(experiment: Experiment) -> bool:
    from fedsim.training.gpu_room import on_gpu

    return on_gpu(experiment.runtime.gpus_per_worker)


def with_auto_as_stored(experiment: Experiment, stored: Mapping[str, Any]) -> Experiment:
    """Return the experiment with `auto` settings decided, without its task.

    Those of the rule follow from protocol and sampler. Those of numerics, and the bound of what is scored, which need the
    task, are what a stored configuration has in their place.
    """
    known, numerics = stored.get("numerics") or {}, experiment.numerics
    filled = {field: known[field] for field, value in numerics if value == "auto" and field in known}
    evaluate, bound = experiment.evaluate, (stored.get("evaluate") or {}).get("windows")
    if evaluate.windows is None and isinstance(bound, int):
        evaluate = evaluate.model_copy(update={"windows": bound})
    blocks = {
        "numerics": numerics.model_copy(update=filled),
        "aggregator": _suited_rule(experiment),
        "evaluate": evaluate,
    }
    return experiment.model_copy(update=blocks)
