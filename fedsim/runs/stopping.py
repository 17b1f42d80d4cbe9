"""SIGTERM while a run goes: it ends the run as Ctrl-C does, wherever it arrives, with its tables kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fedsim.errors import Terminated

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM has ended."""


class Stop:
    """Whether somebody has asked the run to stop.

    Attributes:
        asked: whether it is so.

    A signal raises where it arrives. Where that is swallowed (in a finaliser, in a component that catches everything),
    the run hears it here, at its next event.
    """

    def __init__(self) -> None:
        """Nobody has."""
        self._end: KeyboardInterrupt | SystemExit | None = None
        self.asked = False

    def ask(self, end: KeyboardInterrupt | SystemExit) -> None:
        """Have the run end with this exception."""
        self._end, self.asked = end, True

    def heed(self) -> None:
        """Raise if somebody has.

        Raises:
            KeyboardInterrupt, SystemExit: what was asked for.
        """
        if self._end is not None:
            raise self._end


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Return what hears SIGTERM while a run goes; outside the main thread, where Python has no signals, nothing does.

    Whoever has a handler of their own (the command line has) gets the signal, too; without one it is `SystemExit` (`Terminated`).
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGTERM)

    def on_term(signum: int, frame: FrameType | None) -> None:
        if callable(before):
            stop.ask(KeyboardInterrupt())
            try:
                before(signum, frame)
            except SystemExit as exits:  # as Ray's does
                raise Terminated(exits.code) from exits
        elif before is not signal.SIG_IGN:
            end = Terminated(TERMINATED)
            stop.ask(end)
            raise end

    signal.signal(signal.SIGTERM, on_term)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
