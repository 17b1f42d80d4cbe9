"""Progress in a notebook: one line with a bar under the cell, written anew as the run goes; plain text where nothing draws HTML."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from html import escape

from fedsim.callbacks.base import Callback
from fedsim.callbacks.events import (
    Committed,
    RunBegun,
    RunEnded,
    RunResumed,
    Scored,
    Scoring,
    Starting,
    TimePassed,
)
from fedsim.callbacks.pacing import Paced
from fedsim.errors import ExperimentError, Shown, message
from fedsim.records.quantities import duration, number, percent

ANEW_S = 0.2
"""Real seconds between two writings at least."""
KERNEL = "ZMQInteractiveShell"
"""The class of IPython's shell in every kernel of a notebook, or a class below it."""


def in_notebook() -> bool:
    """Tell whether the kernel of a notebook runs this code; a terminal with IPython is none."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return any(cls.__name__ == KERNEL for cls in type(get_ipython()).__mro__)


def with_bar(callbacks: Sequence[Callback], *, progress: bool) -> list[Callback]:
    """Return callbacks and, in a notebook, the bar, unless it is among them or is not wanted.

    Raises:
        ExperimentError: a callback, or its class, stands where a list of callbacks belongs.
    """
    given: object = callbacks
    if isinstance(given, Callback | type):
        name = given.__name__ if isinstance(given, type) else type(given).__name__
        fix = f"write callbacks=[{name}()]"
        raise ExperimentError(message("callbacks", "must be a list", got=Shown(repr(given)), fix=fix))
    has_bar = any(isinstance(callback, NotebookProgress) for callback in callbacks)
    if has_bar or not progress or not in_notebook():
        return [*callbacks]
    return [*callbacks, NotebookProgress()]


class Line:
    """A place in the output of a cell that can be written anew."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle, self._is_there = DisplayHandle(), False

    def write(self, html: str, text: str) -> None:
        """Show something in place of what is there.

        Args:
            html: for a notebook.
            text: for whatever draws no HTML.
        """
        show = self._handle.update if self._is_there else self._handle.display
        show({"text/html": html, "text/plain": text}, raw=True)
        self._is_there = True


class NotebookProgress(Paced):
    """The bar that `fedsim.simulate` and `fedsim.resume` show in a notebook (`progress=False`: none)."""

    def __init__(self) -> None:
        super().__init__()
        self._line: Line | None = None
        self._name = self._score = self._doing = ""
        self._wrote_s = 0.0

    def on_starting(self, event: Starting) -> None:
        """Say that Ray's workers take a while."""
        if event.executor == "ray":
            self._line = Line()
            text = "starting Ray and its workers, some seconds (runtime.executor: inline needs none)"
            self._line.write(_html(text, None), text)

    def on_begin(self, event: RunBegun) -> None:
        """Open the line."""
        super().on_begin(event)
        self._line, self._name, self._score, self._doing = self._line or Line(), event.name, "", ""
        self._write()

    def on_resume(self, event: RunResumed) -> None:
        """Stand at the version that the run goes on from."""
        super().on_resume(event)
        self._version = event.version

    def on_commit(self, event: Committed) -> None:
        """Go on by a version."""
        super().on_commit(event)
        self._doing = ""
        self._write_soon()

    def on_time(self, event: TimePassed) -> None:
        """Go on in virtual time."""
        super().on_time(event)
        self._write_soon()

    def on_score(self, event: Scored) -> None:
        """Take the headline of what was scored on test."""
        if event.split == "test" and event.metrics:
            metric, value = next(iter(event.metrics.items()))
            self._score = f"{metric} {number(value, 4)}"
            self._write_soon()

    def on_scoring(self, event: Scoring) -> None:
        """Say what is waited for."""
        self._doing = str(event)
        self._write_soon()

    def on_end(self, event: RunEnded) -> None:
        """Leave a last line: how it ended, where, and how long it took here."""
        if self._line is None:
            return
        ended = event.status if event.status == "done" else f"{event.status}: {event.reason}"
        took = f"{duration(round(time.monotonic() - self._began_s, 1))} here"
        parts = [ended, f"t={duration(event.time_s)}", f"v{event.version}", self._score, took]
        text = f"{self._name}: {' | '.join(part for part in parts if part)}"
        self._line.write(_html(text, None), text)
        self._line = None  # the next run has a line of its own

    def _write_soon(self) -> None:
        if time.monotonic() - self._wrote_s >= ANEW_S:
            self._write()

    def _write(self) -> None:
        if self._line is None:
            return
        self._wrote_s = time.monotonic()
        share = self._pace.share
        parts = (
            percent(round(share, 3)),
            f"t={duration(self._time_s)}",
            f"v{self._version}",
            self._score,
            self._left_at(self._wrote_s),
            self._doing,
        )
        text = f"{self._name}: {' | '.join(part for part in parts if part)}"
        self._line.write(_html(text, share), text)


def _html(text: str, share: float | None) -> str:
    """Return a line with its bar; None: the run has ended, and there is no bar."""
    bar = "" if share is None else f'<progress max="1" value="{share:.3f}" style="width: 12em"></progress> '
    return f'<div style="font-size: 90%; white-space: pre-wrap">{bar}{escape(text)}</div>'
