"""The commands that read runs: a page, a trace, the audit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.arguments import AsJson, RunFolder, Trust
from fedsim.cli.shell import beside, from_a_folder, runs_in_all
from fedsim.errors import ExperimentError, FedsimError, RunFolderError, message, visible

if TYPE_CHECKING:
    from fedsim.records.run import Run


@contextmanager
def contradictions_told(runs: Sequence[Run]) -> Iterator[None]:
    """Say of tables that nothing can be made of what the audit finds; what fails with books in order is our mistake.

    Raises:
        RunFolderError: the tables of a run contradict each other.
    """
    try:
        yield
    except FedsimError:
        raise
    except Exception as problem:
        from fedsim.records.verify import verify as problems_of

        for run in runs:
            wrong = problems_of(run)
            if wrong:
                what, fix = f"its tables contradict each other: {wrong[0]}", "see `fedsim verify`"
                raise RunFolderError(message(str(run.folder), what, fix=fix)) from problem
        raise


def target_of(value: str, given: str) -> float:
    """Return a value that is to be reached, of what the command line was given.

    Raises:
        ExperimentError: it is no finite number.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        fix = "write perplexity=16, or 16"
        raise ExperimentError(message("--target", "is no number", got=given, fix=fix))
    return number


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs.")],
    out: Annotated[
        Path | None, typer.Option(help="The page [default: report.html beside the runs].", show_default=False)
    ] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(
            help="Value of the test metric to compare times to; may be given again.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an offline page about one run or several."""
    from fedsim.records.run import load
    from fedsim.report import write

    targets = [target_of(str(value), str(value)) for value in target or ()]
    folders = runs_in_all(runs)
    loaded = [load(folder) for folder in folders]
    page = beside(folders) / "report.html" if out is None else out
    with contradictions_told(loaded):
        page = write(loaded, page, targets=targets)
    _tell_file("report", page, as_json=as_json)


def _tell_file(what: str, path: Path, *, as_json: bool) -> None:
    """Print where something was written."""
    from fedsim.cli.printing import print_json

    if as_json:
        print_json({what: path})
    else:
        print(visible(str(path)))


def timeline(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="The file [default: RUN/timeline.json].", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trace for Perfetto.

    Chrome-trace JSON in virtual microseconds; chrome://tracing opens it too.
    """
    from fedsim.records.run import load
    from fedsim.records.timeline import export

    loaded = load(run)
    out = run / "timeline.json" if out is None else out
    with contradictions_told([loaded]):
        export(loaded, out)
    _tell_file("trace", out, as_json=as_json)


def verify(
    run: RunFolder,
    accounts_only: Annotated[
        bool,
        typer.Option(
            "--accounts-only", help="Do without the replay, which needs the run's data and components."
        ),
    ] = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> int:
    """Audit a run: replay its schedule, and recompute its accounts.

    The schedule is made again from experiment.yaml, in seconds and without training, and every column that does not
    depend on training is compared; seconds, bytes, joules, rounds and sums are recomputed from the tables alone. Prints
    one line of what was checked, and exits with 1 after the problems if there are any.
    """
    from fedsim.cli.printing import print_json
    from fedsim.records.run import load
    from fedsim.runs.audit import audit

    from_a_folder(trust=trust)
    found = audit(load(run), accounts_only=accounts_only, trust=trust)
    if as_json:
        print_json({"run": run, "ok": not found.problems, **vars(found)})
    else:
        print("\n".join(map(visible, [*found.problems, found.summary])))
    return int(bool(found.problems))
