"""The process of one point of a sweep: `python -m fedsim.runs.sweeps.child`, started by `fedsim.runs.sweeps.children`.

The first line of its standard input is the point, in JSON; the rest never comes, and the end of the input is the word to stop:
when the parent closes it, or when the parent is gone, however that ended. What happens goes to its standard output,
a line of JSON each; what libraries print goes to its standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from fedsim.callbacks.telling import OnEvent
    from fedsim.runs.sweeps.standing import How

TOLD = ("starting", "note", "start", "resumed", "score", "commit", "stopped")
"""Events that the parent is told at once."""
TIMES_S = 1.0
"""Real seconds between two words on the virtual time."""
PATIENCE_S = 60.0
"""Real seconds in which a run must have closed its tables once it was asked to stop."""


@dataclass(frozen=True)
class Order:
    """What a child is asked to run.

    Attributes:
        label, folder: of the point.
        experiment: as plain values.
        how: whether its run is to be begun or goes on, as `Standing.how`.
        timeline_only: whether nothing is trained.
        workers: processes of its Ray where the experiment leaves that open.
        path: where modules are found, as `sys.path`.
    """

    label: str
    folder: str
    experiment: dict[str, object]
    how: How
    timeline_only: bool
    workers: int
    path: list[str]


def main() -> int:
    """Run the point that the parent has sent; returns the exit code."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGTERM, _terminate)
    try:
        line = sys.stdin.buffer.readline()
        if not line:
            return 0
        threading.Thread(target=_stop_with_the_parent, daemon=True).start()
        order = Order(**json.loads(line))
        sys.path += [place for place in order.path if place not in sys.path]
        return _run(order, _Teller(told))
    except KeyboardInterrupt:
        return 128 + signal.SIGTERM
    except BrokenPipeError:  # nobody reads any more
        return 1


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop_with_the_parent() -> None:
    """Wait for the end of the input, which is the parent's; then stop the run, at once if it does not stop by itself."""
    while os.read(sys.stdin.fileno(), 2**16):
        pass
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)
    else:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os._exit(128 + signal.SIGTERM)


class _Teller:
    """Writes events for the parent.

    Attributes:
        ended: what is known of the run that has ended.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._time_told_s = file, 0.0
        self.ended: dict[str, object] = {}

    def tell(self, kind: str, facts: Mapping[str, object]) -> None:
        """Write a line."""
        from fedsim.records.info import json_values
        from fedsim.records.tables import encode

        self._file.write(encode({"kind": kind, "facts": json_values(facts)}) + "\n")
        self._file.flush()

    def say(self, text: str) -> None:
        """Write a sentence for people."""
        self.tell("say", {"text": text})

    @contextmanager
    def watching(self, _head: str) -> Iterator[OnEvent]:
        """Return what takes the events of a run."""
        yield self._watch

    def _watch(self, kind: str, facts: Mapping[str, Any]) -> None:
        if kind == "time" and time.monotonic() - self._time_told_s >= TIMES_S:
            self._time_told_s = time.monotonic()
            self.tell(kind, facts)
        elif kind in TOLD:
            self.tell(kind, {name: fact for name, fact in facts.items() if name != "resolved"})
        elif kind == "done":
            from fedsim.callbacks.telling import ended

            self.ended = ended(facts["run"].info, facts["run"].folder)


def _run(order: Order, teller: _Teller) -> int:
    from fedsim.config.experiment import Experiment
    from fedsim.runs.sweeps.grid import Point
    from fedsim.runs.sweeps.standing import Standing
    from fedsim.runs.sweeps.work import Shared, problem_of, run_point

    try:
        experiment = Experiment.model_validate(order.experiment)
        standing = Standing(Point(order.label, {}, experiment, Path(order.folder)), order.how)
        with closing(Shared(order.workers)) as shared:
            run_point(standing, shared, teller.say, teller.watching, timeline_only=order.timeline_only)
    except Exception as error:
        problem = problem_of(error)
        teller.tell("failed", {"text": problem.text, "exit_code": problem.exit_code})
        return problem.exit_code
    teller.tell("finished", teller.ended)
    return 0


if __name__ == "__main__":
    sys.exit(main())
