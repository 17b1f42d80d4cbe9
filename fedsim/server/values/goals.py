"""Where scores end a run: the first scored version that reaches `budget.target`."""

from __future__ import annotations

from collections.abc import Mapping

from fedsim.config.target import TargetConfig
from fedsim.errors import ExperimentError, message, nearest
from fedsim.metrics.direction import rises
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
        if target.metric not in metrics:
            what = f"no such metric is scored on {target.split}"
            fix = nearest(target.metric, metrics)
            raise ExperimentError(message("budget.target.metric", what, got=target.metric, fix=fix))
        if target.reached(metrics[target.metric]):
            self._reach(version, metrics[target.metric])

    def _reach(self, version: int, value: float) -> None:
        assert self.wanted is not None
        target, self.version = self.wanted, version
        sign = ">=" if rises(target.metric) else "<="
        self.why = (
            f"version {version} reached the target: {target.metric} {value:.6g} on {target.split}, "
            f"asked for {sign} {target.value:g}"
        )
