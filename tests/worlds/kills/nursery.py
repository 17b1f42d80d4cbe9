"""A process that has imported everything and forks one child for each command, so that a command starts at once.

    python -m worlds.kills.nursery

It reads one request a line and answers each in one line, both JSON. A request is a command line of fedsim (or a call of its
functions), what to watch for, and after how many seconds of its life the child is killed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time

from worlds.kills import calls
from worlds.kills.watch import Order

MODULES = (
    *(
        "numpy",
        "pandas",
        "pyarrow",
        "pyarrow.parquet",
        "simpy",
        "torch",
        "yaml",
        "safetensors.torch",
        "jinja2",
    ),
    *(
        "fedsim",
        "fedsim.cli.app",
        "fedsim.cli.progress",
        "fedsim.cli.verdict",
        "fedsim.report",
        "fedsim.report.page",
    ),
    *("fedsim.runs.simulation", "fedsim.executors.inline", "fedsim.tasks.language", "fedsim.tasks.images"),
    *(
        "fedsim.tasks._language.task",
        "fedsim.tasks._images.task",
        "fedsim.training.text_model",
        "fedsim.runs.audit",
    ),
    *("fedsim.training.fused.decoder", "fedsim.training.diffusion.image_model", "worlds.kills.clients"),
)
"""Imported before the first fork; no thread must run then, so nothing is computed."""
LONGEST_S = 300.0


def warm():
    """Import what any command needs."""
    for module in MODULES:
        importlib.import_module(module)
    from fedsim.component import kinds

    for seam in ("aggregators", "protocols", "samplers", "optimizers", "personal", "tasks"):
        for kind in kinds(seam):
            importlib.import_module(f"fedsim.{seam}.{kind.replace('-', '_')}")
    assert threading.active_count() == 1


def obey(request):
    """Run a request in this process, a child; returns the exit code."""
    watch = None
    if request.get("order") is not None:
        watch = calls.install(request["folder"], Order(**request["order"]))
    if request["do"] == "cli":
        from fedsim.cli.app import call

        code = call(request["args"])
    else:
        code = called(request)
    if watch is not None and watch.order.what == "trace":
        watch.save(watch.changes)
    return code


def called(request):
    """Call `fedsim.simulate` or `fedsim.resume`, without the page, which takes longer than all the rest."""
    import fedsim

    if request["do"] == "simulate":
        fedsim.simulate(fedsim.read(request["experiment"]), out=request["folder"], report=False)
    else:
        fedsim.resume(request["folder"], report=False)
    return 0


def child(request):
    """Be the child: never return."""
    code = 70
    try:
        os.setsid()
        said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for descriptor in (1, 2):
            os.dup2(said, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = obey(request)
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def answered(request):
    """Fork, wait, and kill if that is asked for; returns how the child ended and after how long."""
    began_s = time.monotonic()
    pid = os.fork()
    if not pid:
        child(request)
    after_s = request.get("kill_after_s")
    limit_s = LONGEST_S if after_s is None else after_s
    ended = waited(pid, began_s + limit_s)
    hung = ended is None and after_s is None
    if ended is None:
        os.kill(pid, signal.SIGKILL)
        _, ended = os.waitpid(pid, 0)
    seconds = time.monotonic() - began_s
    killed = os.WIFSIGNALED(ended)
    code = -os.WTERMSIG(ended) if killed else os.WEXITSTATUS(ended)
    return {"code": code, "seconds": seconds, "hung": hung, "killed": killed and not hung}


def waited(pid, until_s):
    """Wait for a child until then; returns its status, or None if it is still there."""
    while True:
        left_s = until_s - time.monotonic()
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if left_s <= 0:
            return None
        time.sleep(min(0.002, left_s))


def main():
    """Answer until the requests end."""
    warm()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answered(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
