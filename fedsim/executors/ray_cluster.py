"""Joining a running Ray cluster by its address, or saying soon and clearly why that is impossible.

Ray itself waits for minutes at an address where nobody is, and a wrong token looks the same.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from typing import Any

from fedsim.errors import HostError, message
from fedsim.executors.ray_patches import read_auth_mode
from fedsim.executors.ray_session import WITHOUT_RAY, line, our_sigterm, quiet

CONNECT_S = 5.0
"""Patience with the port."""
JOIN_S = 30.0
"""Patience with the cluster behind it."""

_KNOCK = """
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
class Door:
    def open(self): return 0
for attempt in range(5):  # a node may just have died
    try:
        door = ray.remote(num_cpus=0)(Door).remote()
        sys.exit(ray.get(door.open.remote()))
    except ray.exceptions.RayActorError as problem:
        print(str(problem).splitlines()[0], file=sys.stderr)
        time.sleep(1)
sys.exit(1)
"""


def join(ray: Any, address: str) -> None:
    """Connect to a running cluster.

    Raises:
        HostError: nobody answers there within `JOIN_S`, or it wants another token.
    """
    if "://" in address:
        what = "Ray Client and other URLs are not supported"
        fix = "run on a node of the cluster with runtime.address=HOST:PORT, or `auto` in a Ray job"
        raise HostError(message("runtime.address", what, got=address, fix=fix))
    _reachable(address if address != "auto" else os.environ.get("RAY_ADDRESS", "auto"))
    if _needs_token(address) and os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ["RAY_AUTH_MODE"] = "token"
        read_auth_mode(ray)
    try:
        with quiet(), our_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as problem:
        raise _not_joined(address, line(problem)) from problem


def _reachable(address: str) -> None:
    """Knock at the door: Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise HostError(message("runtime.address", "must be HOST:PORT or auto", got=address))
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as problem:
        raise _not_joined(address, str(problem)) from problem


def _needs_token(address: str) -> bool:
    """Find out in other processes whether the cluster wants a token (Ray has them since 2.59).

    A driver without one is turned away by a cluster that wants it, and a driver with one is not
    served by a cluster that does not; both look like an unreachable address, and one process
    cannot try twice.
    """
    modes = [os.environ["RAY_AUTH_MODE"]] if "RAY_AUTH_MODE" in os.environ else ["disabled", "token"]
    tried = {mode: _knock(address, mode) for mode in modes}
    give_up_s = time.monotonic() + JOIN_S
    last_words = ""
    try:
        while tried and time.monotonic() < give_up_s:
            for mode, process in list(tried.items()):
                if process.poll() == 0:
                    return mode == "token"
                if process.poll() is not None:
                    lines = (process.communicate()[1] or "").strip().splitlines()
                    last_words = lines[-1] if lines else last_words
                    del tried[mode]
            time.sleep(0.05)
    finally:
        for process in tried.values():
            process.kill()
            process.wait()
    raise _not_joined(address, last_words or f"no answer within {JOIN_S:g} s")


def _knock(address: str, mode: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_AUTH_MODE": mode}
    command = [sys.executable, "-c", _KNOCK, address]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _not_joined(address: str, why: str) -> HostError:
    fix = f"check runtime.address, and RAY_AUTH_MODE and the token if the cluster wants one; {WITHOUT_RAY}"
    return HostError(
        message("runtime.address", f"no Ray cluster answers there ({why})", got=address, fix=fix)
    )
