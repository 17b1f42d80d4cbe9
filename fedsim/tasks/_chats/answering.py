"""What fedsim asks of a task whose model answers questions: some of its answers are kept with the run."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from fedsim.jobs import Sums, Task


@dataclass(frozen=True)
class Shown:
    """What a model was asked, what was expected, and what it answered."""

    question: str
    expected: str
    answer: str


class AnsweringTask(Task):
    """A task whose model answers: `score` answers a probe of the split `SPLIT` with texts."""

    @abstractmethod
    def shown(self, client: int | None = None) -> int:
        """Return how many examples are shown: of those that nobody trains on, or of what a client keeps apart."""

    @abstractmethod
    def read_answers(self, sums: Sums) -> list[Shown]:
        """Return what such a score says."""
