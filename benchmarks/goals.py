"""What the project set out to reach, by key of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.harness import number, said, stored


@dataclass(frozen=True)
class Goal:
    """A limit on the median of one result.

    Attributes:
        key: `NAME.key` of the results.
        what: in words.
        relation, limit: `<=` or `>=`, in the result's unit.
        aim: a further limit that was aimed for, if any.
    """

    key: str
    what: str
    relation: Literal["<=", ">="]
    limit: float
    aim: float | None = None

    def reached(self, value: Mapping[str, Any], limit: float) -> bool:
        """Tell whether the median of a result is within a limit."""
        median = float(value["median"])
        return median <= limit if self.relation == "<=" else median >= limit


GOALS = (
    Goal("w1.ratio_to_floor", "W1, a round of whole runs, over the stock-PEFT floor", "<=", 0.65, 0.50),
    Goal("w1.flower_over_us", "W1, Flower over fedsim", ">=", 2.0, 2.5),
    Goal(
        "small.d128_l4_b1_t32.stock_over.k32", "small clients, stock PEFT over fedsim, K = 32", ">=", 4.0, 6.0
    ),
    Goal("trivial.ray_1000", "a trivial update, 1,000 a round, Ray", "<=", 0.5),
    Goal("trivial.ray_10000", "a trivial update, 10,000 a round, Ray", "<=", 0.5),
    Goal("memory.w1_mib.fedsim", "memory of the process tree, W1, 2 workers", "<=", 1.2 * 1024),
    Goal("memory.growth_mib", "growth from 100 to 10,000 virtual clients", "<=", 50.0),
    Goal("aggregate.fedsim_ms", "1,000 adapters of 300 KB aggregated", "<=", 60.0),
    Goal("startup.fedsim_s", "command to first update, Ray", "<=", 6.0),
    Goal("startup.inline_s", "command to first update, inline", "<=", 4.5),
    Goal("startup.timeline_s", "command to the first event of the built-in task, timeline only", "<=", 3.0),
    Goal("startup.help_s", "`fedsim --help`", "<=", 0.4),
    Goal("engine.charging.1000000.wall_s", "a virtual day of 1,000,000 clients, timeline", "<=", 180.0, 60.0),
    Goal("engine.charging.1000000.peak_mib", "its memory", "<=", 2048.0, 1024.0),
    Goal("engine.round.1000000.planned_s", "a round of 10,000 of 1,000,000, planned", "<=", 0.5),
    Goal("gpu.w1.float32.over_stock.k128", "GPU, W1, over stock PEFT on the same card, K = 128", ">=", 20.0),
    Goal("gpu.gpt2_small.float32.over_stock.k128", "GPU, GPT-2 small's shape, the same", ">=", 5.0),
)


def table() -> list[str]:
    """Return the goals and what was measured, as lines of a Markdown table."""
    lines = ["| what | goal (aim) | measured: median (least to largest) | reached |", "|---|---|---|---|"]
    for goal in GOALS:
        found = stored(goal.key.partition(".")[0])
        value = None if found is None else found["values"].get(goal.key)
        aim = "" if goal.aim is None else f" ({number(goal.aim)})"
        wanted = f"{ {'<=': 'at most', '>=': 'at least'}[goal.relation] } {number(goal.limit)}{aim}"
        if value is None:
            lines.append(f"| {goal.what} | {wanted} | not measured yet | |")
            continue
        verdict = "yes" if goal.reached(value, goal.limit) else "**no**"
        if goal.aim is not None and goal.reached(value, goal.aim):
            verdict = "yes, and the aim"
        lines.append(f"| {goal.what} | {wanted} | {said(value)} | {verdict} |")
    return lines
