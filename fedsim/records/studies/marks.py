"""Marks: what has to come out of a study, stated before anything is run, held against what did.

A mark is a row of a CSV file, its cells as text:

    study, measure                   which number, of the runs of which study
    form, ways                       how the numbers of some ways (`a | b`) make one a seed: see `OF`
    low, high                        where the mean has to lie
    null                             the number that would say that there is no effect; empty: the ways count as equal if the
                                     whole interval lies between low and high
    control_form, control_ways,      the same of runs in which the effect must vanish; an empty form: there is no such control
    control_low, control_high

What else stands in the row says it in words. With an effect, *yes* asks that the interval over seeds lies off `null`, that the mean lies between
`low` and `high`, and that the mean of the control lies within its own bounds. Where one of them fails, the intervals tell "no" from "open": a mean
outside of bounds that its interval meets is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedsim.records.statistics import MeanInterval, mean_interval
from fedsim.records.studies.kept import Key, Rows

FEWEST = 3
"""Seeds without which nothing is decided."""
NOT_RUN, NOT_DECIDED, YES = "not run", "not decided", "yes"
OTHER_SIZE, SIZE_OPEN = "direction, another size", "direction, the size is open"
MOVES, CONTROL_OPEN = "direction, but the control is not still", "direction, but the control is open"
NO_MORE = "direction, but no more than the control may have"
OTHER_WAY, DID_NOT = "no: the other way", "did not come out"

OUTCOMES = {
    YES: "**confirmed**",
    OTHER_SIZE: "**confirmed** in direction, not in size",
    SIZE_OPEN: "**confirmed** in direction, the size is open",
    MOVES: "**not decided**: the control is not still",
    CONTROL_OPEN: "**not decided**: the mean of the control is outside of what was stated, its interval is not",
    NO_MORE: "**not decided**: no more than what counts as none in the control",
    NOT_DECIDED: "**not decided**",
    NOT_RUN: "**not run**",
    DID_NOT: "**did not come out**",
    OTHER_WAY: "**refuted** in this setting",
}
"""What came out -> in the words of docs/claims.md."""


def _ratio(a: float, b: float) -> float:
    return a / b if b and math.isfinite(a) and math.isfinite(b) else math.nan


OF: Mapping[str, Callable[..., float]] = {
    "value": lambda a: a,
    "ratio": _ratio,
    "difference": lambda a, b: a - b,
    "double": lambda a, b, c, d: _ratio(_ratio(a, b), _ratio(c, d)),
}
"""Form of a mark -> one number of those of its ways; `double` is a ratio of two ratios."""


@dataclass(frozen=True)
class Found:
    """What came out of a mark: the interval over seeds, its control, how many seeds had no value, and in words.

    Attributes:
        ours: of the mark.
        control: of its control.
        missing: seeds that were run and have no finite value: a target that was not reached, a ratio over nothing.
        alike: whether every seed has the same value.
        verdict: a key of `OUTCOMES`.
    """

    ours: MeanInterval
    control: MeanInterval
    missing: int
    alike: bool
    verdict: str


def numbers(rows: Rows, study: str, measure: str, form: str, ways: str) -> list[float]:
    """Return one number a seed that all ways have; NaN where one of them has no value."""
    names = ways.split(" | ")
    seeds_of = [{seed for of, way, seed in rows if (of, way) == (study, name)} for name in names]
    return [
        OF[form](*(rows[Key(study, name, seed)].get(measure, math.nan) for name in names))
        for seed in sorted(set.intersection(*seeds_of))
    ]


def interval_of(rows: Rows, study: str, measure: str, form: str, ways: str) -> MeanInterval:
    """Return the mean of `numbers` with its interval."""
    return mean_interval(numbers(rows, study, measure, form, ways))


def judged(rows: Rows, mark: Mapping[str, str]) -> Found:
    """Return what came out of a mark."""
    study, measure, controlled = mark["study"], mark["measure"], bool(mark["control_form"])
    values = numbers(rows, study, measure, mark["form"], mark["ways"])
    still: list[float] = []
    if controlled:
        still = numbers(rows, study, measure, mark["control_form"], mark["control_ways"])
    ours, control = mean_interval(values), mean_interval(still)
    alike = len(values) > 1 and len(set(values)) == 1
    if len(values) < FEWEST:
        verdict = NOT_DECIDED if values else NOT_RUN
    elif mark["null"]:
        verdict = _with_an_effect(mark, ours, control if controlled else None, alike=alike)
    else:
        verdict = _equal(ours, float(mark["low"]), float(mark["high"]))
    return Found(ours, control, sum(not math.isfinite(value) for value in values), alike, verdict)


def _with_an_effect(
    mark: Mapping[str, str], ours: MeanInterval, control: MeanInterval | None, *, alike: bool
) -> str:
    low, high, null = float(mark["low"]), float(mark["high"]), float(mark["null"])
    up, inside = low >= null, low <= ours.mean <= high
    off = ours.high < low or ours.low > high
    above, below = ours.low > null, ours.high < null
    if alike:  # no interval is wider than rounding
        above, below = ours.mean > null, ours.mean < null
    right, wrong = (above, below) if up else (below, above)
    if mark["form"] == "value" and not inside and not math.isnan(ours.mean):
        return DID_NOT if off else NOT_DECIDED
    if not right and not wrong:
        return NOT_DECIDED
    if control is not None:
        least, most = float(mark["control_low"]), float(mark["control_high"])
        if (still := _vanished(control, least, most)) != YES:
            return still if right else NOT_DECIDED
        if not inside and least <= ours.mean <= most:
            return NO_MORE if right else NOT_DECIDED
    if wrong:
        return OTHER_WAY
    return YES if inside else OTHER_SIZE if off else SIZE_OPEN


def _vanished(control: MeanInterval, low: float, high: float) -> str:
    """Return whether the effect is gone in a control: its mean lies within the bounds; if not, whether its interval meets them."""
    if control.n < FEWEST or math.isnan(control.mean):
        return NOT_DECIDED
    if low <= control.mean <= high:
        return YES
    return MOVES if control.low > high or control.high < low else CONTROL_OPEN


def _equal(ours: MeanInterval, low: float, high: float) -> str:
    if low <= ours.low and ours.high <= high:
        return YES
    return DID_NOT if ours.high < low or ours.low > high else NOT_DECIDED
