"""What a person sees of a run while it goes: progress in virtual time.

On a terminal a bar; else one line a commit: `v12 | t=3h41m | 10 updates, stale 1.4 | perplexity 31.2 | about 20m left`.
While the run waits for scores, which take long where images are drawn, it says how many are there. How long the run will
take is learnt from its speed (`fedsim.records.watching.pace`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from fedsim.callbacks import (
    Committed,
    Noted,
    RunBegun,
    RunEnded,
    RunResumed,
    Scored,
    Scoring,
    Starting,
    TimePassed,
)
from fedsim.callbacks.pacing import Paced
from fedsim.errors import visible
from fedsim.records.quantities import duration, plural, said

STARTING = "starting Ray and its workers, some seconds (-s runtime.executor=inline needs none)"
QUIET_S = 10.0
"""Real seconds without a line after which one says what the run is waiting for."""
ANEW_S = 0.5
"""Real seconds for which an estimate is good."""
AMONG_OTHERS_S = 5.0
"""Real seconds at least between two commits that are told, where several runs tell theirs."""


def resumed(event: RunResumed) -> str:
    """Return from where a run goes on, and what was compared."""
    if not event.version:
        return "no checkpoint: the run begins again, and is compared with what was there"
    rows = f"{plural(event.visits, 'visit')} and {plural(event.commits, 'commit')} replayed and compared"
    text = f"resumed from version {event.version}: {rows} in {event.seconds:.1f} s"
    if event.cpu == event.cpu_before:
        return text
    return f"{text}; on another processor ({event.cpu}, it was {event.cpu_before}): values agree to rounding"


class Progress(Paced):
    """A callback of `simulate` that shows how a run goes; use it in a `with` block, which ends the bar.

    Args:
        stream: where to write; default the current `sys.stderr`.
        bar: a bar, or lines; default a bar if the stream is a terminal and there is no head.
        head: what stands before each line, where several runs write to one stream.
        notes: lines that are said when the run starts.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        bar: bool | None = None,
        head: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        self._stream, self._head, self._notes = sys.stderr if stream is None else stream, head, notes
        bar = False if head else bar
        super().__init__()
        self._left_said = (-ANEW_S, "")
        self._bar = _Bar(self._stream) if (self._stream.isatty() if bar is None else bar) else None
        self._held: Committed | None = None
        self._scored: tuple[int, float, str] | None = None
        self._shown = True
        self._wrote_s = time.monotonic()
        self._starting_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._bar is not None:
            self._bar.stop()

    def on_starting(self, event: Starting) -> None:
        """Say that Ray starts, which takes a while."""
        if event.executor == "ray":
            self._starting_s = time.monotonic()
            self._say(STARTING)

    def on_begin(self, event: RunBegun) -> None:
        """Say what begins: who takes part, where, for how long, and what the configuration leaves open."""
        super().on_begin(event)
        where = plural(event.workers, "worker") if event.workers else "no training"
        self._say(f"{plural(event.clients, 'client')}, {where}, budget {_limits(self._budget)}")
        for line in (*(() if event.resolved is None else event.resolved.lines()), *self._notes):
            self._say(line)

    def on_resume(self, event: RunResumed) -> None:
        """Say from where the run goes on."""
        super().on_resume(event)
        self._say(resumed(event))

    def on_note(self, event: Noted) -> None:
        """Say it."""
        self._say(event.text)

    def on_commit(self, event: Committed) -> None:
        """Hold a commit, which waits for its score, and show the one before."""
        super().on_commit(event)
        self._flush()
        self._held = event
        self._move()

    def on_time(self, event: TimePassed) -> None:
        """Move the bar."""
        super().on_time(event)
        self._move()

    def on_end(self, event: RunEnded) -> None:
        """Show what is still held."""
        self._end()
        if event.status == "done":
            self._hint()

    def _move(self) -> None:
        if self._bar is not None:
            self._bar.move(self._pace.share, self._time_s, self._version, self._left())

    def _left(self) -> str:
        """Return how long the run will take, in words, found anew now and then."""
        now_s = time.monotonic()
        if now_s - self._left_said[0] >= ANEW_S:
            self._left_said = (now_s, self._left_at(now_s))
        return self._left_said[1]

    def on_score(self, event: Scored) -> None:
        """Take scores, which come when the workers have them, maybe some commits later; the newest one is shown."""
        metric = _headline(event.metrics)
        if event.split == "samples" and metric is not None:
            self._line(event.version, event.time_s, f"samples: {metric}")
        if event.split != "test" or metric is None:
            return
        self._scored = (event.version, event.time_s, metric)
        self._shown = False
        if self._bar is not None:
            self._bar.note(metric)

    def on_scoring(self, event: Scoring) -> None:
        """Say what is waited for: at once in the bar, as a line when it was quiet for long."""
        text = str(event)
        if self._bar is not None:
            self._bar.doing(text)
        elif time.monotonic() - self._wrote_s >= QUIET_S:
            self._say(text)

    def _too_soon(self, *, last: bool) -> bool:
        """Tell whether a commit is passed over, so that the lines of several runs can be read."""
        return bool(self._head) and not last and time.monotonic() - self._wrote_s < AMONG_OTHERS_S

    def _flush(self, *, last: bool = False) -> None:
        """Write the held commit, which had to wait for its score."""
        held, self._held = self._held, None
        if held is None or self._too_soon(last=last):
            return
        updates = f"{plural(held.updates, 'update')}, stale {held.mean_staleness:.1f}"
        parts = [updates]
        if self._scored is not None:
            version, _, metric = self._scored
            parts.append(metric if version == held.version else f"{metric} (v{version})")
            self._shown = True
        left = self._left()
        self._line(held.version, held.time_s, *parts, *([left] if left else []))

    def _end(self) -> None:
        self._flush(last=True)
        if self._scored is not None and not self._shown:
            self._line(*self._scored)
            self._shown = True

    def _hint(self) -> None:
        """Name the executor without a start where Ray's took most of the time."""
        if self._starting_s is None:
            return
        start_s, all_s = self._began_s - self._starting_s, time.monotonic() - self._starting_s
        if start_s > all_s / 2:
            took = f"starting took {duration(start_s)} of {duration(all_s)}"
            self._say(f"{took}: a run as small as this is quicker with -s runtime.executor=inline")

    def _line(self, version: int, time_s: float, *parts: str) -> None:
        if self._bar is None:
            self._say(" | ".join([f"v{version}", f"t={duration(time_s)}", *parts]))

    def _say(self, text: str) -> None:
        self._wrote_s = time.monotonic()
        if self._bar is None:
            print(visible(f"{self._head}{text}", also="\n"), file=self._stream, flush=True)
        else:
            self._bar.title(text)


class _Bar:
    """One rich progress bar whose length is the budget."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[now]}", markup=False),
        )
        self._rich = Progress(*columns, console=Console(file=stream), transient=True)
        self._task = self._rich.add_task("starting", total=1.0, now="")
        self._metric = ""
        self._rich.start()

    def title(self, text: str) -> None:
        self._rich.console.print(visible(text), markup=False, highlight=False)
        self._rich.update(self._task, description="virtual time")

    def doing(self, text: str) -> None:
        self._rich.update(self._task, description=text)

    def note(self, metric: str) -> None:
        self._metric = metric

    def move(self, share: float, time_s: float, version: int, left: str) -> None:
        now = " | ".join(p for p in (f"t={duration(time_s)}", f"v{version}", self._metric, left) if p)
        task = self._rich.tasks[0]
        done = max(task.completed, share)
        self._rich.update(self._task, completed=done, now=now, description="virtual time")

    def stop(self) -> None:
        self._rich.stop()


def _headline(metrics: Mapping[str, float]) -> str | None:
    return next((f"{name} {value:.4g}" for name, value in metrics.items()), None)


def _limits(budget: Mapping[str, float | None]) -> str:
    shown = []
    if time_s := budget.get("time_s"):
        shown.append(duration(time_s))
    if commits := budget.get("commits"):
        shown.append(plural(int(commits), "commit"))
    if up_bytes := budget.get("up_bytes"):
        shown.append(f"{said('bytes', up_bytes)} up")
    return " or ".join(shown) or "none"
