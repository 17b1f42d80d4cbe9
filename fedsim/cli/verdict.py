"""What a person is told of a run at its end, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedsim.records.quantities import duration, percent, plural, said

if TYPE_CHECKING:
    from fedsim.records.run import Run
    from fedsim.runs.sweeps.grid import Result


def verdict(run: Run) -> str:
    """Return what happened: learning, losses by cause, bytes, saved training, paths."""
    return "\n".join([*_ending(run), *_learning(run), *_costs(run), *_paths(run)])


def facts(run: Run) -> dict[str, object]:
    """Return the same as plain values: how it ended, totals in bytes and joules, the first and the last score of every metric."""
    info, report = run.info, None if run.folder is None else run.folder / "report.html"
    return {
        "run": run.folder,
        "name": info.name,
        "status": info.status,
        "reason": info.reason,
        "timeline_only": info.timeline_only,
        "end_time_s": info.end_time_s,
        "wall_s": info.wall_s,
        "totals": info.totals,
        "scores": list(_scores(run)),
        "personal_gain": float(run.personal["gain"].median()) if len(run.personal) else None,
        "saved_share": info.saved_share,
        "best": info.best,
        "report": report if report is not None and report.exists() else None,
    }


def point_facts(result: Result) -> dict[str, object]:
    """Return how a point of a sweep ended, as plain values."""
    return {
        "point": result.point.label,
        "folder": result.point.folder,
        "changed": {key: str(value) for key, value in result.point.changed.items()},
        "status": result.status,
        "problem": result.problem,
        "exit_code": result.exit_code,
        "run": None if result.run is None else facts(result.run),
    }


def _scores(run: Run) -> Iterator[dict[str, object]]:
    for (split, metric), rows in run.scores.groupby(["split", "metric"], sort=False):
        ends = {"first": rows.iloc[0], "last": rows.iloc[-1]}
        values = {
            name: {
                "version": int(row["version"]),
                "time_s": float(row["time_s"]),
                "value": float(row["value"]),
            }
            for name, row in ends.items()
        }
        yield {"split": split, "metric": metric, **values}


def _ending(run: Run) -> Iterator[str]:
    info = run.info
    took = f" ({duration(info.wall_s)} here)" if info.wall_s is not None else ""
    done = f"{plural(run.count('commits'), 'commit')} from {plural(run.count('visits'), 'visit')}"
    yield f"{info.status}: {done} in {duration(info.end_time_s)} of virtual time{took}"
    if info.reason:
        yield f"reason: {info.reason}"
    if not run.count("visits"):
        yield "nobody was asked: never were enough clients idle and online at once"


def _learning(run: Run) -> Iterator[str]:
    test = run.scores[run.scores["split"] == "test"]
    if len(test):
        metric = test["metric"].iloc[0]
        path = test[test["metric"] == metric].sort_values("version")
        first, last = path.iloc[0], path.iloc[-1]
        yield (
            f"{metric}: {first['value']:.4g} -> {last['value']:.4g} on the test split"
            f" (version {first['version']} -> {last['version']})"
        )
    best = run.info.best
    if best is not None:
        yield f"best: {best.metric} {best.value:.4g} on the {best.split} split, version {best.version}, kept in best/"
    if len(run.personal):
        gain = run.personal["gain"]
        worse = percent(float((gain < 0).mean()))
        yield f"personal copies: median gain {gain.median():.3g}, {worse} of {len(gain)} clients worse off"


def _costs(run: Run) -> Iterator[str]:
    totals, outcomes = run.info.totals, run.frame("visits", "outcome")["outcome"]
    lost = outcomes[~outcomes.isin(("landed", "polled"))].value_counts(sort=False).sort_index()
    if len(lost):
        causes = ", ".join(f"{str(cause).replace('_', ' ')} {n}" for cause, n in lost.items())
        yield f"did not land: {int(lost.sum())} of {run.count('visits')} visits ({causes})"
    if run.info.never_equipped:
        yield f"given up: {run.info.never_equipped} clients, to whom the frozen model never got through"
    yield (
        f"sent: {said('bytes', totals.up_bytes)} up, {said('bytes', totals.down_bytes)} down;"
        f" devices used {said('joules', totals.joules)}"
    )
    if run.count("visits") and not run.info.timeline_only:
        yield f"never trained, because the clock had lost them: {percent(run.info.saved_share)} of the visits"


def _paths(run: Run) -> Iterator[str]:
    if run.folder is None:
        return
    yield f"run folder: {run.folder}"
    report = run.folder / "report.html"
    if report.exists():
        yield f"report: {report}"
    yield f"next: fedsim verify {run.folder}"
