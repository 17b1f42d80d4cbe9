"""Views of a run, under their public name: `fedsim.records.views` has the text.

Those of scores are in `fedsim.records.scores`, those of several runs in `fedsim.records.comparisons`; docs/statistics.md
says how to compare runs.
"""

from fedsim.records.comparisons import (
    configurations,
    declared_targets,
    mean_curve,
    paired_difference,
    paired_time_difference,
    paired_values,
    seeds_of,
    time_to_target_by_configuration,
    value_at,
)
from fedsim.records.scores import at, common_target, curve, headline, on_grid, scored, time_to_target
from fedsim.records.statistics import kaplan_meier, mean_interval, median_time, restricted_mean
from fedsim.records.views import (
    depths,
    losses_by_cause,
    participation,
    participation_by_tier,
    phase_seconds,
    staleness,
    tiers,
    uplink_reduction,
    wasted_work,
    work,
)

__all__ = [
    "at",
    "common_target",
    "configurations",
    "curve",
    "declared_targets",
    "depths",
    "headline",
    "kaplan_meier",
    "losses_by_cause",
    "mean_curve",
    "mean_interval",
    "median_time",
    "on_grid",
    "paired_difference",
    "paired_time_difference",
    "paired_values",
    "participation",
    "participation_by_tier",
    "phase_seconds",
    "restricted_mean",
    "scored",
    "seeds_of",
    "staleness",
    "tiers",
    "time_to_target",
    "time_to_target_by_configuration",
    "uplink_reduction",
    "value_at",
    "wasted_work",
    "work",
]
