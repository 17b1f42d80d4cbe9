"""A score that ends a run: `budget.target`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from fedsim.component import Config
from fedsim.config.learning import RankedMetric, Split
from fedsim.errors import Message, message, nearest
from fedsim.metrics.direction import rises


def not_scored(key: str, metric: str, split: str, names: Iterable[str]) -> Message:
    """Return the sentence that a metric which the setting `key` names is none of those of a split."""
    return message(key, f"no such metric is scored on {split}", got=metric, fix=nearest(metric, names))


class TargetConfig(Config):
    """A score that ends a run as soon as a scored version reaches it; without training it has no effect.

    Attributes:
        metric: what is scored, as in perplexity.
        value: to reach: at most this where less is better, at least this where more is.
        split: on which it is scored; one of `evaluate.splits`.
    """

    metric: RankedMetric
    value: Annotated[float, Field(allow_inf_nan=False)]
    split: Split = "test"

    def reached(self, value: float) -> bool:
        """Tell whether a score reaches it; NaN reaches nothing."""
        return value >= self.value if rises(self.metric) else value <= self.value

    def is_harder_than(self, other: TargetConfig) -> bool:
        """Tell whether whatever reaches this has reached the other one, too."""
        return (self.metric, self.split) == (other.metric, other.split) and other.reached(self.value)
