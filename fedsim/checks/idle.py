"""Settings that were given and do nothing beside others: what a reader of the file would else take for granted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment


class Idle(NamedTuple):
    """When a setting does nothing.

    Attributes:
        keys: dotted paths of settings. Paths that an experiment has not are passed over.
        idle: tells whether they do nothing in an experiment.
        why: what makes them idle.
    """

    keys: tuple[str, ...]
    idle: Callable[[Experiment], bool]
    why: str


def value_of(experiment: object, path: str) -> Any:
    """Return a setting by its dotted path; None where a block or a field of the way is not there."""
    value: Any = experiment
    for key in path.split("."):
        value = getattr(value, key, None)
    return value


def _is(path: str, *values: object) -> Callable[[Experiment], bool]:
    return lambda experiment: value_of(experiment, path) in values


def _no_inception(experiment: Experiment) -> bool:
    looks = value_of(experiment, "task.features.kind"), *(value_of(experiment, "task.features.also") or ())
    return "inception" not in looks


def _no_hub(experiment: Experiment) -> bool:
    data = value_of(experiment, "task.data")
    return isinstance(data, str) and (data == "builtin" or Path(data).exists())


OF_MODELS = ("lora.targets", "numerics.training", "numerics.tokens_at_once", "numerics.dtype")
"""Settings of models, which the closed form has not."""
IDLE: tuple[Idle, ...] = (
    Idle(
        ("population.outages.regions",),
        lambda e: e.population.outages is not None and e.population.outages.by != "region",
        "population.outages.by names groups that are there already",
    ),
    Idle(
        ("sampler.explore_window",),
        _is("sampler.explore_by", "chance"),
        "sampler.explore_by: chance draws among all who were never tried",
    ),
    Idle(
        ("protocol.interval", "protocol.adapt"),
        lambda e: e.protocol.kind == "tiers" and value_of(e, "protocol.probabilities") != "adaptive",
        "protocol.probabilities is not adaptive",
    ),
    Idle(
        ("wire.rounding",),
        lambda e: e.wire.dtype == e.wire.down_dtype == "float32",
        "wire.dtype and down_dtype are float32, which nothing is rounded to",
    ),
    Idle(
        ("task.data_config", "task.data_revision"),
        _no_hub,
        "task.data is no data set of the hub",
    ),
    Idle(
        ("task.features.weights",),
        _no_inception,
        "neither task.features.kind nor also is inception",
    ),
    Idle(
        ("task.partition.topics",),
        _is("task.partition.over", "label"),
        "task.partition.over: label makes the classes",
    ),
    Idle(
        ("task.partition.sigma",),
        _is("task.partition.law", "zipf"),
        "task.partition.law is zipf",
    ),
    Idle(
        ("task.partition.exponent",),
        _is("task.partition.law", "lognormal"),
        "task.partition.law is lognormal",
    ),
    Idle(
        ("lora.r", "lora.alpha", *OF_MODELS),
        lambda e: e.task.kind == "quadratic" and value_of(e, "task.layout") == "whole",
        "the task quadratic with layout: whole has one tensor and no model",
    ),
    Idle(
        OF_MODELS,
        lambda e: e.task.kind == "quadratic" and value_of(e, "task.layout") == "lora",
        "the task quadratic has matrices of its own and no model",
    ),
    Idle(
        ("runtime.address", "runtime.workers"),
        _is("runtime.executor", "inline"),
        "runtime.executor: inline trains in this process",
    ),
)


def idle(plan: Plan) -> Iterator[str]:
    """Yield a sentence for every reason that settings of a plan do nothing, with the settings that were given."""
    experiment = plan.experiment
    for one in IDLE:
        if one.idle(experiment):
            given = [key for key in one.keys if key not in plan.filled and _was_given(experiment, key)]
            if given:
                yield f"{', '.join(given)} has no effect: {one.why}"


def _was_given(experiment: Experiment, path: str) -> bool:
    """Tell whether a setting is another one than it is if nothing is said."""
    home, _, name = path.rpartition(".")
    block = value_of(experiment, home)
    field = type(block).model_fields.get(name) if isinstance(block, BaseModel) else None
    return field is not None and getattr(block, name) != field.get_default(call_default_factory=True)
