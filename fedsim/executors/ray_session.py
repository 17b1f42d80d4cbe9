"""A Ray of our own, on the loopback device only, and how many workers a Ray can hold.

Takes the `ray` module as an argument: only `fedsim.executors.ray` and the workers import it.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from fedsim.errors import HostError, message
from fedsim.executors.cluster.nodes import wait_for_room
from fedsim.executors.host import INLINE, WORKER_BYTES, cores, free_memory_bytes
from fedsim.executors.queue import AHEAD, IN_FLIGHT
from fedsim.executors.ray_patches import environment, few_processes, loopback, no_agents
from fedsim.jobs import CALL_BYTES

WITHOUT_RAY = f"{INLINE} needs no Ray"
"""The way out where Ray is the trouble."""
DAEMON_BYTES = 400 * 2**20
"""Ray's own processes, all of them (measured); 170 MiB without `ray_patches.SERVICES`."""
STORE_BYTES = 160 * 2**20
"""Shared memory for what moves between processes, apart from whole vectors and results."""
RESULTS = AHEAD + IN_FLIGHT
"""Calls of one worker whose results may lie there at a time."""
VECTORS = 16
"""Vectors the store has room for beside that."""
SETTLE_S = 3.0
"""How long a cluster may take to give back what has just ended, before workers are counted."""
FREE_S = 60.0
"""How long workers that were asked for by number wait for what others hold."""

LOG_BYTES, LOG_BACKUPS = 4 * 2**20, 2
"""Size at which Ray puts a log of one of its processes aside, and how many of these it keeps. Its own sizes are 512 MiB
and 5, and what workers print is bounded by nothing unless the size is set."""
SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux (sun_path of unix(7), less its end)."""
RAY_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""What Ray puts behind the folder for temporary files before it opens a socket there."""


@dataclass(frozen=True)
class Needs:
    """What the workers ask of a machine."""

    workers: int | Literal["auto"]
    gpus_per_worker: float
    model_bytes: int
    vector_bytes: int

    @property
    def worker_bytes(self) -> int:
        """Memory of one worker: Python with torch, and the model twice (weights, activations)."""
        return WORKER_BYTES + 2 * self.model_bytes


def quiet_environment() -> None:
    """Switch off Ray's telemetry and its notice of a lost worker, which we count and replace; bound its logs.

    What the user has set stays. Called before `import ray`, which reads such settings then.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ROTATION_MAX_BYTES", str(LOG_BYTES))
    os.environ.setdefault("RAY_ROTATION_BACKUP_COUNT", str(LOG_BACKUPS))
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while executing")


def fitting(needs: Needs) -> tuple[int, str]:
    """Return how many workers fit this machine, at least 1, and why."""
    free = free_memory_bytes()
    n = cores()
    if free is None:
        return n, f"{n} cores"
    room = max(0, free - DAEMON_BYTES) // needs.worker_bytes
    if room < n:
        return max(1, room), f"memory: {free / 2**30:.1f} GiB free, {needs.worker_bytes / 2**20:.0f} MiB each"
    return n, f"{n} cores"


# our own ----------------------------------------------------------------------------------------


def start(ray: ModuleType, needs: Needs) -> None:
    """Start Ray on this machine only, for `needs.workers` processes.

    Raises:
        HostError: it does not start, twice.
    """
    assert needs.workers != "auto"
    options: dict[str, Any] = {
        "address": "local",  # otherwise a Ray that somebody else left running is joined
        "num_cpus": needs.workers,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "object_store_memory": _store_bytes(needs),
    }
    folder = temporary_folder()
    if too_long(folder) and (short := short_folder(Path("/tmp"))) is not None:  # noqa: S108
        folder = options["_temp_dir"] = str(short)
    first: Exception | None = None
    for attempt in range(2):  # a busy machine can miss Ray's own fixed start-up limits
        try:
            with (
                loopback(ray),
                few_processes(ray),
                nullcontext() if attempt else no_agents(ray),
                environment("OMP_NUM_THREADS", "1"),
                quiet(),
                our_sigterm(),
            ):
                ray.init(_node_ip_address="127.0.0.1", **options)
            return
        except Exception as problem:
            first = first or problem
            ray.shutdown()
            if isinstance(problem, OSError):  # Ray keeps its token in the home folder
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            time.sleep(1.0)
    inside = folder if "_temp_dir" in options else os.path.join(folder, "ray")  # noqa: PTH118
    logs = os.path.join(inside, "session_latest", "logs")  # noqa: PTH118
    what = f"does not start on this machine ({line(first)}; logs in {logs})"
    short_one = (
        "set RAY_TMPDIR to a folder with a short name, as in RAY_TMPDIR=/tmp; " if too_long(folder) else ""
    )
    raise HostError(message("ray", what, fix=short_one + WITHOUT_RAY)) from first


def temporary_folder() -> str:
    """Return the folder in which Ray makes its own, as Ray chooses it."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()


def too_long(folder: str) -> bool:
    """Tell whether Ray's sockets would have names below this folder that are longer than a socket's may be.

    >>> too_long("/tmp"), too_long("/scratch/" + "x" * 95)
    (False, True)
    """
    return len(os.fsencode(folder)) + RAY_BYTES > SOCKET_BYTES


def short_folder(parent: Path) -> Path | None:
    """Return a folder of this user with a short name, made if need be; None if there can be none."""
    folder = parent / f"fedsim-ray-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return folder if ours and not too_long(str(folder)) else None


def store_bytes(ray: ModuleType) -> float:
    """Return the shared memory for vectors and results of the connected Ray, all nodes together."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(float(r.get("object_store_memory", 0.0)) for r in nodes)


def wanted_store_bytes(needs: Needs, workers: int) -> int:
    """Return the shared memory that vectors and results of so many workers may fill."""
    return (
        STORE_BYTES + VECTORS * needs.vector_bytes + workers * RESULTS * max(CALL_BYTES, needs.vector_bytes)
    )


def _store_bytes(needs: Needs) -> int:
    assert needs.workers != "auto"
    wanted = wanted_store_bytes(needs, needs.workers)
    free = free_memory_bytes()
    return wanted if free is None else max(80 * 2**20, min(wanted, free // 4))  # Ray's least: 75 MiB


@contextmanager
def our_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM that was there: Ray's own would end the process before the tables are closed."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep notices of Ray's start out of the terminal; errors are raised, not printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = logging.getLogger("ray")
        logger.setLevel(logging.ERROR)
        yield


def line(problem: Exception | None) -> str:
    """Return the first line of an error."""
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__


# what there is ----------------------------------------------------------------------------------


def allowed(ray: ModuleType, needs: Needs, *, shared: bool = False) -> tuple[int, str]:
    """Return how many workers the connected Ray can hold and why, checked against `needs`.

    Args:
        ray: the connected `ray`.
        needs: of the workers.
        shared: whether others use it, too: what they hold is not counted.

    Raises:
        HostError: more is asked than there is, so that workers would wait forever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = _places(nodes, needs)
    if needs.workers == "auto":
        memory = sum(int(r.get("memory", 0) // needs.worker_bytes) for r in nodes)
        wanted = max(1, min(places, memory))
        reason = f"{places} places, memory for {memory} on {len(nodes)} nodes"
    else:
        wanted, reason = needs.workers, "as asked"
        if wanted > places:
            what = f"Ray has {places} CPUs on {len(nodes)} nodes, one a worker"
            fix = (
                f"-s runtime.workers={places}"
                if places
                else "start its nodes with CPUs: ray start --num-cpus"
            )
            raise HostError(message("runtime.workers", what, got=wanted, fix=fix))
    if not shared:
        return wanted, reason
    free = wait_for_room(ray, wanted, needs.gpus_per_worker, SETTLE_S if needs.workers == "auto" else FREE_S)
    if free >= wanted:
        return wanted, reason
    if needs.workers == "auto" and free:
        return free, f"{free} of {places} places on {len(nodes)} nodes are free"
    what = f"{free} of the {places} places on {len(nodes)} nodes are free, others hold the rest"
    fix = f"-s runtime.workers={free}, or wait for them" if free else "wait for them, or add nodes"
    raise HostError(message("runtime.workers", what, got=needs.workers, fix=fix))


def _places(nodes: Sequence[Mapping[str, float]], needs: Needs) -> int:
    """Return how many workers the CPUs of some nodes hold, and their GPUs where these are asked for."""
    gpus = needs.gpus_per_worker
    if not gpus:
        return sum(int(r.get("CPU", 0)) for r in nodes)
    places = sum(min(int(r.get("GPU", 0.0) / gpus + 1e-9), int(r.get("CPU", 0))) for r in nodes)
    wanted = 1 if needs.workers == "auto" else needs.workers
    if places < wanted:
        whole = sum(r.get("GPU", 0.0) for r in nodes)
        what = f"{wanted} workers with {gpus:g} GPU each do not fit: Ray has {whole:g} GPUs"
        fix = "-s runtime.gpus_per_worker=0"
        raise HostError(message("runtime.gpus_per_worker", what, got=gpus, fix=fix))
    return places
