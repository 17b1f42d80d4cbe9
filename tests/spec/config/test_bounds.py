"""Counts and amounts have a largest value, and true is no number wherever it stands."""

from __future__ import annotations

import pkgutil
import types
import typing
from importlib import import_module

import pytest
from annotated_types import Interval, Le, Lt

import fedsim
from fedsim.component import Config
from fedsim.errors import ExperimentError

SEEDS = {"seed", "population", "data", "training"}
"""Whole numbers that only address randomness."""


def blocks():
    """Every class of settings of fedsim."""
    for module in pkgutil.walk_packages(fedsim.__path__, "fedsim."):
        if "__main__" not in module.name and not module.name.startswith(
            ("fedsim.cli", "fedsim.executors.ray", "fedsim.training")
        ):
            import_module(module.name)
    waiting, found = [Config], set()
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__module__.startswith("fedsim"):
            found.add(cls)
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def unbounded(annotation, limits=(), number=int):
    """Whether an annotation has a whole (or a real) number without a largest value."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *rest = typing.get_args(annotation)
        more = [limit for item in rest for limit in (getattr(item, "metadata", None) or [item])]
        return unbounded(inner, (*limits, *more), number)
    if origin in (typing.Union, types.UnionType):
        return any(unbounded(part, limits, number) for part in typing.get_args(annotation))
    if origin is not None:
        parts = () if origin is typing.Literal else typing.get_args(annotation)
        return any(unbounded(part, (), number) for part in parts)
    return annotation is number and not any(isinstance(limit, Le | Lt | Interval) for limit in limits)


def test_every_count_of_the_settings_has_a_largest_value():
    fields = [
        f"{cls.__module__}.{cls.__qualname__}.{name}"
        for cls in blocks()
        for name, field in cls.model_fields.items()
        if name not in SEEDS and unbounded(field.annotation, tuple(field.metadata))
    ]
    assert fields == []


COMPARED = {"targets", "value", "observed"}
"""Scores that a run, and figures that a generator is held against: nothing is computed of them."""


def test_every_amount_of_the_settings_has_a_largest_value():
    fields = [
        f"{cls.__module__}.{cls.__qualname__}.{name}"
        for cls in blocks()
        for name, field in cls.model_fields.items()
        if name not in COMPARED and unbounded(field.annotation, tuple(field.metadata), float)
    ]
    assert fields == []


@pytest.mark.parametrize("value", [1e101, 1e300, float("inf"), float("nan")])
@pytest.mark.parametrize(
    "path", ["local.lr", "aggregator.server_lr", "server_optimizer.tau", "budget.time_s", "task.spread"]
)
def test_an_amount_whose_square_is_no_number_is_refused(path, value):
    experiment = changed(path, value)
    for block, kind in (("server_optimizer", "adam"), ("aggregator", "fedit")):
        if path.startswith(block):
            experiment[block]["kind"] = kind
    with pytest.raises(ExperimentError, match=path.replace(".", r"\.")):
        fedsim.Experiment.model_validate(experiment)


SOUND = {
    "population": {"preset": "mixed_edge_2025", "clients": 10},
    "task": {"kind": "quadratic"},
    "budget": {"commits": 2},
}


def changed(path, value):
    experiment = {**SOUND}
    *above, key = path.split(".")
    block = experiment
    for name in above:
        block[name] = dict(block.get(name, {}))
        block = block[name]
    block[key] = value
    return experiment


@pytest.mark.parametrize(
    "path",
    ["population.clients", "local.steps", "lora.r", "task.dimension", "budget.commits", "protocol.cohort"],
)
@pytest.mark.parametrize("value", [10**9 + 1, 10**18, 10**20])
def test_a_count_beyond_a_billion_is_refused(path, value):
    experiment = changed(path, value)
    if path == "protocol.cohort":
        experiment["protocol"]["kind"] = "synchronous"
    with pytest.raises(ExperimentError, match=path.replace(".", r"\.")):
        fedsim.Experiment.model_validate(experiment)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("lora", {"r": 1, "rank_by": "tier", "ranks": {"phone-low": True}}, r"lora\.ranks\.phone-low"),
        ("evaluate.targets", [True], r"evaluate\.targets"),
        ("population.clients", True, r"population\.clients"),
    ],
)
def test_true_is_no_number(path, value, where):
    with pytest.raises(ExperimentError, match=rf"{where}.*must be a number"):
        fedsim.Experiment.model_validate(changed(path, value))
