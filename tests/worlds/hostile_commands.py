"""Runs commands on hostile folders in this process, and writes down what each said, took and touched."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import resource
import signal
import sys
import time
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DANGEROUS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pty.spawn",
    "socket.connect",
    "pickle.find_class",
    "ctypes.dlopen",
    "webbrowser.open",
)
CHANGING = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "shutil.rmtree",
    "shutil.copyfile",
)
MEMORY_BYTES = 6 * 2**30
TIME_S = 60


class Watch:
    """Notes what Python does that a reader of folders has no business to do."""

    def __init__(self):
        self.inside = None
        self.seen = []
        sys.addaudithook(self)

    def __call__(self, event, args):
        if self.inside is None:
            return
        if event in DANGEROUS:
            self.seen.append(f"{event} {args!r:.200}")
        elif (
            event == "open"
            and isinstance(args[0], str | bytes)
            and isinstance(args[2], int)
            and args[2] & WRITING
        ):
            self.path(event, args[0])
        elif event in CHANGING:
            for part in args[:2]:
                if isinstance(part, str | bytes | os.PathLike):
                    self.path(event, part)
        elif event == "exec" and args[0].co_filename.startswith(self.inside):
            self.seen.append(f"exec {args[0].co_filename}")

    def path(self, event, path):
        """A path that is written to must lie in the folder."""
        path = str(Path(os.fsdecode(path)).absolute())
        if not path.startswith((self.inside + os.sep, os.devnull)) and path != self.inside:
            self.seen.append(f"{event} {path}")


def tried(watch, call, folder, command):
    """The exit code of a command, what it said, and what it did."""
    out, err, began_s = io.StringIO(), io.StringIO(), time.perf_counter()
    watch.inside, watch.seen = str(folder), []
    signal.alarm(TIME_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call(command)
    except BaseException as problem:
        code = f"{type(problem).__name__}: {problem}"
    finally:
        signal.alarm(0)
        watch.inside = None
    took_s = time.perf_counter() - began_s
    return {
        "command": command[0],
        "code": code,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "seconds": took_s,
        "seen": watch.seen,
    }


def main():
    """Read one line of JSON for each folder: its path and the commands; write one for each."""
    from fedsim.cli.app import call

    signal.signal(signal.SIGALRM, timed_out)
    warm(call)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    watch = Watch()
    answers = sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        folder = Path(asked["folder"])
        os.chdir(folder)
        results = [tried(watch, call, folder, command) for command in asked["commands"]]
        print(json.dumps({"results": results, "peak_bytes": peak_bytes()}), file=answers, flush=True)


def peak_bytes():
    """The most memory that this process has held; `ru_maxrss` begins with that of whoever started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def timed_out(*_):
    raise TimeoutError("it took too long")


def warm(call):
    """Import what the commands import, so that this is not noted."""
    platform.processor()  # it asks `uname`, once
    sound = sys.argv[1]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for command in (
            ["verify", sound],
            ["timeline", sound, "--out", os.devnull + ".x"],
            ["report", sound, "--out", sys.argv[2]],
        ):
            call(command)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
