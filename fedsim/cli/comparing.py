"""The command `fedsim compare`: configurations beside each other, pair by pair of seeds, on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.arguments import AsJson
from fedsim.cli.reading import contradictions_told, target_of
from fedsim.cli.shell import runs_in_all, say

if TYPE_CHECKING:
    from fedsim.report.parts import Table
    from fedsim.report.several.differences import Contest

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs.")]
Target = Annotated[
    list[str] | None,
    typer.Option(help="Value to reach, as in perplexity=16; may be given again.", show_default=False),
]
Out = Annotated[Path | None, typer.Option(help="Write the page, too.", show_default=False)]


def compare(runs: Runs, target: Target = None, out: Out = None, *, as_json: AsJson = False) -> None:
    """Compare configurations: differences over pairs of seeds, time and cost to a target, the Pareto front."""
    from fedsim.cli.printing import print_json
    from fedsim.errors import RunFolderError, message
    from fedsim.records.run import load
    from fedsim.report import write
    from fedsim.report.several.differences import contest, verdict
    from fedsim.report.several.labels import compared

    folders = runs_in_all(runs)
    loaded = [load(folder) for folder in folders]
    metric, values = _targets(target or [])
    c = compared(loaded)
    found = contest(c, metric)
    if found is None:
        scored = sorted(
            {m for run in loaded for m in run.scores.loc[run.scores["split"] == "test", "metric"]}
        )
        what = "none of the runs scored it on test" if metric else "none of the runs scored a model"
        fix = f"choose one of {', '.join(scored)}" if scored else "run them without --timeline-only"
        raise RunFolderError(message(metric or "compare", what, fix=fix))
    with contradictions_told(loaded):
        if as_json:
            print_json(_numbers(found, values))
        else:
            print("\n".join(_text(found, values, verdict(c) if metric is None else "")))
    if out is not None:
        say(f"page: {write(loaded, out, targets=values)}")


def _targets(given: Sequence[str]) -> tuple[str | None, list[float]]:
    """Return the metric that targets name, if any, and their values.

    Raises:
        ExperimentError: no number, or two metrics.
    """
    from fedsim.errors import ExperimentError, message

    names, values = set(), []
    for text in given:
        name, _, value = text.rpartition("=")
        values.append(target_of(value, text))
        names.add(name)
    named = sorted(names - {""})
    if len(named) > 1:
        raise ExperimentError(
            message("--target", "names two metrics", got=named, fix="compare by one at a time")
        )
    return (named[0] if named else None), values


def _tables(found: Contest, values: Sequence[float]) -> Iterator[Table]:
    from fedsim.report.parts import Table
    from fedsim.report.several.sections import tables

    if found.c.differing:
        yield Table(
            ("setting", *found.c.names), [(key, *said) for key, said in found.c.differing], "What differs"
        )
    yield from tables(found, values)


def _text(found: Contest, values: Sequence[float], lead: str) -> Iterator[str]:
    from fedsim.cli.printing import table
    from fedsim.errors import visible

    if lead:
        yield lead
    for made in _tables(found, values):
        yield ""
        yield visible(made.caption)
        header = [name or " " for name in made.header]
        cells = [dict(zip(header, row, strict=True)) for row in made.rows]
        yield "\n".join("  " + line for line in table(cells).splitlines())


def _numbers(found: Contest, values: Sequence[float]) -> dict[str, object]:
    """Return the comparison as plain numbers: `null` where there is none."""
    from fedsim.records import comparisons, views
    from fedsim.report.several.differences import KINDS

    configurations = []
    for group in found.c.present:
        runs = found.runs(group)
        reached = {
            str(value): json.loads(views.time_to_target(runs, found.metric, value).to_json(orient="records"))
            for value in (values or comparisons.declared_targets(found.c.runs, found.metric))
        }
        configurations.append(
            {
                "name": found.c.names[group],
                "runs": [str(run.folder) for run in runs],
                "seeds": [str(comparisons.seeds_of(run)) for run in runs],
                "settings": {key: said[group] for key, said in found.c.differing},
                "last": found.last(group),
                "spent": [found.spent[i] for i in found.c.members(group)],
                "targets": reached,
            }
        )
    against = [
        {"configuration": found.c.names[group], "at_equal": unit, "budget": found.budgets[unit]}
        | json.loads(found.difference(group, unit).to_json())
        for group in found.c.present[1:]
        for unit in KINDS
    ]
    return {
        "metric": found.metric,
        "split": "test",
        "first": found.c.names[found.c.present[0]],
        "configurations": configurations,
        "differences_from_first": against,
    }
