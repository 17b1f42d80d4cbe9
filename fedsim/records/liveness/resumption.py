"""How a run went on after it had ended, as `run.json` tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a run went on after it had ended.

    Attributes:
        at: by the wall clock; after: how it had ended.
        version: of the checkpoint it went on from; 0: from the beginning.
        visits, commits: rows that the schedule gave again, each compared with the run's.
        seconds: that took here [s].
        host, cpu: where it went on.
    """

    at: str
    after: str
    version: int
    visits: int
    commits: int
    seconds: float
    host: str = ""
    cpu: str = ""
