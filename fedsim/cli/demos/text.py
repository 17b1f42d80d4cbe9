"""The main job on what ships with fedsim: the same unequal devices, in step and out of step.

The embedded model, which knows code, learns the reference prose and some packages of Python's own
library, split by subject over 100 devices of `mixed_edge_2025`. The clock charges every visit as
Gemma-3-270M, and only charging devices take part: so some run out of memory, some are unplugged,
some come too late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedsim.cli.demos.demo import Demo, uploads
from fedsim.records.quantities import plural

if TYPE_CHECKING:
    from fedsim.records.run import Run

_COMMON: dict[str, Any] = {
    "seed": 0,
    "population": {"preset": "mixed_edge_2025", "clients": 100, "availability": "charging"},
    "task": {
        "kind": "language",
        "model": "builtin",
        "data": "builtin",
        "partition": {"kind": "dirichlet", "alpha": 0.3},
        "sequence": 64,
        "charge_as": {"preset": "gemma-3-270m", "r": 8, "targets": "all-linear", "tokens_per_visit": 20000},
    },
    "lora": {"r": 8, "alpha": 16, "targets": "all-linear"},
    "local": {"optimizer": "adamw", "lr": 5.0e-3, "steps": 6, "batch": 8},
    "budget": {"time_s": 43200},
    "evaluate": {"every_commits": 3, "windows": 400, "targets": [17.0]},
    "personal": {"kind": "fine-tune", "epochs": 1, "lr": 1.0e-3, "clients": 20},
}

_PROTOCOLS: dict[str, dict[str, Any]] = {
    "demo-sync": {
        "protocol": {"kind": "synchronous", "cohort": 10, "over_select": 1.3, "deadline_s": 2400},
    },
    "demo-fedbuff": {
        "protocol": {"kind": "buffered", "concurrency": 13, "buffer": 10, "once_per_buffer": True},
        "aggregator": {"kind": "fedit", "normalize": "K"},
    },
}


def verdict(runs: Sequence[Run]) -> str:
    """Return what happened, in a few lines."""
    from fedsim.records import comparisons, views

    targets, chosen = comparisons.declared_targets(runs), "declared"
    if not targets:
        targets, chosen = [views.common_target(runs, "perplexity")], "chosen afterwards, reached by both"
    reached = views.time_to_target(runs, "perplexity", targets[0])
    lines = [f"Perplexity on unseen text, one seed (target {targets[0]:.1f}, {chosen}):"]
    hours = (reached["time_s"].fillna(reached["watched_s"]) / 3600).tolist()
    for run, hour, done in zip(runs, hours, reached["reached"].tolist(), strict=True):
        curve = views.curve(run, "perplexity")["value"]
        when = f"after {hour:.1f} virtual h" if done else f"not reached in {hour:.1f} virtual h"
        lines.append(
            f"  {run.name:<13} {curve.iloc[0]:5.1f} -> {curve.iloc[-1]:.1f}   target {when}"
            f"   {plural(len(run.commits), 'commit')}, {plural(len(run.visits), 'visit')}"
        )
    lines += uploads(runs)
    lines.append("Visits by how they ended:")
    for run in runs:
        outcomes = ", ".join(
            f"{n} {str(o).replace('_', ' ')}" for o, n in run.visits.outcome.value_counts().items()
        )
        lines.append(
            f"  {run.name:<13} {outcomes}; {run.info.saved_share:.0%} of the training was never needed"
        )
    return "\n".join(lines)


TEXT = Demo("demo", _COMMON, _PROTOCOLS, verdict)
