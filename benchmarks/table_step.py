"""One thing done with the tables of a run, in a process of its own: `python -m benchmarks.table_step STEP FOLDER --visits N`.

Prints seconds, CPU seconds and the peak of this process's memory as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import fedsim
from benchmarks import long_run
from benchmarks.machine import peak_rss_mib

Step = Callable[[Path], object]


def loaded(folder: Path) -> object:
    """Load the run, as everybody does first."""
    return repr(fedsim.load(folder))


def verified(folder: Path) -> object:
    """Audit the run from its tables and seals."""
    from fedsim.records.verify import verify

    problems = verify(fedsim.load(folder))
    assert not problems, problems
    return "ok"


def reported(folder: Path) -> object:
    """Write the page about the run; returns its bytes."""
    from fedsim.report.page import write

    return write([fedsim.load(folder)], folder / "report.html").stat().st_size


def grouped(folder: Path) -> object:
    """Read two columns of the visits, as a notebook does."""
    return len(fedsim.load(folder).frame("visits", "client", "outcome").groupby("client").size())


STEPS: dict[str, Step] = {"load": loaded, "verify": verified, "report": reported, "frame": grouped}


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["write", "make", *STEPS])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--visits", type=int, default=100_000)
    asked = parser.parse_args()
    found: dict[str, object] = {}
    if asked.step == "write":
        timeline = long_run.repeated(asked.visits)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        writer = long_run.written(timeline, asked.folder)
        found |= {"s": time.perf_counter() - began_s, "cpu_s": time.process_time() - began_cpu_s}
        found["mib"] = peak_rss_mib()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        long_run.closed(timeline, writer)
        found |= {"close_s": time.perf_counter() - began_s, "close_cpu_s": time.process_time() - began_cpu_s}
        found["close_mib"] = peak_rss_mib()
    elif asked.step == "make":  # quickly, for what reads it
        long_run.made(long_run.repeated(asked.visits), asked.folder)
    else:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        found["seen"] = STEPS[asked.step](asked.folder)
        found |= {"s": time.perf_counter() - began_s, "cpu_s": time.process_time() - began_cpu_s}
        found["mib"] = peak_rss_mib()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
