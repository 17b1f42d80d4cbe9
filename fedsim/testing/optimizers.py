"""What every server optimiser owes the server: a step of the adapter that is a function of the rule's move."""

from __future__ import annotations

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.component import Component, placed
from fedsim.optimizers._base import ServerOptimizer
from fedsim.testing.words import fingerprint, hold, is_vector, name_of

SIZE, STEPS = 24, 5


def check_optimizer(optimizer: Component) -> None:
    """Let an optimiser make five steps of random moves.

    Args:
        optimizer: with the hyperparameters to try.

    Raises:
        AssertionError: a sentence that names the property.
        TypeError: the component is no server optimiser.
    """
    component = placed("optimizers", optimizer)
    if not isinstance(component, ServerOptimizer):
        raise TypeError(f"{name_of(optimizer)} is no server optimiser")
    steps_are_pure(component)
    keeps_the_shape(component)
    rests_where_nothing_has_moved(component)
    goes_with_the_first_move(component)


def _vector(*address: int) -> Vector:
    return np.random.default_rng(address).standard_normal(SIZE).astype(np.float32)


def steps_are_pure(optimizer: ServerOptimizer) -> None:
    """`step` leaves state and vectors as they are and gives the same again."""
    state, before, name = optimizer.init(SIZE), _vector(0), name_of(optimizer)
    for number in range(STEPS):
        after, staleness = _vector(1, number), number % 3
        given = fingerprint([state, before, after])
        first = optimizer.step(state, before, after, staleness)
        again = optimizer.step(state, before, after, staleness)
        hold(
            fingerprint(first) == fingerprint(again), f"{name}.step answers otherwise when it is asked again"
        )
        hold(fingerprint([state, before, after]) == given, f"{name}.step changes what it is given")
        before, state = first


def keeps_the_shape(optimizer: ServerOptimizer) -> None:
    """A step gives finite float32 numbers, as many as there were."""
    state, vector, name = optimizer.init(SIZE), _vector(0), name_of(optimizer)
    for number in range(STEPS):
        vector, state = optimizer.step(state, vector, vector + 0.1 * _vector(2, number), 0)
        is_shaped = is_vector(vector, SIZE)
        hold(is_shaped, f"{name}.step gives {vector.dtype} {vector.shape}, not float32 ({SIZE},)")
        hold(np.isfinite(vector).all(), f"{name}.step gives numbers that are not finite")


def rests_where_nothing_has_moved(optimizer: ServerOptimizer) -> None:
    """A first step after a rule that has moved nothing leaves the adapter."""
    before = _vector(0)
    vector, _ = optimizer.step(optimizer.init(SIZE), before, before.copy(), 0)
    hold(
        np.array_equal(vector, before),
        f"{name_of(optimizer)}.step moves an adapter that the rule has not moved",
    )


def goes_with_the_first_move(optimizer: ServerOptimizer) -> None:
    """The first step goes the way of the rule's move, not against it."""
    before, move = _vector(0), 0.1 * _vector(3)
    vector, _ = optimizer.step(optimizer.init(SIZE), before, before + move, 0)
    along = float(np.dot((vector - before).astype(np.float64), move))
    hold(along > 0, f"the first step of {name_of(optimizer)} goes against the rule's move")
