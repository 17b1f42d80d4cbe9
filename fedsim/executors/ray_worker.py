"""The worker on Ray: an actor that holds the task once, and the handle by which vectors reach it."""

from __future__ import annotations

import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.executors.calls import Failure, Item, Verb, failure, failure_of, perform, pin_torch, warm
from fedsim.executors.cluster.depot import Shipment
from fedsim.executors.cluster.survey import survey
from fedsim.executors.packing import packed, unpacked

SEEN = 8
"""Shared vectors a worker keeps at hand."""


@dataclass(eq=False)
class Shared:
    """The handle of a vector in Ray's object store, put there once for all workers.

    It is pickled as its number: a call carries the references of its vectors beside its items, once each.

    Attributes:
        number: its own.
        ref: where it is now; another one once it was lost.
        vector: the vector itself, in the driver.
    """

    number: int
    ref: Any = None
    vector: Vector | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the reference out, which only Ray may pickle, and the vector."""
        return Shared, (self.number,)


class Worker:
    """One actor: holds the task, remembers the last shared vectors, works on one thread."""

    def __init__(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        self._task: Any = None
        self._seen: OrderedDict[int, Vector] = OrderedDict()

    def load_modules(self, modules: list[str], path: list[str], gpu: bool) -> None:
        """Import modules ahead of the task; one that fails will say so when it is really needed."""
        self._settle_in(path, gpu)
        for name in modules:
            with suppress(Exception):
                importlib.import_module(name)

    def take_task(
        self, boxed: list[Any], path: list[str], gpu: bool, shipment: Shipment | None = None
    ) -> list[Any]:
        """Take the task and load what it loads lazily; `path` is where the driver finds modules.

        With a `shipment` this machine is compared with the driver's first, and files that are sent are fetched.
        """
        import ray

        self._settle_in(path, gpu)
        where = f"pid {os.getpid()} on {ray.util.get_node_ip_address()}"
        try:
            if shipment is not None:
                shipment.check(survey())
            self._task = ray.get(boxed[0])
            if shipment is not None:
                self._task = shipment.unpacked(self._task, ray)
            warm(self._task)
            pin_torch()
        except ray.exceptions.ObjectLostError:  # the driver has it, and gives it again
            raise
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
        except Exception as problem:  # a task of a user's, whose results cannot be pickled
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
