"""`python -m benchmarks [NAME ...]`: measure, or write the README's tables and the plots anew."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

from benchmarks.harness import Busy, Options, measured, say

MODULES = {
    "w1": "benchmarks.w1.measure",
    "small": "benchmarks.small",
    "midsized": "benchmarks.midsized",
    "families": "benchmarks.families",
    "chats": "benchmarks.chats",
    "trivial": "benchmarks.trivial",
    "aggregate": "benchmarks.aggregate",
    "memory": "benchmarks.memory",
    "startup": "benchmarks.startup",
    "growth": "benchmarks.growth",
    "engine": "benchmarks.engine",
    "profile": "benchmarks.profiled",
    "pace": "benchmarks.pace",
    "survival": "benchmarks.survival",
    "personal": "benchmarks.personal",
    "tables": "benchmarks.tables",
    "tables_long": "benchmarks.tables_long",
    "gpu": "benchmarks.gpu",
}
DEFAULT = tuple(name for name in MODULES if name not in ("gpu", "tables_long", "personal"))
"""What `make bench` measures; `gpu` needs a machine with one, `tables_long` a quarter of an hour, `personal` minutes for one figure."""


def main() -> int:
    """Run what was asked for; returns 2 if the machine cannot measure it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(MODULES)}; readme (write its tables and plots anew); default: all but gpu, tables_long and personal",
    )
    parser.add_argument("--quick", action="store_true", help="one small repetition, to see that it runs")
    parser.add_argument("--repetitions", type=int, default=5, help="of every contestant (default 5)")
    parser.add_argument("--anyway", action="store_true", help="measure although the machine is busy")
    parser.add_argument("--device", default="cuda", help="for gpu: cuda (default) or cpu")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(MODULES) - {"readme"}
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that contestants are ended too
    options = Options(asked.quick, max(1, asked.repetitions), asked.anyway, asked.device)
    try:
        for name in asked.names or DEFAULT:
            if name != "readme":
                measured(name, importlib.import_module(MODULES[name]).run, options)
    except Busy as problem:
        say(f"error: {problem}")
        return 2
    if not options.quick:
        from benchmarks import plots, readme

        plots.write()
        readme.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
