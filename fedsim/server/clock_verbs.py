"""The verbs that change nothing: the clock's own, and what a protocol may know of the experiment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from typing import Any

import simpy

from fedsim.clock.plan import Plan
from fedsim.instants import At, Closing, Instant


class ClockVerbs(ABC):
    """Virtual time, and the plan that is carried out in it.

    Attributes:
        env: the clock.
        plan: of the experiment.
    """

    def __init__(self, env: simpy.Environment, plan: Plan) -> None:
        """Stand at the environment's time."""
        self.env, self.plan = env, plan

    # the plan -----------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self.plan.population)

    @property
    def seed(self) -> int:
        """The seed of training, for what a protocol draws."""
        return self.plan.experiment.training_seed

    def steps(self, client: int) -> int:
        """Return the optimiser steps of a whole visit of a client."""
        return self.plan.steps(client)

    def rank(self, client: int) -> int:
        """Return the slots of each factor that a client trains in a whole visit; 0 for whole models."""
        return self.plan.rank(client)

    # the clock ----------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The time now [virtual s]."""
        return float(self.env.now)

    def process(self, generator: Generator[Any, Any, Any]) -> simpy.Process:
        """Start a process."""
        return self.env.process(generator)

    def event(self) -> simpy.Event:
        """Return an event that happens when somebody says so (`succeed`)."""
        return self.env.event()

    def timeout(self, delay_s: float) -> simpy.Event:
        """Return an event `delay_s` from now [virtual s]."""
        return self.env.timeout(delay_s)

    def all_of(self, events: Iterable[simpy.Event]) -> simpy.Event:
        """Return the event that all have happened."""
        return self.env.all_of(events)

    def turn(self, instant: Instant, *, at_s: float | None = None) -> simpy.Event:
        """Return the event that an instant (None: this one) has come to its commits (or dispatches)."""
        if at_s is None:
            return At(self.env, 0.0, instant)
        return Closing(self.env, at_s - self.env.now, instant, self.next_landing_s)

    @abstractmethod
    def next_landing_s(self) -> float:
        """Return when the first update that is on its way lands [virtual s]; inf: none is."""
