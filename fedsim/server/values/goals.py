"""What scores decide after a version is made: which is the best, and whether one ends the run (`budget.target`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict

from fedsim.adapters.adapter import Adapter, Vector
from fedsim.adapters.moved_base import Base
from fedsim.aggregators._base import ServerModel
from fedsim.config.learning import EvaluateConfig
from fedsim.config.target import TargetConfig, not_scored
from fedsim.errors import ExperimentError
from fedsim.metrics.direction import rises
from fedsim.records.watching.score import BestVersion
from fedsim.server.values.log import Log


class Target:
    """The first version whose score reaches the target; none without one.

    A run with a target waits for the scores of each scored version before it goes on, so the instant of its end hangs on what was
    scored and never on when a worker was ready. A replay takes the version from the run's tables.

    Attributes:
        version: that has reached it; None: none yet.
        why: the run has ended then, in a sentence; empty as long as none has.
    """

    def __init__(self, target: TargetConfig | None, log: Log | None) -> None:
        """Take the target, and the tables of the run that is replayed, if it is a replay."""
        self.wanted = target
        self.version: int | None = None
        self.why = ""
        self._logged = None if target is None or log is None else log.first_reaching(target)

    def note_logged(self, version: int) -> None:
        """Take a version that is scored in a replay."""
        if self._logged is not None and version == self._logged[0]:
            self._reach(*self._logged)

    def note(self, version: int, scores: Mapping[str, tuple[int, Mapping[str, float]]]) -> None:
        """Take the newest scores: split -> the version that was scored, and its metrics.

        Raises:
            ExperimentError: the split has no such metric.
        """
        target = self.wanted
        if target is None or target.split not in scores:
            return
        scored, metrics = scores[target.split]
        if scored != version:
            return
        value = _scored("budget.target.metric", target.metric, target.split, metrics)
        if target.reached(value):
            self._reach(version, value)

    def _reach(self, version: int, value: float) -> None:
        assert self.wanted is not None
        target, self.version = self.wanted, version
        sign = ">=" if rises(target.metric) else "<="
        self.why = (
            f"version {version} reached the target: {target.metric} {value:.6g} on {target.split}, "
            f"asked for {sign} {target.value:g}"
        )


class BestData(TypedDict):
    """The best version as explicit data: of `BestVersion`, and its model."""

    version: int
    value: float
    vector: Vector
    base: Base | None


class Best:
    """The version with the best score of a metric, of those that were scored until now.

    Attributes:
        metric: None: none is kept; split: on which.
        version: which, and its score; None: none was finite.
        model: what was scored.
    """

    def __init__(self, evaluate: EvaluateConfig) -> None:
        """Take what to look at."""
        self.metric, self.split = evaluate.keep_best, evaluate.best_split
        self.version: BestVersion | None = None
        self.model: ServerModel | None = None

    def note(self, version: int, metrics: Mapping[str, float], model: ServerModel) -> None:
        """Take the scores of a version; of equal ones the first is the best.

        Raises:
            ExperimentError: the split has no such metric.
        """
        assert self.metric is not None
        value = _scored("evaluate.keep_best", self.metric, self.split, metrics)
        if not math.isfinite(value):
            return
        if self.version is not None:
            last = self.version.value
            if not (value > last if rises(self.metric) else value < last):
                return
        self.version = BestVersion(version, self.split, self.metric, float(value))
        self.model = model

    def dump(self) -> BestData | None:
        """Return it as explicit data; None if there is none."""
        if self.version is None or self.model is None:
            return None
        about = self.version
        vector, base = self.model.adapter.vector, self.model.base
        return {"version": about.version, "value": about.value, "vector": vector, "base": base}

    def load(self, data: BestData | None, like: ServerModel) -> None:
        """Go on from what `dump` has returned; `like` is a model of the same layout."""
        if data is None or self.metric is None:
            return
        self.version = BestVersion(data["version"], self.split, self.metric, data["value"])
        adapter = Adapter(like.adapter.layout, data["vector"])
        self.model = replace(like, adapter=adapter, base=data["base"])


def _scored(key: str, metric: str, split: str, metrics: Mapping[str, float]) -> float:
    """Return the value of a metric that a setting names.

    Raises:
        ExperimentError: it is not scored.
    """
    if metric not in metrics:
        raise ExperimentError(not_scored(key, metric, split, metrics))
    return metrics[metric]
