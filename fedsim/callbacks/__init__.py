"""What is told of a run while it goes: typed events, and who listens to them; uses records.

    class Live(fedsim.Callback):
        def on_score(self, event):
            print(event.version, event.time_s, event.up_bytes, event.metrics)

    fedsim.simulate("my.yaml", callbacks=[Live()])

Nothing that a callback does reaches the run: events are frozen, and what is told is known already. docs/callbacks.md has the
rules.
"""

from fedsim.callbacks.base import Callback
from fedsim.callbacks.events import (
    Checkpointed,
    Committed,
    Event,
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

__all__ = [
    "Callback",
    "Checkpointed",
    "Committed",
    "Event",
    "Noted",
    "Refused",
    "RunBegun",
    "RunEnded",
    "RunResumed",
    "Scored",
    "Scoring",
    "Starting",
    "TimePassed",
]
