"""What we change inside Ray while it starts, by names that are private to it. Nothing else touches them.

Takes the `ray` module as an argument. A Ray that does not have these names starts as it does by itself: on all
network interfaces, and with more processes than are used here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
GLOBAL_NODE = "_private.worker._global_node"
"""Ray's processes on this machine, None where it is not connected."""
CONFIG = "_raylet.Config"
"""The class that reads `RAY_AUTH_MODE`, with `READ` when Ray is imported."""
READ = "initialize"
_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def missing_names(ray: Any) -> list[str]:
    """Return the private names that this Ray does not have."""
    wanted = [(CONSTANTS, CLUSTERS), *((NODE, name) for name in SERVICES), (CONFIG, READ)]
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
