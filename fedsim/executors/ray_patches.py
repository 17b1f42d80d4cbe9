"""What we change inside Ray while it starts, by names that are private to it. Nothing else touches them.

Takes the `ray` module as an argument. A Ray that does not have these names starts as it does by itself: on all
network interfaces, and with more processes than are used here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from operator import attrgetter
from types import ModuleType
from typing import Any

CONSTANTS = "_private.ray_constants"
"""The module that holds `CLUSTERS`, read when Ray is imported."""
CLUSTERS = "ENABLE_RAY_CLUSTER"
NODE = "_private.node.Node"
"""The class whose methods start Ray's processes."""
SERVICES = ("start_monitor", "start_log_monitor", "start_api_server")
"""Processes that Ray starts for others: autoscaler, forwarder of logs, dashboard (50 MiB each, measured)."""
STARTERS = "_private.services"
"""The module whose `START_RAYLET` puts the raylet's command together, and whose `START_PROCESS` starts it."""
START_RAYLET, START_PROCESS = "start_raylet", "start_ray_process"
RAYLET = "_raylet"
"""The module with `PERSIST`, by which an agent tells the raylet where it listens, and with the names of `PORTS`."""
PERSIST = "persist_port"
NOBODY, CLOSED = -1, 1
"""What an agent says that does not listen; a port of this machine at which nobody answers."""
PORTS = {
    "METRICS_AGENT_PORT_NAME": NOBODY,
    "METRICS_EXPORT_PORT_NAME": NOBODY,
    "DASHBOARD_AGENT_LISTEN_PORT_NAME": NOBODY,
    "RUNTIME_ENV_AGENT_PORT_NAME": CLOSED,
}
"""Names of ports -> what the raylet is told, as by the agents of a Ray without its dashboard."""
AGENT_FLAGS = ("--dashboard_agent_command=", "--runtime_env_agent_command=")
IDLE = '/bin/sh -c "trap : INT; while read -r a b c parent d < /proc/$$/stat && [ $parent = $PPID ]; do sleep 1; done"'
"""Runs as long as the raylet that has started it, Ctrl-C or not: a raylet wants two agents, and ends with them."""
GLOBAL_NODE = "_private.worker._global_node"
"""Ray's processes on this machine, None where it is not connected."""
CONFIG = "_raylet.Config"
"""The class that reads `RAY_AUTH_MODE`, with `READ` when Ray is imported."""
READ = "initialize"
_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def missing_names(ray: Any) -> list[str]:
    """Return the private names that this Ray does not have."""
    wanted = [(CONSTANTS, CLUSTERS), *((NODE, name) for name in SERVICES), (CONFIG, READ)]
    wanted += [(STARTERS, START_RAYLET), (STARTERS, START_PROCESS)]
    wanted += [(RAYLET, name) for name in (PERSIST, *PORTS)]
    return [f"{place}.{name}" for place, name in wanted if not hasattr(_at(ray, place), name)]


@contextmanager
def loopback(ray: Any) -> Iterator[None]:
    """Make Ray bind to 127.0.0.1, as it does by itself on macOS and Windows only.

    Ray turns a loopback `_node_ip_address` into the machine's outer address unless this setting is
    off; it is read at import and again in every process it starts.
    """
    with environment(_SWITCH, "0"), _replaced(_at(ray, CONSTANTS), CLUSTERS, value=False):
        yield


@contextmanager
def few_processes(ray: Any) -> Iterator[None]:
    """Leave out Ray's processes that nobody here uses; `ray.init` has no option for that."""
    with ExitStack() as stack:
        for name in SERVICES:
            stack.enter_context(_replaced(_at(ray, NODE), name, lambda *_, **__: None))
        yield


@contextmanager
def no_agents(ray: Any) -> Iterator[None]:
    """Start Ray without the two Python processes that a raylet waits for before it takes a worker.

    They serve the dashboard and environments of tasks, of which there are none here; a second of import each, and 50 MiB.
    In their place the raylet gets a shell that does nothing, and is told that nobody listens.
    """
    services, raylet = _at(ray, STARTERS), _at(ray, RAYLET)
    known = all(_at(ray, f"{STARTERS}.{name}") for name in (START_RAYLET, START_PROCESS))
    known = known and all(_at(ray, f"{RAYLET}.{name}") for name in (PERSIST, *PORTS))
    if not known or sys.platform != "linux":
        yield
        return
    start, launch, persist = services.start_raylet, services.start_ray_process, raylet.persist_port

    def started(*args: Any, **kwargs: Any) -> Any:
        about = signature(start).bind(*args, **kwargs).arguments
        for name, port in PORTS.items():
            persist(about["session_dir"], about["node_id"], vars(raylet)[name], port)
        with _replaced(services, START_PROCESS, launched):
            return start(*args, **kwargs)

    def launched(command: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        return launch([_idle(part) for part in command], *args, **kwargs)

    with _replaced(services, START_RAYLET, started):
        yield


def _idle(part: str) -> str:
    """Return a part of the raylet's command, an agent's replaced by `IDLE`."""
    return next((flag + IDLE for flag in AGENT_FLAGS if part.startswith(flag)), part)


def dead_processes(ray: ModuleType) -> list[str]:
    """Return which of the processes that Ray has started here have ended by themselves; none of a cluster's."""
    node = _at(ray, GLOBAL_NODE)
    return [] if node is None else [str(kind) for kind, _ in node.dead_processes()]


def read_auth_mode(ray: Any) -> None:
    """Have Ray read `RAY_AUTH_MODE` again: it was read when Ray was imported."""
    config = _at(ray, CONFIG)
    if config is not None:
        config.initialize("")


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment, for processes that are started meanwhile, and put it back."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _at(ray: Any, place: str) -> Any:
    """Return what lies at a path of attributes, None if there is no such path."""
    try:
        return attrgetter(place)(ray)
    except AttributeError:
        return None


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put a value in the place of what an owner has under a name, if it has that."""
    if owner is None or name not in vars(owner):
        yield
        return
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
