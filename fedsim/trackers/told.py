"""What the tables of a run would have told, as the events of it: what `fedsim export` hands to a tracker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fedsim.callbacks import Committed, RunBegun, RunEnded, Scored
from fedsim.callbacks.telling import ended, event_of
from fedsim.records.run import Run


def begun(run: Run) -> RunBegun:
    """Return how a run began."""
    settings = run.experiment
    return RunBegun(run.name, run.folder, run.count("clients"), run.info.workers, {}, settings)


def middle(run: Run) -> Iterator[Committed | Scored]:
    """Yield its commits and scores, each version's scores after its commit."""
    scores = {version: rows for version, rows in run.scores.groupby("version")}  # noqa: C416 - of pandas' own type
    spent: dict[str, float] = {"up_bytes": 0, "down_bytes": 0, "joules": 0.0}
    yield from _scored(scores.get(0), spent)
    for row in run.commits.to_dict("records"):
        event = event_of("commit", {str(name): value for name, value in row.items()})
        assert isinstance(event, Committed)
        yield event
        spent = {"up_bytes": event.up_bytes, "down_bytes": event.down_bytes, "joules": event.joules}
        yield from _scored(scores.get(event.version), spent)


def _scored(rows: Any, spent: dict[str, float]) -> Iterator[Scored]:
    for split, of_split in () if rows is None else rows.groupby("split", sort=False):
        metrics = dict(zip(of_split["metric"], of_split["value"].tolist(), strict=True))
        first = of_split.iloc[0]
        facts = {"version": int(first["version"]), "time_s": float(first["time_s"]), "split": str(split)}
        event = event_of("score", {**facts, "metrics": metrics, **spent})
        assert isinstance(event, Scored)
        yield event


def over(run: Run) -> RunEnded:
    """Return how it ended."""
    event = event_of("done", ended(run.info, run.folder))
    assert isinstance(event, RunEnded)
    return event
