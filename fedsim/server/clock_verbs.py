"""The verbs that change nothing: the clock's own, and what a protocol may know of the experiment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from typing import Any

import simpy

from fedsim.clock.plan import Plan
from fedsim.errors import RunError, message
from fedsim.instants import At, Closing, Instant

SHORT_WAIT_S, SHORT_WAITS = 1e-3, 1_000_000
"""Waits of a protocol that get a run nowhere: so short, and so many of them without a dispatch."""


class ClockVerbs(ABC):
    """Virtual time, and the plan that is carried out in it.

    Attributes:
        env: the clock.
        plan: of the experiment.
    """

    def __init__(self, env: simpy.Environment, plan: Plan) -> None:
        """Stand at the environment's time."""
        self.env, self.plan = env, plan
        self._short_waits, self._clients = 0, len(plan.population)

    # the plan -----------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return self._clients

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
        """Return an event `delay_s` from now [virtual s].

        Raises:
            RunError: it is one of `SHORT_WAITS` in a row without a dispatch that take next to no time.
        """
        self._count_wait(delay_s)
        return self.env.timeout(delay_s)

    def all_of(self, events: Iterable[simpy.Event]) -> simpy.Event:
        """Return the event that all have happened."""
        return self.env.all_of(events)

    def turn(self, instant: Instant, *, at_s: float | None = None) -> simpy.Event:
        """Return the event that an instant (None: this one) has come to its commits (or dispatches)."""
        if at_s is None:
            return At(self.env, 0.0, instant)
        self._count_wait(at_s - self.now_s)
        return Closing(self.env, at_s - self.env.now, instant, self.next_landing_s)

    def _count_wait(self, delay_s: float) -> None:
        self._short_waits += delay_s < SHORT_WAIT_S
        if self._short_waits >= SHORT_WAITS:
            what = f"has waited {SHORT_WAITS:,} times for less than {SHORT_WAIT_S:g} s each and asked nobody"
            fix = "have it wait for visits, or for longer times"
            raise RunError(message(f"protocol {self.plan.experiment.protocol.kind}", what, fix=fix))

    @abstractmethod
    def next_landing_s(self) -> float:
        """Return when the first update that is on its way lands [virtual s]; inf: none is."""
