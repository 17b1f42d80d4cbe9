"""`python -m benchmarks.fidelity`: see README.md of this folder."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fidelity import permits
from fedsim.errors import FedsimError

MISSED = 1
NOT_ALL_READ = 4
TERMINATED = 128 + signal.SIGTERM


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    main = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity", description="fedsim's clock against measurements"
    )
    main.add_argument("--check", type=Path, metavar="FOLDER", help="replay the measured rows of a folder")
    main.add_argument("--simgrid", action="store_true", help="with --check: ask SimGrid too")
    main.add_argument("--out", type=Path, metavar="FILE", help="with --check: write the JSON there too")
    commands = main.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("doctor", help="say what this kernel allows")
    measure = commands.add_parser("measure", help="measure transfers here, as rows for --check")
    measure.add_argument("folder", type=Path)
    measure.add_argument("--repetitions", type=int, default=1)
    run = commands.add_parser("run", help="run federations of real processes, and simulate them")
    run.add_argument("--federation", choices=("four", "eight"), action="append")
    run.add_argument("--work", choices=("spin", "torch"), action="append")
    run.add_argument("--protocol", choices=("synchronous", "buffered"), action="append")
    run.add_argument("--repetitions", type=int, default=3)
    run.add_argument("--out", type=Path, metavar="FILE")
    commands.add_parser("tables", help="write the tables of README.md from results/")
    return main


def check(args: argparse.Namespace) -> int:
    """Replay rows; 1 if a bound is missed, else 4 if rows were left out that may be measurements."""
    from benchmarks.fidelity.check import check as replay

    answer = replay(args.check, simgrid=args.simgrid)
    for one in answer["unread"]:
        rows = f"{one['rows']} rows (lines {', '.join(map(str, one['lines']))}{', ...' * (one['rows'] > 5)})"
        print(f"not read: {one['file']}{': ' + rows if one['rows'] else ''}: {one['why']}", file=sys.stderr)
    status = _answer(answer, args.out, ok=answer["ok"])
    return status or (0 if answer["all_read"] else NOT_ALL_READ)


def doctor() -> int:
    """Say what there is."""
    found = {
        "network namespaces": permits.namespaces(),
        "kernel rate limits": permits.kernel_limits(),
        "TUN devices": permits.tun(),
        "CPU quotas": permits.quotas(),
        "SCHED_FIFO": None
        if permits.realtime()
        else "not allowed: other processes will disturb the measurement",
    }
    for name, missing in found.items():
        print(f"{name}: {missing or 'yes'}")
    return 0


def measure(args: argparse.Namespace) -> int:
    """Measure transfers, or say why not."""
    from benchmarks.fidelity.measure import measure as rows

    if (why_not := permits.namespaces()) is not None:
        return _skipped(why_not)
    rows(args.folder, repetitions=args.repetitions)
    return 0


def run(args: argparse.Namespace) -> int:
    """Run federations, or say why not; 1 if a bound is missed."""
    from benchmarks.fidelity import end_to_end
    from benchmarks.fidelity.federation import FEDERATIONS

    if (why_not := end_to_end.forbidden()) is not None:
        return _skipped(why_not)
    answer = end_to_end.run(
        [FEDERATIONS[name] for name in args.federation or ("four",)],
        args.work or ["spin"],
        args.protocol or ["synchronous", "buffered"],
        repetitions=args.repetitions,
        out=args.out,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return _answer(answer, None, ok=all(result["ok"] for result in answer["results"]))


def tables() -> int:
    """Write README.md's tables."""
    from benchmarks.fidelity.tables import write

    write()
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 a bound is missed, 2 bad input, 3 this machine, 4 rows not read; 130 after Ctrl-C."""
    args = parser().parse_args(words)
    if args.command in ("doctor", "measure", "run"):
        permits.enter_user_namespace()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that everything is removed
    try:
        if args.check is not None:
            return check(args)
        if args.command in ("measure", "run"):
            return {"measure": measure, "run": run}[args.command](args)
        if args.command in ("doctor", "tables"):
            return {"doctor": doctor, "tables": tables}[args.command]()
        parser().print_help()
        return 0
    except FedsimError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("interrupted: namespaces and cgroups are gone", file=sys.stderr)
        return 130


def _skipped(why: str) -> int:
    print(f"skipped: {why}")
    return 0


def _answer(answer: dict[str, Any], out: Path | None, *, ok: bool) -> int:
    text = json.dumps(answer, indent=2)
    if out is not None:
        out.write_text(text + "\n", "utf-8")
    print(text)
    return 0 if ok else MISSED


if __name__ == "__main__":
    sys.exit(main())
