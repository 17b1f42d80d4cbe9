"""The executor on Ray: a few actors that hold the task once and are handed client after client.

Actors, never tasks (a plain task deadlocks silently when actors hold all CPUs, and loses cached
backbones). Lost calls are given to another actor by our own queue (`fedsim.executors.queue`):
Ray's retries are used up before a dead node is noticed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Literal

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.errors import HostError, message
from fedsim.executors import ray_cluster as joining
from fedsim.executors import ray_session as session
from fedsim.executors.calls import Failure, Item, Verb, failure, failure_of, one_thread, perform, warm
from fedsim.executors.packing import packed, unpacked
from fedsim.executors.queue import Call, Dispatch, WorkerLost
from fedsim.jobs import Job, ScoreJob, Task

SEEN = 8
"""Shared vectors a worker keeps at hand."""
FETCH_S = 60.0
"""Longest wait for an answer that Ray says is there."""


@dataclass(frozen=True)
class Shared:
    """The handle of a vector in Ray's object store, put there once for all workers.

    It is pickled as its number: a call carries the references of its vectors beside its items, once each.
    """

    number: int
    ref: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the reference out: only Ray may pickle it."""
        return Shared, (self.number,)


class RayExecutor:
    """Real work in `workers` processes of this machine, or of a cluster.

    Args:
        workers: processes; `auto` is as many as there are cores, and memory for them.
        address: HOST:PORT of a running cluster (`auto` inside a Ray job); None starts Ray here.
        gpus_per_worker: share of a GPU each worker reserves (0 hides GPUs from it).
        watchdog_s: real seconds without any answer before giving up.

    A Ray that this process has connected to already is used and left running.
    """

    def __init__(
        self,
        workers: int | Literal["auto"] = "auto",
        address: str | None = None,
        gpus_per_worker: float = 0.0,
        watchdog_s: float = 600.0,
    ) -> None:
        self._asked, self._address = workers, address
        self._gpus, self._watchdog_s = gpus_per_worker, watchdog_s
        self.workers = 0 if workers == "auto" else workers
        self.reason = ""
        self._owned = False
        self._numbers = count()
        self._pool: _RayPool | None = None
        self._dispatch: Dispatch | None = None

    @property
    def replaced(self) -> int:
        """How many workers died and were replaced."""
        return 0 if self._dispatch is None else self._dispatch.replaced

    def places(self) -> list[str]:
        """Return where each worker runs, as `pid 123 on 127.0.0.1`."""
        return [] if self._dispatch is None else self._dispatch.places()

    def pids(self) -> list[int]:
        """Return the process ids of the workers that have started, in their order."""
        return [int(place.split()[1]) for place in self.places() if place.startswith("pid ")]

    def begin(self, modules: Sequence[str] = ()) -> None:
        """Start a Ray of our own and its workers ahead of the task; returns at once, reports nothing.

        Meanwhile the workers import `modules`. What goes wrong here, `open` tries again and reports.
        """
        session.quiet_environment()
        try:
            import ray

            if self._pool is not None or self._address is not None or ray.is_initialized():
                return
            self._start(ray, session.Needs(self._asked, self._gpus, 0, 0))
            self._pool = _RayPool(ray, self._gpus)
            self._pool.prestart(self.workers, modules)
        except Exception:
            self.close()

    def open(self, task: Task) -> None:
        """Start the workers and give each the task; called again, gives them another one.

        Raises:
            HostError: Ray cannot be started or reached, or cannot hold the workers.
            FedsimError: the task cannot be loaded in the workers.
        """
        try:
            if self._pool is None or self._dispatch is None:
                ray = self._connect(task)
                self._pool = self._pool or _RayPool(ray, self._gpus)
                self._pool.take(task)
                self._dispatch = Dispatch(self._pool, self.workers, self._watchdog_s)
                self._pool.dismiss()
            elif self._pool.task is not task:
                self._pool.take(task)
                self._dispatch.renew()
            self._dispatch.updates = session.store_bytes(self._pool.ray) / (4 * max(1, task.layout.size))
            self._dispatch.ready()
        except BaseException:
            self.close()
            raise

    def _connect(self, task: Task) -> Any:
        session.quiet_environment()
        try:
            import ray
        except ImportError as problem:
            text = message("ray", f"cannot be imported ({problem})", fix=session.INLINE)
            raise HostError(text) from problem
        size = task.shape.params * int(task.shape.weight_bytes)
        needs = session.Needs(self._asked, self._gpus, size, 4 * task.layout.size)
        if ray.is_initialized():
            self.workers, self.reason = session.allowed(ray, needs)
            return ray
        if self._address is not None:
            self._owned = True
            joining.join(ray, self._address)
            self.workers, self.reason = session.allowed(ray, needs)
            return ray
        self._start(ray, needs)
        return ray

    def _start(self, ray: Any, needs: session.Needs) -> None:
        reason, here = "", needs
        if self._asked == "auto":
            fits, reason = session.fitting(needs)
            here = replace(needs, workers=fits)
        self._owned = True
        session.start(ray, here)
        self.workers, found = session.allowed(ray, needs)
        self.reason = reason or found

    def share(self, vector: Vector) -> Shared:
        """Put a vector into the object store once; it leaves when the handle does."""
        pool, _ = self._opened()
        ref = pool.ray.put(np.ascontiguousarray(vector, dtype=np.float32))
        return Shared(next(self._numbers), ref)

    def train(self, batch: Sequence[Job]) -> RayTicket:
        """Queue a client batch; one call of one worker trains all of it."""
        _, dispatch = self._opened()
        return RayTicket(dispatch, dispatch.submit("train", batch))

    def score(self, batch: Sequence[ScoreJob]) -> RayTicket:
        """Queue pieces of an evaluation."""
        _, dispatch = self._opened()
        return RayTicket(dispatch, dispatch.submit("score", batch))

    def close(self) -> None:
        """Kill the workers, and the Ray that was started here (a cluster is only left)."""
        dispatch, self._dispatch, self._pool = self._dispatch, None, None
        try:
            if dispatch is not None:
                dispatch.stop()
        finally:
            if self._owned:
                import ray

                self._owned = False
                ray.shutdown()

    def _opened(self) -> tuple[_RayPool, Dispatch]:
        if self._pool is None or self._dispatch is None:
            raise HostError(message("executor", "it is closed", fix="call open(task) first"))
        return self._pool, self._dispatch


class RayTicket:
    """A promise of one call's results."""

    def __init__(self, dispatch: Dispatch, call: Call) -> None:
        self._dispatch, self._call = dispatch, call

    def want(self) -> None:
        """Put the call before those that nobody has asked for yet."""
        self._dispatch.want(self._call)

    def done(self) -> bool:
        """Tell whether the results are here; never waits."""
        self._dispatch.poll()
        return self._call.done

    def result(self) -> list[Any]:
        """Wait in real time; see `fedsim.executors.queue.Dispatch.finish` for what it raises."""
        return self._dispatch.finish(self._call)


class _RayPool:
    """Actors as a `Pool`."""

    def __init__(self, ray: Any, gpus: float) -> None:
        self.ray = ray
        self.task: Task | None = None
        self._spare: list[Any] = []
        # no restarts and no retries of Ray's: `Dispatch` does both
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(**options)(_Worker)
        self._gpus = gpus

    def prestart(self, workers: int, modules: Sequence[str]) -> None:
        """Start workers that will be wanted, and have them import what they will need."""
        self._spare = [self._actor.remote() for _ in range(workers)]
        for worker in self._spare:
            worker.load.remote(list(modules), list(sys.path), self._gpus > 0)

    def dismiss(self) -> None:
        """Stop the workers that were started and turned out to be too many."""
        while self._spare:
            self.stop(self._spare.pop())

    def take(self, task: Task) -> None:
        """Put the task into the object store; the reference is held for workers to come."""
        self.task, self._task = task, self.ray.put(task)

    def start(self) -> Any:
        return self._spare.pop(0) if self._spare else self._actor.remote()

    def prepare(self, worker: Any) -> Any:
        # in a list: passed as a reference
        return worker.prepare.remote([self._task], list(sys.path), self._gpus > 0)

    def submit(self, worker: Any, verb: Verb, items: Sequence[Item]) -> Any:
        refs = {v.number: v.ref for item in items for v in item.vectors if isinstance(v, Shared)}
        return worker.call.remote(verb, packed(items), refs)

    def wait(self, refs: Sequence[Any], timeout_s: float) -> list[Any]:
        if not refs:
            return []
        ready, rest = self.ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
        if not ready and timeout_s:
            ready, _ = self.ray.wait(rest, num_returns=1, timeout=timeout_s, fetch_local=False)
        return list(ready)

    def fetch(self, ref: Any) -> Any:
        errors = self.ray.exceptions
        gone = (
            errors.RayActorError,
            errors.ObjectLostError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.GetTimeoutError,
        )
        try:
            return unpacked(self.ray.get(ref, timeout=FETCH_S))
        except gone as problem:
            raise WorkerLost(_how(problem)) from None
        except errors.RayError as problem:
            what = f"a worker cannot do its work: {problem}"
            raise HostError(message("ray", what, fix=session.INLINE)) from problem

    def stop(self, worker: Any) -> None:
        with suppress(Exception):  # it may be gone, and so may Ray
            self.ray.kill(worker, no_restart=True)

    def facts(self) -> str:
        try:
            have, free = self.ray.cluster_resources(), self.ray.available_resources()
        except Exception:
            return "Ray does not answer"
        return f"Ray has {have.get('CPU', 0):g} CPUs, {free.get('CPU', 0):g} free"


class _Worker:
    """One actor: holds the task, remembers the last shared vectors, works on one thread."""

    def __init__(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        self._task: Any = None
        self._seen: OrderedDict[int, Vector] = OrderedDict()

    def load(self, modules: list[str], path: list[str], gpu: bool) -> None:
        """Import modules ahead of the task; one that fails will say so when it is really needed."""
        self._settle_in(path, gpu)
        for name in modules:
            with suppress(Exception):
                importlib.import_module(name)

    def prepare(self, boxed: list[Any], path: list[str], gpu: bool) -> list[Any]:
        """Take the task and load what it loads lazily; `path` is where the driver finds modules."""
        import ray

        self._settle_in(path, gpu)
        where = f"pid {os.getpid()} on {ray.util.get_node_ip_address()}"
        try:
            self._task = ray.get(boxed[0])
            warm(self._task)
            one_thread()
        except (Exception, SystemExit) as problem:
            return _packed((where, failure_of("a worker cannot load the task", problem).packed()))
        return _packed((where, None))

    def call(self, verb: Verb, parts: list[Any], refs: dict[int, Any]) -> list[Any]:
        """Run one batch; `refs` are the references of its shared vectors, by number."""
        items: Sequence[Item] = unpacked(parts)
        outcome = perform(self._task, verb, items, partial(self._resolve, refs))
        if isinstance(outcome, Failure):
            return _packed(outcome.packed())
        try:
            return _packed(outcome)
        except Exception as problem:  # an update's state that cannot be pickled
            return _packed(failure(items, problem).packed())

    def _settle_in(self, path: list[str], gpu: bool) -> None:
        sys.path += [place for place in path if place not in sys.path]
        if gpu:
            os.environ.setdefault("FEDSIM_DEVICE", "cuda")
        else:  # Ray leaves GPUs visible to an actor that reserved none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def _resolve(self, refs: dict[int, Any], vector: Any) -> Vector:
        if not isinstance(vector, Shared):
            return np.asarray(vector, dtype=np.float32)
        if vector.number not in self._seen:
            import ray

            self._seen[vector.number] = ray.get(refs[vector.number])
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
        self._seen.move_to_end(vector.number)
        return self._seen[vector.number]


def _packed(value: Any) -> list[Any]:
    from ray import cloudpickle

    return packed(value, cloudpickle.dumps)


def _how(problem: BaseException) -> str:
    """Say in a few words how a worker was lost."""
    text, kind = str(problem).lower(), type(problem).__name__
    if kind == "OutOfMemoryError" or "running low on memory" in text:
        return "the machine ran low on memory"
    if kind == "NodeDiedError" or "node has died" in text or "node died" in text:
        return "its node was lost"
    if kind in ("ActorUnavailableError", "GetTimeoutError"):
        return "it could not be reached"
    return "its process died (a crash, or killed for its memory)"
