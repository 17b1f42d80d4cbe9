"""What a person is told of a run at its end, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedsim.records.quantities import duration, percent, plural, said

if TYPE_CHECKING:
    from fedsim.records.run import Run


def verdict(run: Run) -> str:
    """Return what happened: learning, losses by cause, bytes, saved training, paths."""
    return "\n".join([*_ending(run), *_learning(run), *_costs(run), *_paths(run)])


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
