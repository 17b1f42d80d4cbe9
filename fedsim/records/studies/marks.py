"""Marks: what has to come out of a study, stated before anything is run, held against what did.

A mark is a row of a CSV file, its cells as text:

    study, measure                   which number, of the runs of which study
    form, ways                       how the numbers of some ways (`a | b`) make one a seed: see `OF`
    low, high                        where the mean has to lie
    null                             the number that would say that there is no effect; empty: the ways count as equal if the
                                     whole interval lies between low and high
    control_form, control_ways,      the same of runs in which the effect must vanish; an empty form: there is no such control
    control_low, control_high

What else stands in the row says it in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedsim.records.statistics import MeanInterval, mean_interval
from fedsim.records.studies.kept import Key, Rows

FEWEST = 3
"""Seeds without which nothing is decided."""
NOT_RUN, NOT_DECIDED, YES = "not run", "not decided", "yes"
OTHER_SIZE = "direction, another size"
CONTROL_TOO, CONTROL_OPEN = "direction, but the control has it too", "direction, but the control is open"
NO_MORE = "direction, but no more than the control may have"
OTHER_WAY, DID_NOT = "no: the other way", "did not come out"

OUTCOMES = {
    YES: "**confirmed**",
    OTHER_SIZE: "**confirmed** in direction, not in size",
    CONTROL_TOO: "**not decided**: the control is not what it should be",
    CONTROL_OPEN: "**not decided**: the mean of the control is outside of what was stated, its interval is not",
    NO_MORE: "**not decided**: no more than what counts as none in the control",
    NOT_DECIDED: "**not decided**",
    NOT_RUN: "**not run**",
    DID_NOT: "**did not come out**",
    OTHER_WAY: "**refuted** in this setting",
}
"""What came out -> in the words of docs/claims.md."""


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan


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
        missing: seeds that were run and have no value: a target that was not reached.
        verdict: a key of `OUTCOMES`.
    """

    ours: MeanInterval
    control: MeanInterval
    missing: int
    verdict: str


def numbers(rows: Rows, study: str, measure: str, form: str, ways: str) -> list[float]:
    """Return one number a seed that all ways have; NaN where one of them has no value."""
    names = ways.split(" | ")
    seeds_of = [{seed for of, way, seed in rows if (of, way) == (study, name)} for name in names]
    return [
        OF[form](*(rows[Key(study, name, seed)].get(measure, math.nan) for name in names))
        for seed in sorted(set.intersection(*seeds_of))
    ]


def judged(rows: Rows, mark: Mapping[str, str]) -> Found:
    """Return what came out of a mark."""
    study, measure, controlled = mark["study"], mark["measure"], bool(mark["control_form"])
    values = numbers(rows, study, measure, mark["form"], mark["ways"])
    still: list[float] = []
    if controlled:
        still = numbers(rows, study, measure, mark["control_form"], mark["control_ways"])
    ours, control = mean_interval(values), mean_interval(still)
    if len(values) < FEWEST:
        verdict = NOT_DECIDED if values else NOT_RUN
    elif mark["null"]:
        verdict = _with_an_effect(mark, values, ours, control if controlled else None)
    else:
        verdict = _equal(ours, float(mark["low"]), float(mark["high"]))
    return Found(ours, control, sum(map(math.isnan, values)), verdict)


def _with_an_effect(
    mark: Mapping[str, str], values: Sequence[float], ours: MeanInterval, control: MeanInterval | None
) -> str:
    low, high, null = float(mark["low"]), float(mark["high"]), float(mark["null"])
    up, inside = low >= null, low <= ours.mean <= high
    above, below = ours.low > null, ours.high < null
    if len(set(values)) == 1:  # every seed says the same
        above, below = ours.mean > null, ours.mean < null
    right, wrong = (above, below) if up else (below, above)
    if mark["form"] == "value" and not inside and not math.isnan(ours.mean):
        return DID_NOT if ours.high < low or ours.low > high else NOT_DECIDED
    if not right and not wrong:
        return NOT_DECIDED
    if control is not None and (still := _vanished(control, ours, mark)) != YES:
        return still if right else NOT_DECIDED
    if wrong:
        return OTHER_WAY
    return YES if inside else OTHER_SIZE


def _vanished(control: MeanInterval, ours: MeanInterval, mark: Mapping[str, str]) -> str:
    """Return whether the effect is gone in a control, and is more than that.

    It is where the mean of the control lies within its bounds; if not, its interval says whether it is off them, or open.
    An effect that would still lie within the bounds of the control is none.
    """
    low, high = float(mark["control_low"]), float(mark["control_high"])
    if math.isnan(control.mean):
        return NOT_DECIDED
    if not low <= control.mean <= high:
        return CONTROL_TOO if control.low > high or control.high < low else CONTROL_OPEN
    return NO_MORE if low <= ours.mean <= high else YES


def _equal(ours: MeanInterval, low: float, high: float) -> str:
    if low <= ours.low and ours.high <= high:
        return YES
    return DID_NOT if ours.high < low or ours.low > high else NOT_DECIDED
