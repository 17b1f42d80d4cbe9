"""Ray's actors as the workers of a `JobQueue`. Takes the `ray` module as an argument."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fedsim.blame import described, name_of
from fedsim.errors import HostError, message
from fedsim.executors.calls import Item, Verb
from fedsim.executors.cluster.depot import Shipment
from fedsim.executors.faults.head import Head
from fedsim.executors.host import INLINE
from fedsim.executors.packing import packed, unpacked
from fedsim.executors.pool import WorkerLost
from fedsim.executors.ray_errors import cause_of, lost, trouble
from fedsim.executors.ray_worker import Shared, Worker
from fedsim.jobs import Task

FETCH_S = 60.0
"""Longest wait for an answer that Ray says is there."""


class RayPool:
    """Actors as a `Pool`; on a cluster they are told in a `shipment` what comes with the task."""

    def __init__(self, ray: Any, gpus: float) -> None:
        self.ray = ray
        self.task: Task | None = None
        self.shipment: Shipment | None = None
        self._spare: list[Any] = []
        # no restarts and no retries of Ray's: `JobQueue` does both
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(**options)(Worker)
        self._gpus = gpus
        self._lost = lost(ray)
        self.head = Head(ray)

    def prestart_workers(self, workers: int, modules: Sequence[str]) -> None:
        """Start workers that will be wanted, and have them import what they will need."""
        self._spare = [self._actor.remote() for _ in range(workers)]
        for worker in self._spare:
            worker.load_modules.remote(list(modules), list(sys.path), self._gpus > 0)

    def stop_spare_workers(self) -> None:
        """Stop the workers that were started ahead and turned out to be too many."""
        while self._spare:
            self.stop(self._spare.pop())

    def hold_task(self, task: Task) -> None:
        """Put the task into the object store; the reference is held for workers to come.

        Raises:
            HostError: it cannot be pickled, or has no place there.
        """
        try:
            self.task, self._task = task, self.put(task)
        except (TypeError, AttributeError, pickle.PicklingError) as problem:
            what = f"cannot be sent to the workers: it cannot be pickled ({described(problem)})"
            fix = f"leave out of it what is open or a lambda; or {INLINE}"
            raise HostError(message(f"task {name_of(task)}", what, fix=fix)) from problem

    def put(self, value: object) -> object:
        """Put a value into the object store; raises HostError if it has no place there."""
        try:
            return self.ray.put(value)
        except self.ray.exceptions.RayError as problem:
            raise trouble(problem) from problem

    def restore(self, items: Sequence[Item]) -> None:
        """Put the task and the vectors of some items into the object store again."""
        if self.task is not None:
            self.hold_task(self.task)
        for shared in {v.number: v for item in items for v in item.vectors if isinstance(v, Shared)}.values():
            shared.ref = self.put(shared.vector)

    def check(self) -> None:
        """Raise a HostError if Ray's head is gone."""
        self.head.check()

    def start(self) -> Any:
        """Take a worker that was started ahead, or start one."""
        return self._spare.pop(0) if self._spare else self._actor.remote()

    def prepare(self, worker: Any) -> Any:
        """Give a worker the task."""
        # in a list: passed as a reference
        return worker.take_task.remote([self._task], list(sys.path), self._gpus > 0, self.shipment)

    def submit(self, worker: Any, verb: Verb, items: Sequence[Item]) -> Any:
        """Queue a call on a worker, with the references of its shared vectors."""
        refs = {v.number: v.ref for item in items for v in item.vectors if isinstance(v, Shared)}
        return worker.call.remote(verb, packed(items), refs)

    def wait(self, refs: Sequence[Any], timeout_s: float) -> list[Any]:
        """Return what has an answer; all of it at once, if there is any."""
        if not refs:
            return []
        ready, rest = self.ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
        if not ready and timeout_s:
            ready, _ = self.ray.wait(rest, num_returns=1, timeout=timeout_s, fetch_local=False)
        return list(ready)

    def fetch(self, ref: Any) -> Any:
        """Return the answer; raises WorkerLost or HostError."""
        try:
            return unpacked(self.ray.get(ref, timeout=FETCH_S))
        except self._lost as problem:
            objects = isinstance(problem, self.ray.exceptions.ObjectLostError)
            raise WorkerLost(cause_of(problem), objects=objects) from None
        except self.ray.exceptions.RayError as problem:
            raise trouble(problem) from problem

    def stop(self, worker: Any) -> None:
        """Kill a worker."""
        with suppress(Exception):  # it may be gone, and so may Ray
            if not self.head.is_gone:
                self.ray.kill(worker, no_restart=True)

    def facts(self) -> str:
        """Return what Ray has and what of it is free."""
        try:
            have, free = self.ray.cluster_resources(), self.ray.available_resources()
        except Exception:
            return "Ray does not answer"
        return f"Ray has {have.get('CPU', 0):g} CPUs, {free.get('CPU', 0):g} free"
