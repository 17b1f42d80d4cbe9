"""`--check FOLDER`: measured rows beside what the clock says, class by class, with a bound on some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fidelity import replay, with_simgrid
from benchmarks.fidelity.bounds import KNOWN
from benchmarks.fidelity.folder import FILES, Measured, read_folder
from benchmarks.fidelity.rows import Quota, Scenario
from benchmarks.fidelity.tally import Durations, Tally, flow_errors, makespan_error

CLOCK = "fedsim"

Model = Callable[[Sequence[Scenario]], list[Durations]]


@dataclass(frozen=True)
class Case:
    """A class of measurements: its scenarios, and what is compared; `bounds.KNOWN` may bound the mean error."""

    name: str
    scenarios: Sequence[Scenario]
    makespan: bool = False


def cases(measured: Measured) -> list[Case]:
    """Return the classes of the transfers of a folder; a kind of rows that is not there gives none."""
    single = measured.single
    fair = [s for s in measured.shared if s.fair]
    fifo = [s for s in measured.shared if not s.fair]
    calm = [s for s in fifo if s.calm]
    found = [
        Case("single upload, delayed link", single.get("tun", [])),
        Case("single upload, delayed link with kernel tbf", single.get("tuntbf", [])),
        Case("single upload, kernel tbf", single.get("tbf", [])),
        Case("fair queue, a flow", fair),
        Case("fair queue, makespan", fair, makespan=True),
        Case("rate traces, a flow", measured.traces),
        Case("drop-tail, a flow", fifo),
        Case("drop-tail, makespan", fifo, makespan=True),
        Case("drop-tail, equal RTT and start: a flow", calm),
        Case("drop-tail, equal RTT and start: makespan", calm, makespan=True),
    ]
    return [case for case in found if case.scenarios]


def models(simgrid: bool) -> dict[str, Model]:
    """Return the models by name: fedsim's clock first, then those it is compared with."""
    found: dict[str, Model] = {
        CLOCK: lambda scenarios: [replay.fedsim(s) for s in scenarios],
        "size / bandwidth": lambda scenarios: [replay.size_over_rate(s) for s in scenarios],
    }
    if simgrid:
        found["SimGrid LV08"] = lambda scenarios: with_simgrid.durations(scenarios, "LV08")
        found["SimGrid CM02"] = lambda scenarios: with_simgrid.durations(scenarios, "CM02")
    return found


def check(folder: Path, *, simgrid: bool = False) -> dict[str, Any]:
    """Replay the rows of a folder.

    Args:
        folder: holds files of rows.
        simgrid: ask SimGrid too, if it is installed.

    Returns:
        For JSON: `ok`, and for every class `n`, `mean_percent`, `p90_percent`, `max_percent` of the
        clock's absolute relative errors, `bound_percent` on the mean of so many rows (or null), `ok`, and the
        same figures of the other models; `read`: rows by file; `unread`: files and rows that were not replayed,
        and why; `all_read`: whether none of those may be measurements.

    Raises:
        DataError: a row is broken (file, line, field), or there are none.
    """
    measured = read_folder(folder)
    why_not = with_simgrid.missing() if simgrid else None
    asked = models(simgrid and why_not is None)
    classes = {case.name: _verdict(case, asked) for case in cases(measured)}
    classes |= _quota_classes(measured.quotas)
    answer: dict[str, Any] = {
        "ok": all(found["ok"] for found in classes.values()),
        "all_read": not any(one.measured for one in measured.unread),
        "classes": classes,
        "read": measured.read,
        "unread": measured.plain_unread(),
        "absent": [name for name in FILES if not measured.read.get(name)],
    }
    if why_not is not None:
        answer["simgrid"] = f"skipped: {why_not}"
    return answer


def _verdict(case: Case, asked: dict[str, Model]) -> dict[str, Any]:
    tallies = {name: _tally(case, model) for name, model in asked.items()}
    clock = tallies.pop(CLOCK)
    known = KNOWN.get(case.name)
    bound = None if known is None else round(known.bound(clock.n), 2)
    return {
        **clock.plain(),
        "bound_percent": bound,
        "ok": bound is None or clock.mean <= bound,
        "others": {name: tally.plain() for name, tally in tallies.items()},
    }


def _tally(case: Case, model: Model) -> Tally:
    predicted = model(case.scenarios)
    if case.makespan:
        return Tally.of([makespan_error(s, p) for s, p in zip(case.scenarios, predicted, strict=True)])
    return Tally.of([e for s, p in zip(case.scenarios, predicted, strict=True) for e in flow_errors(s, p)])


def _quota_classes(quotas: Sequence[Quota]) -> dict[str, dict[str, Any]]:
    """Return the quota formula's errors at each row's own CPU time; the others' law is CPU time / share."""
    found = {}
    for work in ("spin", "torch"):
        kept = [row for row in quotas if row.work == work and row.share < 1]
        if not kept:
            continue
        formula = Tally.of([replay.quota_s(r) / r.wall_s - 1 for r in kept])
        plain = Tally.of([r.cpu_s / r.share / r.wall_s - 1 for r in kept])
        others = {"CPU time / share": plain.plain()}
        found[f"CPU quota, {work}"] = {
            **formula.plain(),
            "bound_percent": None,
            "ok": True,
            "others": others,
        }
    return found
