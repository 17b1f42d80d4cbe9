"""What the components of a run return and ask for, held against what their methods promise, at every call.

fedsim's own are held against it by the contract suite instead; a user's class is blamed by name, file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import GeneratorType
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import Aggregator, Offer, ServerModel
from fedsim.blame import is_users, name_of, place_of
from fedsim.clock.protocol import ServerProtocol, Steps
from fedsim.errors import RunError, message
from fedsim.jobs import Task, add_sums
from fedsim.optimizers._base import ServerOptimizer
from fedsim.samplers._base import PollingSampler, Sampler
from fedsim.samplers.seen import Counts


def chosen(sampler: Sampler, idle: Counts, n: int, clients: Any) -> Counts:
    """Return what `choose` has returned: n different clients of `idle`, or more candidates of a sampler that polls.

    Raises:
        RunError: something else, by class, file and line.
    """
    if not is_users(sampler):
        return np.asarray(clients)
    most = len(idle) if isinstance(sampler, PollingSampler) else n
    return _clients(sampler, "choose", clients, idle, n, most, "idle")


def kept(sampler: PollingSampler, candidates: Counts, n: int, clients: Any) -> Counts:
    """Return what `keep` has returned: at most n different candidates, at least one if there is one.

    Raises:
        RunError: something else, by class, file and line.
    """
    if not is_users(sampler):
        return np.asarray(clients)
    return _clients(sampler, "keep", clients, candidates, min(1, len(candidates)), n, "among the candidates")


def _clients(
    sampler: Sampler, method: str, clients: Any, pool: Counts, least: int, most: int, words: str
) -> Counts:
    array, what = np.asarray(clients), None
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        what, got = "returned no array of client numbers", clients
    elif not least <= len(array) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        what, got = f"returned {len(array)} clients where {wanted} were asked for", array.tolist()
    elif len(np.unique(array)) < len(array):
        values, counts = np.unique(array, return_counts=True)
        what, got = f"returned client {values[counts.argmax()]} more than once", array.tolist()
    elif not np.isin(array, pool).all():
        stranger = array[~np.isin(array, pool)][0]
        what, got = f"returned client {stranger}, who is not {words}", array.tolist()
    if what is not None:
        fix = f"return different clients of what `{method}` was given"
        raise _wrong(sampler, method, what, got, fix)
    return array.astype(np.int64)


def offered(rule: Aggregator, offer: Any, size: int) -> Offer:
    """Return what a rule offers a client.

    Raises:
        RunError: it is no `Offer`, or its start is no adapter of this layout.
    """
    if is_users(rule):
        if not isinstance(offer, Offer):
            raise _wrong(rule, "offer", "returned no Offer", offer, "return fedsim.aggregators.Offer(...)")
        _check_vector(rule, "offer", "a start", offer.start, size)
    return offer  # type: ignore[no-any-return]  # our own rules are typed


def applied(rule: Aggregator, result: Any, size: int) -> tuple[ServerModel, Any]:
    """Return the model and the state that a rule has made.

    Raises:
        RunError: it is no such pair, or the model is none of this layout.
    """
    if is_users(rule):
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], ServerModel)
        if not pair:
            fix = "return (the new ServerModel, the new state)"
            raise _wrong(rule, "apply", "returned no pair of a model and a state", result, fix)
        _check_vector(rule, "apply", "a model", result[0].adapter.vector, size)
    return result  # type: ignore[no-any-return]  # our own rules are typed


def stepped(optimizer: ServerOptimizer, result: Any, size: int) -> tuple[Any, Any]:
    """Return the vector and the state that a server optimiser has made.

    Raises:
        RunError: it is no such pair, or the vector is none of this layout.
    """
    if is_users(optimizer):
        if not (isinstance(result, tuple) and len(result) == 2):
            fix = "return (the new vector, the new state)"
            raise _wrong(optimizer, "step", "returned no pair of a vector and a state", result, fix)
        _check_vector(optimizer, "step", "a model", result[0], size)
    return result  # type: ignore[no-any-return]  # our own optimisers are typed


def begun(protocol: ServerProtocol, steps: Any) -> Steps:
    """Return the generator that `run` has made.

    Raises:
        RunError: it is none: the method has no `yield`.
    """
    if isinstance(steps, GeneratorType):
        return steps
    fix = "write it as a generator: `yield` what the server's verbs return"
    raise _wrong(protocol, "run", "is no generator", steps, fix)


def version_0(task: Task, vector: Any) -> Vector:
    """Return what `initial` has returned.

    Raises:
        RunError: it is no float32 vector of the task's layout.
    """
    _check_vector(task, "initial", "a model", vector, task.layout.size)
    adapter: Vector = vector
    return adapter


def metrics(task: Task, parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the metrics that a task makes of the sums of an evaluation.

    Raises:
        RunError: there are none, or one is no number.
    """
    made = task.metrics(add_sums(parts))
    numbers = isinstance(made, Mapping) and all(isinstance(m, int | float | np.number) for m in made.values())
    if not made or not numbers:
        fix = "return a dict of names and numbers, the headline first"
        raise _wrong(task, "metrics", "returned no metrics", made, fix)
    return dict(made)


def _check_vector(component: Any, method: str, name: str, vector: Any, size: int) -> None:
    wrong = None
    if not isinstance(vector, np.ndarray) or vector.shape != (size,):
        wrong = f"returned {name} of shape {np.shape(vector)}, the layout needs ({size},)"
    elif vector.dtype != np.float32:
        wrong = f"returned {name} of {vector.dtype} numbers, not float32"
    if wrong is not None:
        fix = "return a float32 vector like `model.adapter.vector`: `.astype(np.float32)`"
        raise RunError(
            message(place_of(component, method), f"`{name_of(component)}.{method}` {wrong}", fix=fix)
        )


def _wrong(component: Any, method: str, what: str, got: Any, fix: str) -> RunError:
    shown = list(got)[:20] if isinstance(got, Sequence) and not isinstance(got, str) else got
    text = f"`{name_of(component)}.{method}` {what}"
    return RunError(message(place_of(component, method), text, got=shown, fix=fix))
