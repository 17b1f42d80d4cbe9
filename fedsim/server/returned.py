"""What the components of a run return and ask for, held against what their methods promise, at every call.

fedsim's own are held against it by the contract suite instead; a user's class is blamed by name, file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import GeneratorType

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import Aggregator, ServerModel
from fedsim.aggregators._returned import checked_vector, wrong
from fedsim.blame import is_users, place_of
from fedsim.clock.protocol import ServerProtocol, Steps
from fedsim.component import Component
from fedsim.config.problem import Problem
from fedsim.errors import RunError, message
from fedsim.jobs import Sums, Task
from fedsim.metrics.sums import add_sums
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
    try:
        array, what = np.asarray(clients), None
    except ValueError:  # lists of several lengths
        array, what = np.zeros((0, 0)), None
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
        raise wrong(sampler, method, what, got, fix)
    return array.astype(np.int64)


def applied(rule: Aggregator, result: object, size: int) -> tuple[ServerModel, object]:
    """Return the model and the state that a rule has made.

    Raises:
        RunError: it is no such pair, or the model is none of this layout.
    """
    model, state = _pair(result)
    if not isinstance(model, ServerModel):
        fix = "return (the new ServerModel, the new state)"
        raise wrong(rule, "apply", "returned no pair of a model and a state", result, fix)
    if is_users(rule):
        checked_vector(rule, "apply", "a model", model.adapter.vector, size)
    return model, state


def stepped(optimizer: ServerOptimizer, result: object, size: int) -> tuple[Vector, object]:
    """Return the vector and the state that a server optimiser has made.

    Raises:
        RunError: it is no such pair, or the vector is none of this layout.
    """
    vector, state = _pair(result)
    if vector is None:
        fix = "return (the new vector, the new state)"
        raise wrong(optimizer, "step", "returned no pair of a vector and a state", result, fix)
    return checked_vector(optimizer, "step", "a model", vector, size), state


METHODS = {"aggregator": "apply", "server_optimizer": "step", "protocol": "run"}
"""Block -> the method that makes a model of what has come in."""


def refuse_infinite(block: str, component: Component, vector: Vector, version: int, fix: str) -> None:
    """Raise if what a component has made of finite numbers is not finite; a user's is named with file and line.

    Raises:
        RunError: as said.
    """
    if not np.all(np.isfinite(vector)):
        place = f" ({place_of(component, METHODS[block])})" if is_users(component) else ""
        what = f"made version {version} infinite from finite updates"
        raise RunError(message(f"{block} {component.kind}{place}", what, fix=fix))


def begun(protocol: ServerProtocol, steps: object) -> Steps:
    """Return the generator that `run` has made.

    Raises:
        RunError: it is none: the method has no `yield`.
    """
    if isinstance(steps, GeneratorType):
        return steps
    fix = "write it as a generator: `yield` what the server's verbs return"
    raise wrong(protocol, "run", "is no generator", steps, fix)


def problems(protocol: ServerProtocol, clients: int) -> list[Problem]:
    """Return what a protocol says that it cannot have with so many clients.

    Raises:
        RunError: what it has returned is no list of problems.
    """
    told: object = protocol.problems(clients)
    if not isinstance(told, list) or not all(isinstance(problem, Problem) for problem in told):
        fix = "return a list of fedsim.config.problem.Problem, [] where there is none"
        raise wrong(protocol, "problems", "returned no list of problems", told, fix)
    return told


def version_0(task: Task, vector: object) -> Vector:
    """Return what `initial` has returned.

    Raises:
        RunError: it is no float32 vector of the task's layout.
    """
    return checked_vector(task, "initial", "a model", vector, task.layout.size)


def metrics(task: Task, parts: Sequence[Sums]) -> dict[str, float]:
    """Return the metrics that a task makes of the sums of an evaluation.

    Raises:
        RunError: there are none, or one is no number.
    """
    made = task.metrics(add_sums(parts))
    numbers = isinstance(made, Mapping) and all(isinstance(m, int | float | np.number) for m in made.values())
    if not made or not numbers:
        fix = "return a dict of names and numbers, the headline first"
        raise wrong(task, "metrics", "returned no metrics", made, fix)
    return dict(made)


def _pair(result: object) -> tuple[object, object]:
    """Return the two entries of a pair, (None, None) of anything else."""
    first, second = result if isinstance(result, tuple) and len(result) == 2 else (None, None)
    return first, second
