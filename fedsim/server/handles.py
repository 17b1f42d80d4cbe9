"""Vectors that executors hold: each is shared once and forgotten when nobody needs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedsim.adapters.adapter import Vector
from fedsim.executors import Executor
from fedsim.jobs import Job


class Handles:
    """Handles of arrays for one executor: an array that several jobs use is shared once."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._shared: dict[int, tuple[Vector, Any]] = {}

    def of(self, vector: Vector | None) -> Any:
        """Return the handle of an array; None for None."""
        if vector is None:
            return None
        if id(vector) not in self._shared:
            self._shared[id(vector)] = (vector, self._executor.share(vector))
        return self._shared[id(vector)][1]

    def in_place(self, job: Job) -> Job:
        """Return a job with handles in place of what several clients have in common: anchor and base."""
        return replace(job, anchor=self.of(job.anchor), base=self.of(job.base))
