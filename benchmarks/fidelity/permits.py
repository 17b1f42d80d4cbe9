"""What this kernel lets the lab do: each question is answered by trying, with None or a reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.fidelity import quota

ENTERED = "FEDSIM_FIDELITY_USER_NAMESPACE"


def enter_user_namespace() -> None:
    """Become root of a new user namespace by running this program again in one, unless root already.

    Returns where that is forbidden; `namespaces` then says so.
    """
    if os.geteuid() == 0 or ENTERED in os.environ or _fails(["unshare", "--user", "--map-root-user", "true"]):
        return
    os.environ[ENTERED] = "1"
    program = [sys.executable, "-m", "benchmarks.fidelity", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "--user", "--map-root-user", *program])  # noqa: S606


def namespaces() -> str | None:
    """Return why network namespaces with rate limits cannot be made, or None."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    for tool in ("ip", "tc", "unshare", "nsenter"):
        if shutil.which(tool, path=_path()) is None:
            return f"there is no `{tool}` (packages iproute2 and util-linux)"
    if _fails(["unshare", "--net", "true"]):
        return "this kernel, or this user, may not make network namespaces"
    return None


def kernel_limits() -> str | None:
    """Return why the kernel's own rate limits (tbf, HTB, bridge) cannot be used, or None."""
    forbidden = namespaces()
    if forbidden is not None:
        return forbidden
    script = (
        "ip link add v0 type veth peer name v1 && ip link add b0 type bridge && "
        "tc qdisc add dev v0 root tbf rate 1mbit burst 3028 limit 64000 && tc qdisc add dev v1 root handle 1: htb"
    )
    if _fails(["unshare", "--net", "sh", "-c", script]):
        return "this kernel lacks veth, bridge, tbf or htb"
    return None


def tun() -> str | None:
    """Return why TUN devices cannot be opened, or None."""
    forbidden = namespaces()
    if forbidden is not None:
        return forbidden
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as problem:
        return f"/dev/net/tun cannot be opened ({problem.strerror})"
    if _fails(["unshare", "--net", "ip", "tuntap", "add", "dev", "t0", "mode", "tun"]):
        return "this kernel, or this user, may not make TUN devices"
    return None


def quotas() -> str | None:
    """Return why CPU quotas cannot be imposed, or None."""
    if quota.root() is None:
        return "no writable cgroup with the cpu controller (version 1 or 2)"
    return None


def realtime() -> bool:
    """Tell whether processes may run under SCHED_FIFO."""
    return not _fails(["chrt", "--fifo", "1", "true"])


def _fails(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PATH": _path()})
    except OSError:
        return True
    return done.returncode != 0


def _path() -> str:
    """Return PATH with the folders where distributions keep `ip` and `tc`."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
