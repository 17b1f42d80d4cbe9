"""Network namespaces without names: each is held by a process that ends when this one does.

So nothing is left behind, whatever ends the program: the kernel removes a namespace with its last
process. The holder is `cat` on a pipe from here; it ends with the pipe.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fedsim.errors import HostError, message

ROOT = Path(__file__).resolve().parents[2]
"""Where `python -m benchmarks.fidelity...` finds its modules."""


@dataclass(frozen=True)
class Space:
    """A network namespace, by the process that holds it."""

    pid: int

    def within(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command inside."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def do(self, *lines: str) -> None:
        """Run command lines inside, one after the other.

        Raises:
            HostError: one failed; says which, and what it said.
        """
        for line in lines:
            done = subprocess.run(
                self.within(line.split()), capture_output=True, text=True, check=False, env=environment()
            )
            if done.returncode != 0:
                what = f"`{line}` failed: {(done.stderr.strip() or 'no word').splitlines()[-1]}"
                raise HostError(
                    message("emulation lab", what, fix="see what `python -m benchmarks.fidelity doctor` says")
                )


@contextmanager
def space() -> Iterator[Space]:
    """Make a network namespace with its loopback up and IPv6 off; it ends with the block."""
    holder = subprocess.Popen(
        ["unshare", "--net", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        if holder.stdout.read(1) != b"\n":  # the answer comes from inside: the namespace is there
            fix = "run as root, or allow user namespaces"
            raise HostError(message("emulation lab", "a network namespace cannot be made", fix=fix))
        made = Space(holder.pid)
        made.do("ip link set lo up")
        yield made
    finally:
        end(holder)


@contextmanager
def program(module: str, *arguments: str, inside: Space, log: IO[Any] | None = None) -> Iterator[Any]:
    """Run `python -m benchmarks.fidelity.MODULE` in a namespace; yields the process, pipes open.

    It is told to go by closing its standard input, and killed if it does not.
    """
    command = inside.within([sys.executable, "-m", f"benchmarks.fidelity.{module}", *arguments])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        bufsize=1,
        cwd=ROOT,  # `python -m` looks in the working directory first
        env=environment(),
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            end(process)


def line(process: Any) -> str:
    """Return the next line that a process says.

    Raises:
        HostError: it has ended instead.
    """
    said: str = process.stdout.readline()
    if not said:
        fix = "its own message is above; see `python -m benchmarks.fidelity doctor`"
        raise HostError(message("emulation lab", "a process ended before its time", fix=fix))
    return said


def expect(process: Any, word: str) -> None:
    """Wait until a process has said a word.

    Raises:
        HostError: it has ended, or said something else.
    """
    said = line(process).strip()
    if said != word:
        raise HostError(message("emulation lab", f"a process should have said {word!r}", got=said))


@contextmanager
def several(number: int) -> Iterator[list[Space]]:
    """Make so many namespaces."""
    with ExitStack() as stack:
        yield [stack.enter_context(space()) for _ in range(number)]


def end(process: Any, patience_s: float = 5.0) -> None:
    """Close a process's input, wait for its end, kill it if it stays."""
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    """Return the environment of the lab's processes: this project's modules, one thread each."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def urgent(priority: int) -> bool:
    """Put this process under SCHED_FIFO, where allowed; returns whether it is."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except (AttributeError, OSError):
        return False
    return True


def sleep_until(when_s: float) -> None:
    """Sleep until a time of the monotonic clock."""
    time.sleep(max(0.0, when_s - time.monotonic()))
