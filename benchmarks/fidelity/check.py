"""`--check FOLDER`: measured rows beside what the clock says, class by class, with a bound on some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fidelity import replay, rows, with_simgrid
from benchmarks.fidelity.rows import Quota, Scenario
from benchmarks.fidelity.tally import Durations, Tally, flow_errors, makespan_error
from fedsim.errors import DataError, message

FILES = ("single_upload.jsonl", "shared_link.jsonl", "rate_trace.jsonl", "cpu_quota.jsonl")
CLOCK = "fedsim"

Model = Callable[[Sequence[Scenario]], list[Durations]]


@dataclass(frozen=True)
class Case:
    """A class of measurements: its scenarios, what is compared, and the largest mean error allowed."""

    name: str
    scenarios: Sequence[Scenario]
    makespan: bool = False
    bound_percent: float | None = None


def cases(folder: Path) -> list[Case]:
    """Return the classes of the transfers in a folder; a file that is not there gives none.

    Raises:
        DataError: a row is broken, or the folder holds none of the files.
    """
    if not any((folder / name).is_file() for name in FILES):
        fix = f"give a folder with {', '.join(FILES)}"
        raise DataError(message(str(folder), "holds no measured rows", fix=fix))
    single = rows.single_uploads(folder / FILES[0]) if (folder / FILES[0]).is_file() else {}
    shared = rows.shared_links(folder / FILES[1]) if (folder / FILES[1]).is_file() else []
    traces = rows.rate_traces(folder / FILES[2]) if (folder / FILES[2]).is_file() else []
    fair = [s for s in shared if s.fair]
    fifo = [s for s in shared if not s.fair]
    calm = [s for s in fifo if s.calm]
    found = [
        Case("single upload, delayed link", single.get("tun", []), bound_percent=2.5),
        Case("single upload, delayed link with kernel tbf", single.get("tuntbf", []), bound_percent=2.5),
        Case("single upload, kernel tbf", single.get("tbf", []), bound_percent=0.3),
        Case("fair queue, a flow", fair, bound_percent=1.5),
        Case("fair queue, makespan", fair, makespan=True, bound_percent=1.0),
        Case("rate traces, a flow", traces, bound_percent=2.5),
        Case("drop-tail, a flow", fifo),
        Case("drop-tail, makespan", fifo, makespan=True),
        Case("drop-tail, equal RTT and start: a flow", calm),
        Case("drop-tail, equal RTT and start: makespan", calm, makespan=True, bound_percent=10.0),
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
        folder: holds some of `FILES`.
        simgrid: ask SimGrid too, if it is installed.

    Returns:
        For JSON: `ok`, and for every class `n`, `mean_percent`, `p90_percent`, `max_percent` of the
        clock's absolute relative errors, `bound_percent` on the mean (or null), `ok`, and the same
        figures of the other models.

    Raises:
        DataError: a row is broken (file, line, field), or there are none.
    """
    why_not = with_simgrid.missing() if simgrid else None
    asked = models(simgrid and why_not is None)
    classes = {case.name: _verdict(case, asked) for case in cases(folder)}
    quotas = rows.cpu_quotas(folder / FILES[3]) if (folder / FILES[3]).is_file() else []
    classes |= _quota_classes(quotas)
    answer: dict[str, Any] = {
        "ok": all(found["ok"] for found in classes.values()),
        "classes": classes,
        "absent": [name for name in FILES if not (folder / name).is_file()],
    }
    if why_not is not None:
        answer["simgrid"] = f"skipped: {why_not}"
    return answer


def _verdict(case: Case, asked: dict[str, Model]) -> dict[str, Any]:
    tallies = {name: _tally(case, model) for name, model in asked.items()}
    clock = tallies.pop(CLOCK)
    bound = case.bound_percent
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
