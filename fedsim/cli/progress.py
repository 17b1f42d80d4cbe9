"""What a person sees of a run while it goes: progress in virtual time.

On a terminal a bar; else one line a commit: `v12 | t=3h41m | 10 updates, stale 1.4 | perplexity 31.2 | about 20m left`.
While the run waits for scores, which take long where images are drawn, it says how many are there. How long the run will
take is learnt from its speed (`fedsim.records.watching.pace`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from fedsim.cli.watching.words import left_said
from fedsim.errors import visible
from fedsim.records.liveness.resumption import Resumption
from fedsim.records.quantities import duration, plural, said
from fedsim.records.resolved import Resolved
from fedsim.records.watching.pace import Pace, shares_of

STARTING = "starting Ray and its workers, some seconds (-s runtime.executor=inline needs none)"
QUIET_S = 10.0
"""Real seconds without a line after which one says what the run is waiting for."""
ANEW_S = 0.5
"""Real seconds for which an estimate is good."""
AMONG_OTHERS_S = 5.0
"""Real seconds at least between two commits that are told, where several runs tell theirs."""


def resumed(facts: Mapping[str, object]) -> str:
    """Return from where a run goes on, and what was compared."""
    again = facts["resumption"]
    assert isinstance(again, Resumption)
    if not again.version:
        return "no checkpoint: the run begins again, and is compared with what was there"
    rows = f"{plural(again.visits, 'visit')} and {plural(again.commits, 'commit')} replayed and compared"
    text = f"resumed from version {again.version}: {rows} in {again.seconds:.1f} s"
    if facts["cpu"] == again.cpu:
        return text
    return f"{text}; on another processor ({again.cpu}, it was {facts['cpu']}): values agree to rounding"


_SENTENCES: Mapping[str, Callable[[Mapping[str, object]], str]] = {
    "resumed": resumed,
    "nothing_to_do": lambda _: "nothing to do: the run came to the end of its budget",
    "no_checkpoint": lambda facts: str(facts["reason"]),
}
"""Events that are told in a sentence."""


class Progress:
    """An observer of `simulate` (`on_event`); use it in a `with` block, which ends the bar.

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
        self._pace, self._left_said = Pace(), (-ANEW_S, "")
        self._bar = _Bar(self._stream) if (self._stream.isatty() if bar is None else bar) else None
        self._held: Mapping[str, Any] | None = None
        self._scored: tuple[int, float, str] | None = None
        self._shown = True
        self._wrote_s = time.monotonic()
        self._starting_s: float | None = None
        self._started_s = 0.0
        self._budget: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Take one event of a run."""
        self._learn(kind, facts)
        if kind == "starting" and facts["executor"] == "ray":
            self._starting_s = time.monotonic()
            self._say(STARTING)
        elif kind == "start":
            self._start(facts)
        elif kind == "score":
            self._score(facts)
        elif kind == "scoring":
            self._scoring(facts)
        elif kind == "commit":
            self._flush()
            self._held = facts
        elif kind == "done":
            self._end()
            self._hint()
        elif kind in _SENTENCES:
            self._say(_SENTENCES[kind](facts))
        if self._bar is not None and kind in ("commit", "time"):
            self._bar.move(self._pace.share, facts, self._left())

    def _learn(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Let the pace know where the run is."""
        if kind == "start":
            self._pace = Pace(facts.get("visits_after", 0.0))
            self._pace.note(time.monotonic(), {})
        elif kind in ("resumed", "restarted"):  # what was replayed until here says nothing of the speed
            self._pace = Pace(self._pace.visits_after)
        elif kind in ("commit", "time"):
            self._pace.note(
                time.monotonic(),
                shares_of(self._budget, facts),
                facts.get("updates", 0) if kind == "commit" else 0,
            )

    def _left(self) -> str:
        """Return how long the run will take, in words; nothing as long as nobody knows, and at its end."""
        now_s = time.monotonic()
        if now_s - self._left_said[0] >= ANEW_S:
            left = self._pace.left(now_s)
            self._left_said = (now_s, "" if left is None or left.middle_s < 1.0 else left_said(left))
        return self._left_said[1]

    def _start(self, facts: Mapping[str, Any]) -> None:
        """Say what begins: who takes part, where, for how long, and what the configuration leaves open."""
        self._started_s = time.monotonic()
        self._budget = facts.get("budget", {})
        where = plural(facts["workers"], "worker") if facts.get("workers") else "no training"
        self._say(f"{plural(facts.get('clients', 0), 'client')}, {where}, budget {_limits(self._budget)}")
        resolved: Resolved | None = facts.get("resolved")
        for line in (*(() if resolved is None else resolved.lines()), *self._notes):
            self._say(line)

    def _score(self, facts: Mapping[str, Any]) -> None:
        """Scores come when the workers have them, maybe some commits later; the newest one is shown."""
        metric = _headline(facts["metrics"])
        if facts.get("split") == "samples" and metric is not None:
            self._line(facts["version"], facts["time_s"], f"samples: {metric}")
        if facts.get("split") != "test" or metric is None:
            return
        self._scored = (facts["version"], facts["time_s"], metric)
        self._shown = False
        if self._bar is not None:
            self._bar.note(metric)

    def _scoring(self, facts: Mapping[str, Any]) -> None:
        """Say what is waited for: at once in the bar, as a line when it was quiet for long."""
        text = f"scoring v{facts['version']}: {facts['done']:,} of {facts['of']:,} of {facts['split']}"
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
        updates = f"{plural(held['updates'], 'update')}, stale {held['mean_staleness']:.1f}"
        parts = [updates]
        if self._scored is not None:
            version, _, metric = self._scored
            parts.append(metric if version == held["version"] else f"{metric} (v{version})")
            self._shown = True
        left = self._left()
        self._line(held["version"], held["time_s"], *parts, *([left] if left else []))

    def _end(self) -> None:
        self._flush(last=True)
        if self._scored is not None and not self._shown:
            self._line(*self._scored)
            self._shown = True

    def _hint(self) -> None:
        """Name the executor without a start where Ray's took most of the time."""
        if self._starting_s is None:
            return
        start_s, all_s = self._started_s - self._starting_s, time.monotonic() - self._starting_s
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
        self._version = 0
        self._rich.start()

    def title(self, text: str) -> None:
        self._rich.console.print(visible(text), markup=False, highlight=False)
        self._rich.update(self._task, description="virtual time")

    def doing(self, text: str) -> None:
        self._rich.update(self._task, description=text)

    def note(self, metric: str) -> None:
        self._metric = metric

    def move(self, share: float, facts: Mapping[str, Any], left: str) -> None:
        self._version = facts.get("version", self._version)
        now = " | ".join(
            p for p in (f"t={duration(facts['time_s'])}", f"v{self._version}", self._metric, left) if p
        )
        task = self._rich.tasks[0]
        done = max(task.completed, share)
        self._rich.update(self._task, completed=done, now=now, description="virtual time")

    def stop(self) -> None:
        self._rich.stop()


def _headline(metrics: Mapping[str, float]) -> str | None:
    return next((f"{name} {value:.4g}" for name, value in metrics.items()), None)


def _limits(budget: Mapping[str, Any]) -> str:
    shown = []
    if budget.get("time_s"):
        shown.append(duration(budget["time_s"]))
    if budget.get("commits"):
        shown.append(plural(budget["commits"], "commit"))
    if budget.get("up_bytes"):
        shown.append(f"{said('bytes', budget['up_bytes'])} up")
    return " or ".join(shown) or "none"
