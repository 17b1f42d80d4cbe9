"""Views of a run, under their public name: `fedsim.records.views` has the text."""

from fedsim.records.views import (
    at,
    common_target,
    curve,
    headline,
    losses_by_cause,
    participation,
    participation_by_tier,
    phase_seconds,
    scored,
    staleness,
    tiers,
    time_to_target,
    uplink_reduction,
    wasted_work,
    work,
)

__all__ = [
    "at",
    "common_target",
    "curve",
    "headline",
    "losses_by_cause",
    "participation",
    "participation_by_tier",
    "phase_seconds",
    "scored",
    "staleness",
    "tiers",
    "time_to_target",
    "uplink_reduction",
    "wasted_work",
    "work",
]
