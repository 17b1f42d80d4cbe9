"""What the components of a run return and ask for, held against what their methods promise, at every call.

fedsim's own are held against it by the contract suite instead; a user's class is blamed by name, file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import GeneratorType

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import Aggregator, Offer, ServerModel
from fedsim.blame import is_users, name_of, place_of
from fedsim.clock.protocol import ServerProtocol, Steps
from fedsim.errors import RunError, message
from fedsim.jobs import Sums, Task, add_sums
from fedsim.optimizers._base import ServerOptimizer
from fedsim.samplers._base import PollingSampler, Sampler
from fedsim.samplers.seen import Counts


def chosen(sampler: Sampler, idle: Counts, n: int, clients: object) -> Counts:
    """Return what `choose` has returned: n different clients of `idle`, or more candidates of a sampler that polls.

    Raises:
        RunError: something else, by class, file and line.
    """
    if not is_users(sampler):
        return np.asarray(clients)
    most = len(idle) if isinstance(sampler, PollingSampler) else n
    return _clients(sampler, "choose", clients, idle, n, most, "idle")


def kept(sampler: PollingSampler, candidates: Counts, n: int, clients: object) -> Counts:
    """Return what `keep` has returned: at most n different candidates, at least one if there is one.

    Raises:
        RunError: something else, by class, file and line.
    """
    if not is_users(sampler):
        return np.asarray(clients)
    return _clients(sampler, "keep", clients, candidates, min(1, len(candidates)), n, "among the candidates")


def _clients(
    sampler: Sampler, method: str, clients: object, pool: Counts, least: int, most: int, words: str
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


def offered(rule: Aggregator, offer: object, size: int) -> Offer:
    """Return what a rule offers a client.

    Raises:
        RunError: it is no `Offer`, or its start is no adapter of this layout.
    """
    if not isinstance(offer, Offer):
        raise _wrong(rule, "offer", "returned no Offer", offer, "return fedsim.aggregators.Offer(...)")
    if is_users(rule):
        _vector(rule, "offer", "a start", offer.start, size)
    return offer


def applied(rule: Aggregator, result: object, size: int) -> tuple[ServerModel, object]:
    """Return the model and the state that a rule has made.

    Raises:
        RunError: it is no such pair, or the model is none of this layout.
    """
    model, state = _pair(result)
    if not isinstance(model, ServerModel):
        fix = "return (the new ServerModel, the new state)"
        raise _wrong(rule, "apply", "returned no pair of a model and a state", result, fix)
    if is_users(rule):
        _vector(rule, "apply", "a model", model.adapter.vector, size)
    return model, state


def stepped(optimizer: ServerOptimizer, result: object, size: int) -> tuple[Vector, object]:
    """Return the vector and the state that a server optimiser has made.

    Raises:
        RunError: it is no such pair, or the vector is none of this layout.
    """
    vector, state = _pair(result)
    if vector is None:
        fix = "return (the new vector, the new state)"
        raise _wrong(optimizer, "step", "returned no pair of a vector and a state", result, fix)
    return _vector(optimizer, "step", "a model", vector, size), state


def begun(protocol: ServerProtocol, steps: object) -> Steps:
    """Return the generator that `run` has made.

    Raises:
        RunError: it is none: the method has no `yield`.
    """
    if isinstance(steps, GeneratorType):
        return steps
    fix = "write it as a generator: `yield` what the server's verbs return"
    raise _wrong(protocol, "run", "is no generator", steps, fix)


def version_0(task: Task, vector: object) -> Vector:
    """Return what `initial` has returned.

    Raises:
        RunError: it is no float32 vector of the task's layout.
    """
    return _vector(task, "initial", "a model", vector, task.layout.size)


def metrics(task: Task, parts: Sequence[Sums]) -> dict[str, float]:
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


def _pair(result: object) -> tuple[object, object]:
    """Return the two entries of a pair, (None, None) of anything else."""
    first, second = result if isinstance(result, tuple) and len(result) == 2 else (None, None)
    return first, second


def _vector(component: object, method: str, name: str, vector: object, size: int) -> Vector:
    """Return a float32 vector of the layout's size; raise `RunError` if it is something else."""
    if not isinstance(vector, np.ndarray) or vector.shape != (size,):
        wrong = f"returned {name} of shape {np.asarray(vector).shape}, the layout needs ({size},)"
    elif vector.dtype != np.float32:
        wrong = f"returned {name} of {vector.dtype} numbers, not float32"
    else:
        return vector
    fix = "return a float32 vector like `model.adapter.vector`: `.astype(np.float32)`"
    what = f"`{name_of(component)}.{method}` {wrong}"
    raise RunError(message(place_of(component, method), what, fix=fix))


def _wrong(component: object, method: str, what: str, got: object, fix: str) -> RunError:
    shown = list(got)[:20] if isinstance(got, Sequence) and not isinstance(got, str) else got
    text = f"`{name_of(component)}.{method}` {what}"
    return RunError(message(place_of(component, method), text, got=shown, fix=fix))
