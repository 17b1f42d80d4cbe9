"""Errors of a model against measurements, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.fidelity.rows import Scenario

Durations = Sequence[float]
"""How long each flow of a scenario takes [s], in the order of its flows."""


@dataclass(frozen=True)
class Tally:
    """Absolute relative errors in percent: how many, mean, 90th percentile, maximum."""

    n: int
    mean: float
    p90: float
    maximum: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> Tally:
        """Summarise signed relative errors (0.01 is 1 %); the percentile interpolates linearly."""
        size = 100 * np.abs(np.asarray(errors, dtype=np.float64))
        return cls(len(size), float(size.mean()), float(np.percentile(size, 90)), float(size.max()))

    def plain(self) -> dict[str, float]:
        """Return it for JSON, with three digits."""
        values = {"mean": self.mean, "p90": self.p90, "max": self.maximum}
        return {"n": self.n, **{f"{key}_percent": round(value, 3) for key, value in values.items()}}


def flow_errors(scenario: Scenario, predicted: Durations) -> list[float]:
    """Return predicted / measured - 1 of every flow."""
    return [p / flow.took_s - 1 for p, flow in zip(predicted, scenario.flows, strict=True)]


def makespan_error(scenario: Scenario, predicted: Durations) -> float:
    """Return the same for the time from the first start to the last end."""
    return makespan_s(scenario, predicted) / makespan_s(scenario, [f.took_s for f in scenario.flows]) - 1


def makespan_s(scenario: Scenario, took_s: Durations) -> float:
    """Return the time from the first start to the last end [s]."""
    starts = [flow.start_s for flow in scenario.flows]
    return max(s + t for s, t in zip(starts, took_s, strict=True)) - min(starts)
