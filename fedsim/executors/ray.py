"""The executor on Ray: a few actors that hold the task once and are handed client after client.

Actors, never tasks (a plain task deadlocks silently when actors hold all CPUs, and loses cached
backbones). Lost calls are given to another actor by our own queue (`fedsim.executors.queue`):
Ray's retries are used up before a dead node is noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Literal

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.errors import HostError, message
from fedsim.executors import ray_session as session
from fedsim.executors._base import Executor, Ticket
from fedsim.executors.cluster.nodes import Fleet
from fedsim.executors.pool import Call
from fedsim.executors.queue import JobQueue
from fedsim.executors.ray_cluster import join
from fedsim.executors.ray_pool import RayPool
from fedsim.executors.ray_worker import Shared
from fedsim.jobs import FileKind, Job, ScoreJob, Task

log = logging.getLogger(__name__)


class RayExecutor(Executor):
    """Real work in `workers` processes of this machine, or of a cluster.

        closed --prestart--> prestarted --open--> ready --open (another task)--> ready --close--> closed
          |                                         ^
          +------------------ open -----------------+

    prestarted: a Ray of our own and its workers are on their way, without a task (`_pool`, no `_queue`).
    ready: every worker holds the task. What fails on the way leads back to closed.

    Args:
        workers: processes; `auto` is as many as there are cores, and memory for them.
        address: HOST:PORT of a running cluster (`auto` inside a Ray job); None starts Ray here.
        gpus_per_worker: share of a GPU each worker reserves (0 hides GPUs from it).
        watchdog_s: real seconds without any answer before the workers that hold work are given up.
        ship: which of the files that workers read are sent to the nodes of a cluster.

    A Ray that this process has connected to already is used and left running.
    """

    def __init__(
        self,
        workers: int | Literal["auto"] = "auto",
        address: str | None = None,
        gpus_per_worker: float = 0.0,
        watchdog_s: float = 600.0,
        ship: Sequence[FileKind] = (),
    ) -> None:
        self._wanted_workers, self._address = workers, address
        self._gpus, self._watchdog_s = gpus_per_worker, watchdog_s
        self._ship = tuple(ship)
        self.workers = 0 if workers == "auto" else workers
        self.prestart_problem: Exception | None = None
        self._owned = False
        self._numbers = count()
        self._pool: RayPool | None = None
        self._queue: JobQueue | None = None
        self._fleet: Fleet | None = None

    def places(self) -> list[str]:
        """Return where each worker runs, as `pid 123 on 127.0.0.1`."""
        return [] if self._queue is None else self._queue.places()

    def processors(self) -> Mapping[str, int]:
        """Return the kinds of processors: of the nodes of a cluster that was joined, else this machine's."""
        return super().processors() if self._fleet is None else self._fleet.processors()

    def prestart(self, modules: Sequence[str] = ()) -> None:
        """Start a Ray of our own and its workers ahead of the task; returns at once, raises nothing.

        Meanwhile the workers import `modules`. What goes wrong here is logged and kept in `prestart_problem`;
        `open` tries again and reports.
        """
        session.quiet_environment()
        try:
            import ray

            if self._pool is not None or self._address is not None or ray.is_initialized():
                return
            self._start(ray, session.Needs(self._wanted_workers, self._gpus, 0, 0))
            self._pool = RayPool(ray, self._gpus)
            self._pool.prestart_workers(self.workers, modules)
        except Exception as problem:
            log.debug("Ray was not started ahead of the task", exc_info=True)
            self.prestart_problem = problem
            self.close()

    def open(self, task: Task) -> None:
        """Start the workers and give each the task; called again, gives them another one.

        Raises:
            HostError: Ray cannot be started or reached, or cannot hold the workers.
            FedsimError: the task cannot be loaded in the workers.
        """
        try:
            if self._pool is None or self._queue is None:
                ray = self._connect(task)
                self._pool = self._pool or RayPool(ray, self._gpus)
                if self._address is not None:
                    self._fleet = Fleet(ray, self._ship)
                    self._pool.shipment = self._fleet.shipment(task)
                self._pool.hold_task(task)
                self._queue = JobQueue(self._pool, self.workers, self._watchdog_s)
                self._pool.stop_spare_workers()
            elif self._pool.task is not task:
                self._pool.shipment = None if self._fleet is None else self._fleet.shipment(task)
                self._pool.hold_task(task)
                self._queue.change_task()
            self._queue.resize(session.store_bytes(self._pool.ray) / (4 * max(1, task.layout.size)))
            self._queue.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def _connect(self, task: Task) -> Any:
        session.quiet_environment()
        try:
            import ray
        except ImportError as problem:
            text = message("ray", f"cannot be imported ({problem})", fix=session.WITHOUT_RAY)
            raise HostError(text) from problem
        size = task.shape.params * int(task.shape.weight_bytes)
        needs = session.Needs(self._wanted_workers, self._gpus, size, 4 * task.layout.size)
        if ray.is_initialized():
            self.workers, self.reason = session.allowed(ray, needs)
            return ray
        if self._address is not None:
            self._owned = True
            join(ray, self._address)
            self.workers, self.reason = session.allowed(ray, needs, shared=True)
            return ray
        self._start(ray, needs)
        return ray

    def _start(self, ray: Any, needs: session.Needs) -> None:
        of_machine, here = "", needs
        if self._wanted_workers == "auto":
            workers, of_machine = session.fitting(needs)
            here = replace(needs, workers=workers)
        self._owned = True
        session.start(ray, here)
        self.workers, of_ray = session.allowed(ray, needs)
        self.reason = of_machine or of_ray

    def share(self, vector: Vector) -> Shared:
        """Put a vector into the object store once; it leaves when the handle does."""
        pool, _ = self._opened()
        array = np.ascontiguousarray(vector, dtype=np.float32)
        return Shared(next(self._numbers), pool.put(array), array)

    def train(self, batch: Sequence[Job]) -> RayTicket:
        """Queue a client batch; one call of one worker trains all of it."""
        _, queue = self._opened()
        return RayTicket(queue, queue.submit("train", batch))

    def score(self, batch: Sequence[ScoreJob]) -> RayTicket:
        """Queue pieces of an evaluation."""
        _, queue = self._opened()
        return RayTicket(queue, queue.submit("score", batch))

    def close(self) -> None:
        """Kill the workers, and the Ray that was started here (a cluster is only left)."""
        lost = self._pool is not None and self._pool.head.is_gone
        queue, self._queue, self._pool = self._queue, None, None
        fleet, self._fleet = self._fleet, None
        try:
            if queue is not None:
                queue.stop()
            if fleet is not None and not lost:
                fleet.close()
        finally:
            if self._owned:
                import ray

                self._owned = False
                ray.shutdown()

    def _opened(self) -> tuple[RayPool, JobQueue]:
        if self._pool is None or self._queue is None:
            raise HostError(message("executor", "it is closed", fix="call open(task) first"))
        self._pool.check()
        return self._pool, self._queue


class RayTicket(Ticket):
    """A promise of one call's results."""

    def __init__(self, queue: JobQueue, call: Call) -> None:
        self._queue, self._call = queue, call

    def want(self) -> None:
        """Put the call before those that nobody has asked for yet."""
        self._queue.want(self._call)

    def done(self) -> bool:
        """Tell whether the results are here; never waits."""
        self._queue.poll()
        return self._call.done

    def result(self) -> list[Any]:
        """Wait in real time; see `fedsim.executors.queue.JobQueue.result_of` for what it raises."""
        return self._queue.result_of(self._call)
