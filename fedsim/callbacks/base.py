"""Who listens to a run: a class with a method for each kind of event, all of which do nothing by themselves."""

from __future__ import annotations

from fedsim.callbacks.events import (
    Checkpointed,
    Committed,
    Noted,
    Refused,
    RunBegun,
    RunEnded,
    RunResumed,
    Scored,
    Scoring,
    Starting,
    TimePassed,
)


class Callback:
    """Base class of what listens to a run: define the methods that you need.

    They are called in the process of the server, between two events of the virtual clock, in the order of the list that was
    given, and the run waits for them. What they raise ends the run (docs/callbacks.md).
    """

    def on_starting(self, event: Starting) -> None:
        """Take that workers are about to be started."""

    def on_begin(self, event: RunBegun) -> None:
        """Take that the run begins, or goes on."""

    def on_resume(self, event: RunResumed) -> None:
        """Take from where the run goes on; only after `on_begin` of a run that had ended before."""

    def on_commit(self, event: Committed) -> None:
        """Take a version that the server has made."""

    def on_score(self, event: Scored) -> None:
        """Take the metrics of a version on one split."""

    def on_scoring(self, event: Scoring) -> None:
        """Take how far the scores are that the run waits for."""

    def on_time(self, event: TimePassed) -> None:
        """Take how far virtual time has come."""

    def on_refuse(self, event: Refused) -> None:
        """Take an update that arrived and was not taken."""

    def on_checkpoint(self, event: Checkpointed) -> None:
        """Take that a checkpoint was written."""

    def on_note(self, event: Noted) -> None:
        """Take a sentence about the run."""

    def on_end(self, event: RunEnded) -> None:
        """Take how the run has ended; close here what was opened in `on_begin`."""
