"""A user's class and its settings: what a process needs to build the model and to ask for data, once, and check them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from fedsim.blame import described, place_in
from fedsim.errors import DataError, ExperimentError, FedsimError, Terminated, message
from fedsim.rng import seed_of
from fedsim.training.local import one_thread
from fedsim.training.own.base import Pool, TorchTask
from fedsim.training.own.chance import drawing
from fedsim.training.own.examples import Examples, examples_of, joined

FIRST = 8
"""Numbers of a tensor that are compared one by one."""
WHERE = "task.module"


@contextmanager
def asking(task: TorchTask, method: str) -> Iterator[None]:
    """Turn what a method of the user's raises into a sentence that says which line of which file did.

    Raises:
        ExperimentError: the method raised.
    """
    try:
        yield
    except (FedsimError, Terminated):
        raise
    except (Exception, SystemExit) as problem:
        place = place_in(problem)
        at = f" ({place})" if place else ""
        what = f"`{type(task).__name__}.{method}` raised {described(problem)}{at}"
        fix = "mend that line" if place else f"mend `{method}`"
        raise ExperimentError(message(WHERE, what, fix=fix)) from problem


@dataclass(frozen=True)
class Source:
    """A class of the user's, with its settings.

    Attributes:
        kind: the class.
        settings: values of its fields, as JSON.
        seed: address of the model's first weights.
        data_seed: address of what the functions of the data draw from torch's generator.
    """

    kind: type[TorchTask]
    settings: str
    seed: int
    data_seed: int

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return self.kind.__name__

    @property
    def task(self) -> TorchTask:
        """The instance of this process."""
        return _task(self.kind, self.settings)

    def model(self) -> nn.Module:
        """Return the model, newly built, in evaluation mode.

        Raises:
            ExperimentError: `model` raised, or returned something else.
        """
        task = self.task
        _silence()
        with asking(task, "model"), drawing(seed_of(self.seed, "model")), one_thread(), torch.enable_grad():
            model = task.model()
        if not isinstance(model, nn.Module):
            what = f"`{self.name}.model` returns a {type(model).__name__}, which is no torch.nn.Module"
            raise ExperimentError(message(WHERE, what, fix="return the module that `loss` is called with"))
        if any(isinstance(p, nn.parameter.UninitializedTensorMixin) for p in model.parameters()):
            what = f"`{self.name}.model` returns lazy layers, whose shapes nobody knows yet"
            raise ExperimentError(
                message(WHERE, what, fix="give their sizes, or run the model once in model()")
            )
        if any(t.is_meta for t in [*model.parameters(), *model.buffers()]):
            what = f"`{self.name}.model` returns tensors on the device meta, which have no numbers"
            raise ExperimentError(message(WHERE, what, fix="build the module on the CPU, with its weights"))
        return model.eval()

    def client(self, client: int) -> tuple[Examples, int]:
        """Return a client's own examples, those behind that it says it keeps apart, and how many are not of these."""
        return _client(self, client)

    def pool(self) -> Pool | None:
        """Return all examples, for fedsim to deal, the examples in it as `Examples`."""
        return _pool(self)

    def test(self) -> Examples | None:
        """Return what the class says nobody trains on."""
        return _test(self)

    def examples(self, value: object, method: str) -> Examples:
        """Return what a method gave as examples.

        Raises:
            DataError: it gave something else.
        """
        try:
            return examples_of(value)
        except ValueError as problem:
            fix = "return a tensor, a tuple or a dict of tensors, or a data set of samples"
            raise DataError(message(WHERE, f"`{self.name}.{method}` gives {problem}", fix=fix)) from problem


@lru_cache(maxsize=8)
def _task(kind: type[TorchTask], settings: str) -> TorchTask:
    return kind.model_validate(json.loads(settings))


@lru_cache(maxsize=256)
def _client(source: Source, client: int) -> tuple[Examples, int]:
    task = source.task
    with asking(task, "data"), drawing(seed_of(source.data_seed, "data", client)):
        value = task.data(client)
    examples = source.examples(value, f"data({client})")
    if not len(examples):
        fix = "give every client of population.clients at least one, or take fewer clients"
        raise DataError(message(WHERE, f"`{source.name}.data({client})` has no example", fix=fix))
    with asking(task, "held_out"), drawing(seed_of(source.data_seed, "held-out", client)):
        value = task.held_out(client)
    if value is None:
        return examples, len(examples)
    apart = source.examples(value, f"held_out({client})")
    if len(apart) and apart.kind != examples.kind:
        what = f"`{source.name}.held_out({client})` gives {apart}, and `data({client})` {examples}"
        raise DataError(message(WHERE, what, fix="give examples of one shape and type"))
    return (joined([examples, apart]) if len(apart) else examples), len(examples)


@lru_cache(maxsize=2)
def _pool(source: Source) -> Pool | None:
    task = source.task
    with asking(task, "pool"), drawing(seed_of(source.data_seed, "pool")):
        pool: object = task.pool()
    if pool is None:
        return None
    if not isinstance(pool, Pool):
        what = f"`{source.name}.pool` returns a {type(pool).__name__}, which is no Pool"
        raise DataError(message(WHERE, what, fix="return fedsim.Pool(examples, labels)"))
    return replace(pool, examples=source.examples(pool.examples, "pool"))


@lru_cache(maxsize=2)
def _test(source: Source) -> Examples | None:
    task = source.task
    with asking(task, "test"), drawing(seed_of(source.data_seed, "test")):
        value = task.test()
    return None if value is None else source.examples(value, "test")


def _silence() -> None:
    """Keep transformers from drawing bars, if the user's code has it."""
    transformers = sys.modules.get("transformers")
    if transformers is not None:
        transformers.utils.logging.disable_progress_bar()


def forget() -> None:
    """Let go of instances and data: what is asked for next is made anew."""
    for kept in (_task, _client, _pool, _test):
        kept.cache_clear()


@dataclass(frozen=True)
class Sketch:
    """What a tensor of a model is like: enough to tell whether two processes have built the same model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: float
    first: tuple[float, ...]

    def like(self, other: Sketch) -> bool:
        """Tell whether another tensor is this one, up to rounding: processors may differ in the last bits."""
        return self.shaped_like(other) and bool(
            np.allclose((self.size, *self.first), (other.size, *other.first), rtol=1e-3, atol=1e-6)
        )

    def shaped_like(self, other: Sketch) -> bool:
        """Tell whether another tensor has this name, shape and type."""
        return (self.name, self.shape, self.dtype) == (other.name, other.shape, other.dtype)


def sketches(model: nn.Module) -> tuple[Sketch, ...]:
    """Return what a model's parameters and buffers are like, in its order."""
    return tuple(_sketch(name, t) for name, t in [*model.named_parameters(), *model.named_buffers()])


def _sketch(name: str, tensor: Tensor) -> Sketch:
    values = tensor.detach().reshape(-1)
    size = float(values.abs().sum(dtype=torch.float64)) if values.numel() and not values.is_complex() else 0.0
    numbers = values[:FIRST].real if values.is_complex() else values[:FIRST]
    first = tuple(numbers.to(torch.float64).tolist())
    return Sketch(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), size, first)


def difference(here: tuple[Sketch, ...], there: tuple[Sketch, ...]) -> str | None:
    """Return in what two models differ, in words; None if in nothing.

    Args:
        here: the model that is looked at.
        there: the one that it should be.
    """
    if [s.name for s in here] != [s.name for s in there]:
        names = {s.name for s in here} ^ {s.name for s in there}
        return f"it has other tensors ({', '.join(sorted(names)[:3]) or 'in another order'})"
    for one, other in zip(here, there, strict=True):
        if not one.shaped_like(other):
            return f"{one.name} is {one.dtype} {one.shape}, and was {other.dtype} {other.shape}"
        if not one.like(other):
            return f"{one.name} has other numbers"
    return None
