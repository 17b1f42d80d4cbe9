"""The nodes of a connected Ray: what each of them is, how much of it is free, and an actor on the driver's own.

Takes the `ray` module as an argument.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType

from fedsim.errors import HostError, message
from fedsim.executors.cluster import survey as travelling
from fedsim.executors.cluster.agreement import check_alike, processors_of
from fedsim.executors.cluster.depot import Depot, DepotActor, Shipment
from fedsim.executors.cluster.parcel import parcel_of
from fedsim.executors.cluster.survey import Machine
from fedsim.jobs import FileKind, FileTask, Task

ANSWER_S = 90.0
"""Patience with a node that is asked what it is: its first process has to start."""


@dataclass(frozen=True)
class Node:
    """A node that is alive and may be given workers."""

    id: str
    address: str
    resources: dict[str, float]


def nodes_of(ray: ModuleType) -> list[Node]:
    """Return the nodes that are alive and have a CPU to give."""
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    return [Node(node["NodeID"], node["NodeManagerAddress"], dict(node["Resources"])) for node in alive]


class Fleet:
    """The machines of a cluster, once they have been compared with this one; sends them what a task's workers read.

    Args:
        ray: the connected `ray`.
        ship: kinds of files that are sent.

    Raises:
        HostError: a node has other software, or does not answer.
    """

    def __init__(self, ray: ModuleType, ship: Sequence[FileKind] = ()) -> None:
        self._ray, self._ship = ray, tuple(ship)
        self._driver, self._run = travelling.survey(), secrets.token_hex(8)
        self._machines = _asked(ray, nodes_of(ray))
        self._depot: DepotActor | None = None
        check_alike(self._driver, self._machines)

    def processors(self) -> dict[str, int]:
        """Return the kinds of processors of the nodes, and how many nodes have each."""
        return processors_of(self._machines)

    def shipment(self, task: Task) -> Shipment:
        """Return what workers are told with a task: the driver's software, and what of its files is sent to them.

        Raises:
            HostError: files cannot be read here, or the task does not say which there are.
        """
        self.close()
        if not self._ship:
            return Shipment(self._driver, self._run, {})
        if not isinstance(task, FileTask):
            what = f"{type(task).__name__} does not say which files its workers read"
            fix = "derive the task from fedsim.jobs.FileTask, or put its files where all nodes have them"
            raise HostError(message("runtime.ship", what, got=list(self._ship), fix=fix))
        parcels = {name: parcel_of(name, path) for name, path in task.files(self._ship).items()}
        if parcels:
            here = _on(self._ray, self._ray.get_runtime_context().get_node_id())
            # on the driver's node, without a CPU, and back if it is killed
            options = {"num_cpus": 0, "max_restarts": 3, "max_task_retries": 3, "scheduling_strategy": here}
            self._depot = self._ray.remote(**options)(Depot).remote(list(parcels.values()))
        return Shipment(self._driver, self._run, parcels, self._depot)

    def close(self) -> None:
        """Stop sending."""
        depot, self._depot = self._depot, None
        if depot is not None:
            with suppress(Exception):  # it may be gone, and so may Ray
                self._ray.kill(depot, no_restart=True)


def _on(ray: ModuleType, node_id: str) -> object:
    """Return the strategy that places something on one node."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)


def _asked(ray: ModuleType, nodes: Sequence[Node]) -> list[Machine]:
    """Ask every node what it is; one that is lost meanwhile is left out.

    Raises:
        HostError: one does not answer.
    """
    with _by_value(ray):
        ask = ray.remote(num_cpus=0, max_retries=0)(travelling.facts)
        answers = {ask.options(scheduling_strategy=_on(ray, node.id)).remote(): node for node in nodes}
    ready, late = ray.wait(list(answers), num_returns=len(answers), timeout=ANSWER_S) if answers else ([], [])
    if late:
        where, what = f"node {answers[late[0]].address}", f"it does not answer within {ANSWER_S:g} s"
        raise HostError(message(where, what, fix="see `ray status`, and take the node out of the cluster"))
    machines = []
    for ref in ready:
        try:
            machines.append(Machine(**ray.get(ref)))
        except ray.exceptions.RayTaskError as problem:
            where, what = f"node {answers[ref].address}", f"it cannot say what it is ({problem.cause})"
            raise HostError(message(where, what, fix="see the logs of that node")) from problem
        except ray.exceptions.RayError:  # lost: workers are not placed there either
            continue
    return machines


@contextmanager
def _by_value(ray: ModuleType) -> Iterator[None]:
    """Have the survey travel as it is: a node without fedsim could not import it."""
    ray.cloudpickle.register_pickle_by_value(travelling)
    try:
        yield
    finally:
        ray.cloudpickle.unregister_pickle_by_value(travelling)


# what is free -----------------------------------------------------------------------------------


def wait_for_room(ray: ModuleType, workers: int, gpus_per_worker: float, patience_s: float) -> int:
    """Wait until a cluster has room for some workers, and return for how many it has.

    Others may use it, and what has just ended gives its room back a moment later.

    Args:
        ray: the connected `ray`.
        workers: how many are wanted.
        gpus_per_worker: share of a GPU of each.
        patience_s: longest wait.
    """
    give_up_s = time.monotonic() + patience_s
    while True:
        free = ray.available_resources()
        room = int(free.get("CPU", 0.0) + 1e-9)
        if gpus_per_worker:
            room = min(room, int(free.get("GPU", 0.0) / gpus_per_worker + 1e-9))
        if room >= workers or time.monotonic() >= give_up_s:
            return room
        time.sleep(0.2)
