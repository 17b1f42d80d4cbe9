"""Joining a running Ray cluster by its address, or saying soon and clearly why that is impossible.

Ray itself waits for minutes at an address where nobody is, and a wrong token looks the same.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from types import ModuleType

from fedsim.errors import HostError, message
from fedsim.executors.ray_patches import read_auth_mode
from fedsim.executors.ray_session import WITHOUT_RAY, our_sigterm, quiet

CONNECT_S = 5.0
"""Patience with the port."""
JOIN_S = 30.0
"""Patience with the cluster behind it."""
SERVE_S = 120.0
"""Patience with its first process, once a driver is in: a busy node, or Python on a slow file system, takes its time."""

NO_TOKEN = ("no authentication token", "find an authentication token", "cannot be opened or is empty")
WRONG_TOKEN = ("invalidauthtoken", "token is missing or incorrect", "token is invalid or incorrect")
VERSIONS = ("version mismatch",)
TOKENS = "RAY_AUTH_TOKEN, or a file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
REASONS = (
    (
        NO_TOKEN,
        "the cluster wants a token, and this process has none",
        f"give the cluster's token (`ray get-auth-token` on its head) in {TOKENS}",
    ),
    (
        WRONG_TOKEN,
        "the cluster does not take this process's token",
        f"give the cluster's token (`ray get-auth-token` on its head) in {TOKENS}; RAY_AUTH_MODE=disabled if it has none",
    ),
    (
        VERSIONS,
        "the cluster runs another Ray or Python",
        "install the same versions on all nodes (pip install -c constraints.txt), best from one image",
    ),
)
"""(words of Ray's, what we say, the way out): the first that fits counts."""

_KNOCK = """
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("in", flush=True)
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


def join(ray: ModuleType, address: str) -> None:
    """Connect to a running cluster.

    Raises:
        HostError: nobody answers there within `JOIN_S`, it has another Ray or Python, or it wants another token.
    """
    where = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if "://" in where:
        raise _not_a_cluster(where, "runtime.address" if where == address else "RAY_ADDRESS")
    _reachable(where)
    if _needs_token(address) and os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ["RAY_AUTH_MODE"] = "token"
        read_auth_mode(ray)
    try:
        with quiet(), our_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as problem:
        raise _not_joined(address, str(problem)) from problem


def _not_a_cluster(address: str, where: str) -> HostError:
    """Return what is said of a URL: of Ray Client's, which leaves the driver outside, or of a dashboard's, which takes jobs."""
    dashboard = address if address.startswith("http") else "http://HEAD:8265"
    what = "Ray Client and other URLs are not supported: the driver must run inside the cluster"
    fix = (
        f"ray job submit --address {dashboard} --working-dir . -- fedsim run EXP.yaml --address auto, "
        "or run on a node with HOST:PORT"
    )
    return HostError(message(where, what, got=address, fix=fix))


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
    """Find out in other processes whether the cluster wants a token (Ray has them since 2.52).

    A driver without one is turned away by a cluster that wants it, and a driver with one is not
    served by a cluster that does not; both look like an unreachable address, and one process
    cannot try twice.
    """
    modes = [os.environ["RAY_AUTH_MODE"]] if "RAY_AUTH_MODE" in os.environ else ["disabled", "token"]
    tried = {mode: _knock(address, mode) for mode in modes}
    began_s = time.monotonic()
    said: dict[str, str] = {}
    try:
        while tried and time.monotonic() - began_s < _patience_s(tried.values()):
            for mode, process in list(tried.items()):
                if process.poll() == 0:
                    return mode == "token"
                if process.poll() is not None:
                    said[mode] = process.communicate()[1] or ""
                    del tried[mode]
            time.sleep(0.05)
    finally:
        for process in tried.values():
            process.kill()
            process.wait()
    raise _not_joined(address, _telling(said) or f"no answer within {time.monotonic() - began_s:.0f} s")


def _patience_s(tried: Collection[subprocess.Popen[str]]) -> float:
    """Return how long to wait for drivers that have been sent out: longer if one has got in and said so."""
    if os.name != "posix":  # pipes cannot be looked at there
        return SERVE_S
    pipes = [process.stdout for process in tried if process.stdout is not None]
    return SERVE_S if select.select(pipes, [], [], 0.0)[0] else JOIN_S


def _telling(said: Mapping[str, str]) -> str:
    """Return which of two failures to report, by mode: that of a driver with a token, if one without was turned away for it."""
    plain = said.get("disabled")
    if plain is None:
        return said.get("token", "")
    turned_away = any(phrase in plain.lower() for phrase in WRONG_TOKEN)
    return said.get("token", plain) if turned_away else plain


def _knock(address: str, mode: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_AUTH_MODE": mode}
    command = [sys.executable, "-c", _KNOCK, address]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _not_joined(address: str, said: str) -> HostError:
    """Return the error of an address that cannot be joined, by what Ray said of it, in its own words where we know none."""
    text = said.lower()
    for phrases, what, fix in REASONS:
        if any(phrase in text for phrase in phrases):
            more = "" if phrases is not VERSIONS else f" ({', '.join(_pairs(said))})"
            return HostError(message("runtime.address", what + more, got=address, fix=fix))
    lines = said.strip().splitlines()
    why = lines[-1].strip() if lines else "it says nothing"
    fix = f"check runtime.address, or leave it out (-s runtime.address=null); {WITHOUT_RAY}"
    return HostError(
        message("runtime.address", f"no Ray cluster answers there ({why})", got=address, fix=fix)
    )


def _pairs(said: str) -> list[str]:
    """Return the lines of Ray's complaint that name versions: `Ray: 2.60.0`, `Python: 3.11.9`."""
    return [line.strip() for line in said.splitlines() if line.strip().startswith(("Ray:", "Python:"))]
