"""Points of a sweep that run at the same time, each in a process of its own.

A process a point: one that runs out of memory takes no other with it, a signal reaches its run as it reaches `fedsim run`, and no
two simulations share an interpreter. A child stops by itself when its parent is gone: its standard input ends then.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from fedsim.runs.sweeps.child import PATIENCE_S, Order
from fedsim.runs.sweeps.standing import Standing
from fedsim.runs.sweeps.work import Problem

LAST_LINES = 40
"""Lines of what a child has printed that are kept, for an end without a word."""
LINE_BYTES = 1000
"""Of a line of its that are kept."""


@dataclass(frozen=True)
class News:
    """What a child has told; kind `ended` is its last."""

    child: Child
    kind: str
    facts: Mapping[str, object]


class Child:
    """The process of one point.

    Attributes:
        number: of the point in the grid, from 1.
        standing: what it runs.
        problem: why it failed, None as long as it has not.
        stopped: whether it was asked to end before it had.
    """

    problem: Problem | None

    def __init__(self, number: int, standing: Standing, order: Order, inbox: queue.Queue[News]) -> None:
        """Start it; all that it tells goes into `inbox`."""
        self.number, self.standing, self.problem, self.stopped = number, standing, None, False
        self._finished, self._inbox = False, inbox
        self._words: deque[bytes] = deque(maxlen=LAST_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedsim.runs.sweeps.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the parent, which asks its children to stop
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        listener = threading.Thread(target=self._keep_words, args=(self._process.stderr,), daemon=True)
        listener.start()
        threading.Thread(target=self._listen, args=(self._process.stdout, listener), daemon=True).start()
        with suppress(OSError):  # it is gone already; its end will say so
            self._process.stdin.write((json.dumps(asdict(order)) + "\n").encode())
            self._process.stdin.flush()

    def heed(self, news: News) -> None:
        """Take what it has told of its end."""
        if news.kind == "failed":
            self.problem = Problem(str(news.facts["text"]), int(str(news.facts["exit_code"])))
        elif news.kind == "finished":
            self._finished = True
        elif news.kind == "ended" and self.problem is None and not self._finished and not self.stopped:
            self.problem = self._wordless_end()

    def stop(self) -> None:
        """Ask it to close its tables and end; returns at once."""
        assert self._process.stdin is not None
        self.stopped = not self._finished
        with suppress(OSError):  # what was not written yet has nobody to read it
            self._process.stdin.close()

    def end(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until it has ended, and kill it if it has not by then."""
        try:
            self._process.wait(timeout=max(0.1, patience_s))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once; its folder is that of a killed run."""
        self._process.kill()
        self._process.wait()

    def _listen(self, stream: IO[bytes], listener: threading.Thread) -> None:
        for line in stream:
            try:
                news = json.loads(line)
                self._inbox.put(News(self, str(news["kind"]), news["facts"]))
            except (ValueError, KeyError, TypeError):  # a line that was cut off by the end of the process
                continue
        self._process.wait()
        listener.join(timeout=1.0)  # a grandchild may hold its other end open
        self._inbox.put(News(self, "ended", {}))

    def _keep_words(self, stream: IO[bytes]) -> None:
        while line := stream.readline(LINE_BYTES):
            self._words.append(line)

    def _wordless_end(self) -> Problem:
        code = self._process.returncode
        said = [line.decode(errors="replace").strip() for line in self._words]
        last = next((line for line in reversed(said) if line), "")
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        text = f"its process ended {how}" + (f"; the last that it said: {last}" if last else "")
        fix = "\n  fix: start the sweep again, with fewer points at the same time if memory was short"
        return Problem(text + fix, 1)


class Children:
    """The processes that run now, and what they tell; leave the `with` block to end them all."""

    def __init__(self) -> None:
        self._inbox: queue.Queue[News] = queue.Queue()
        self._running: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ask all to close their tables, wait for it, and kill who does not: at once after a second Ctrl-C."""
        try:
            for child in self._running:
                child.stop()
            give_up_s = time.monotonic() + PATIENCE_S
            for child in self._running:
                child.end(give_up_s - time.monotonic())
        except BaseException:
            for child in self._running:
                child.kill()
            raise

    def __len__(self) -> int:
        return len(self._running)

    def start(self, number: int, standing: Standing, order: Order) -> None:
        """Start the process of a point."""
        self._running.append(Child(number, standing, order, self._inbox))

    def stop(self) -> None:
        """Ask all to close their tables and end; their ends are still told."""
        for child in self._running:
            child.stop()

    def news(self, patience_s: float) -> Iterator[News]:
        """Yield what was told by now, waiting a little for the first; a child that has ended is no longer running."""
        told: list[News] = []
        try:
            told = [self._inbox.get(timeout=patience_s)]
            while True:
                told.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        for news in told:
            news.child.heed(news)
            if news.kind == "ended":
                self._running.remove(news.child)
            yield news


def _environment() -> dict[str, str]:
    """Return the environment of a child: it finds this fedsim, wherever it lies."""
    root = str(Path(__file__).parents[3])
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if Path(root).name not in ("site-packages", "dist-packages") and root not in places:
        places.insert(0, root)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
