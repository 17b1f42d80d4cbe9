"""Vectors that executors hold: each is shared once and forgotten when nobody needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fedsim.adapters.adapter import Vector
from fedsim.executors import Executor
from fedsim.jobs import Job


class Handles:
    """Handles of arrays for one executor: an array that several jobs use is shared once.

    An array is known by its identity, which is its own as long as it is held here.
    """

    def __init__(self, executor: Executor) -> None:
        """Start with nothing shared."""
        self._executor = executor
        self._shared: dict[int, tuple[Vector, Any]] = {}

    def of(self, vector: Vector) -> Any:
        """Return the handle of an array."""
        if id(vector) not in self._shared:
            self._shared[id(vector)] = (vector, self._executor.share(vector))
        return self._shared[id(vector)][1]

    def of_change(self, vector: Vector | None) -> Any:
        """Return the handle of a change of the frozen weights; None where there is none."""
        return None if vector is None else self.of(vector)

    def in_place(self, job: Job) -> Job:
        """Return a job with handles in place of what several clients have in common: anchor and base."""
        return replace(job, anchor=self.of_change(job.anchor), base=self.of_change(job.base))

    def keep_only(self, needed: Callable[[Vector], bool]) -> None:
        """Let go of the arrays that are not needed any more; jobs that have their handles hold these."""
        self._shared = {key: pair for key, pair in self._shared.items() if needed(pair[0])}


def read_only(vector: Vector) -> Vector:
    """Return a view of an array of a single client, which travels with its job."""
    view = vector.view()
    view.flags.writeable = False
    return view
