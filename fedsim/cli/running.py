"""The commands that run experiments: one, a grid, a demo, one visit again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.arguments import Address, AsJson, Changes, File, RunFolder, TimelineOnly, Trust, on_cluster
from fedsim.cli.shell import (
    from_a_folder,
    importable,
    importable_by_workers,
    new_folder,
    say,
    tables_named,
    wants_traceback,
)
from fedsim.cli.tracking.listeners import Own, Track
from fedsim.errors import RunFolderError, TakenError, message

if TYPE_CHECKING:
    from fedsim.callbacks import Callback
    from fedsim.cli.tracking.exporting import Program
    from fedsim.clock.plan import Plan
    from fedsim.config.experiment import Experiment
    from fedsim.executors import Executor
    from fedsim.records.run import Run


TRIES = 20
"""Folders that a run without `--out` tries, one after the other, where other processes are quicker."""


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs [default: runs/demo, runs/demo-images].")
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="Generate images instead of text.")] = False,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Compare sync rounds with FedBuff, offline.

    The embedded model and data over unequal devices; some minutes.
    """
    from fedsim.checks.gate import admit
    from fedsim.cli.demos.images import IMAGES
    from fedsim.cli.demos.text import TEXT
    from fedsim.cli.printing import print_json
    from fedsim.cli.progress import STARTING
    from fedsim.cli.verdict import facts
    from fedsim.config import loading as config
    from fedsim.report import write
    from fedsim.runs.together import run_together

    shown = IMAGES if images else TEXT
    experiments = [config.changed(experiment, changes or (), "demo") for experiment in shown.experiments()]
    folder = new_folder(out, shown.name)
    for experiment in experiments:
        admit(experiment, "demo")
    if experiments[0].runtime.executor == "ray":
        say(STARTING)
    runs = run_together(experiments, folder, _simulated)
    page = write(runs, folder / "report.html")
    if as_json:
        print_json({"runs": [facts(run) for run in runs], "report": page})
        return
    print(shown.verdict(runs))
    print(f"runs: {folder}\nreport: {page}\nnext: fedsim run {runs[0].folder}/experiment.yaml -s seed=1")


def run(
    experiment: File,
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder [default: runs/NAME, numbered].", show_default=False)
    ] = None,
    timeline_only: TimelineOnly = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print estimates and stop.")] = False,
    address: Address = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that --out holds, if it holds one.")
    ] = False,
    track: Track = None,
    callback: Own = None,
    as_json: AsJson = False,
) -> None:
    """Run one experiment."""
    from fedsim.checks import gate
    from fedsim.cli.printing import print_estimates
    from fedsim.config.loading import naming
    from fedsim.records.folder import clear_stillborn, has_begun, holds_run
    from fedsim.runs.dry_run import dry_run as estimates
    from fedsim.runs.preflight.forecast import forecast
    from fedsim.runs.preflight.needs import needs_of

    importable(experiment.parent)
    read = gate.read(experiment, on_cluster(changes, address))
    importable_by_workers(read, experiment.parent)
    if resume and out is None:
        raise RunFolderError(message("--resume", "which run is not said", fix="give its folder with --out"))
    if resume and out is not None and holds_run(out):
        if has_begun(out):
            _tell(_gone_on(out, (), _listeners(track, callback, out), read), as_json=as_json)
            return
        clear_stillborn(out)
    new_folder(out, read.name)  # one that is taken is refused before anything is read
    with naming(read, str(experiment)):
        plan = gate.prepared(read)
    expected = forecast(plan)
    if dry_run:
        needs = needs_of(plan, new_folder(out, read.name), expected, timeline_only=timeline_only)
        print_estimates(estimates(plan, measure=not timeline_only), needs, as_json=as_json)
        return

    def simulated_in(folder: Path) -> Run:
        needs = needs_of(plan, folder, expected, timeline_only=timeline_only)
        needs.check()
        others, notes = _listeners(track, callback, folder), (*needs.lines(), *needs.cautions())
        return _simulated(plan, folder, timeline_only=timeline_only, notes=notes, others=others)

    _tell(_in_a_free_folder(out, read.name, simulated_in), as_json=as_json)


def _in_a_free_folder(out: Path | None, name: str, simulated_in: Callable[[Path], Run]) -> Run:
    """Run in `out`, or in the first free folder of a name: in the next one if another process has taken it meanwhile."""
    tries_left = TRIES
    while True:
        folder = new_folder(out, name)
        try:
            return simulated_in(folder)
        except TakenError as problem:
            tries_left -= 1
            own = problem.message.where == str(folder)  # and not that of a run which a callback makes
            if out is not None or not own or not tries_left:
                raise


def _tell(run: Run, *, as_json: bool) -> None:
    """Print what is printed at the end of a run."""
    from fedsim.cli.printing import print_json
    from fedsim.cli.verdict import facts, verdict

    if as_json:
        print_json(facts(run))
    else:
        print(verdict(run))


def resume(
    run: RunFolder,
    changes: Changes = None,
    trust: Trust = False,
    track: Track = None,
    callback: Own = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run after any end.

    A kill, Ctrl-C, a power failure, a full disk: the schedule is replayed and compared up to the last checkpoint, and the
    run goes on as if it had never ended. `-s budget.commits=200` continues a run that came to its end.
    """
    from_a_folder(trust=trust)
    others = _listeners(track, callback, run)
    _tell(_gone_on(run, changes or (), others, trust=trust), as_json=as_json)


def _listeners(track: Sequence[Program] | None, own: Sequence[str] | None, folder: Path) -> list[Callback]:
    from fedsim.cli.tracking.listeners import listeners

    return listeners(track, own, folder.absolute().parent)


def _gone_on(
    folder: Path,
    changes: Sequence[str],
    others: Sequence[Callback],
    experiment: Experiment | None = None,
    *,
    trust: bool = False,
) -> Run:
    """Go on with the run in a folder."""
    from fedsim.cli.progress import Progress
    from fedsim.config.experiment import Experiment as Settings
    from fedsim.records.folder import read_head
    from fedsim.runs.resuming.resume import resume as again

    _, stored = read_head(folder)
    if trust:
        with suppress(Exception):  # what is wrong with it is said below
            importable_by_workers(Settings.model_validate(stored), folder)
    with Progress() as progress, tables_named(folder):
        return again(
            folder, changes=changes, experiment=experiment, callbacks=[progress, *others], trust=trust
        )


def sweep(
    experiment: File,
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs [default: runs/NAME].", show_default=False)
    ] = None,
    timeline_only: TimelineOnly = False,
    parallel: Annotated[
        int, typer.Option(min=1, help="Points that run at the same time, each in a process of its own.")
    ] = 1,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first point that fails.")
    ] = False,
    track: Track = None,
    callback: Own = None,
    as_json: AsJson = False,
) -> int:
    """Run every point of a grid.

    The grid is the file's `sweep:` block. Points that are done already are skipped, and those that were begun go
    on; `fedsim status` on the folder says from elsewhere how they stand.
    """
    from fedsim.cli.printing import print_json, table
    from fedsim.cli.tracking.listeners import watcher
    from fedsim.cli.verdict import point_facts
    from fedsim.report import write
    from fedsim.runs.sweep import points, run_all, summary

    importable(experiment.parent)
    grid = points(experiment, changes or (), out)
    for point in grid:
        importable_by_workers(point.experiment, experiment.parent)
    debug = wants_traceback(sys.argv)
    results = run_all(
        grid,
        timeline_only=timeline_only,
        say=say,
        watch=watcher(track, callback, grid[0].folder.parent),
        debug=debug,
        parallel=parallel,
        fail_fast=fail_fast,
    )
    runs = [result.run for result in results if result.run is not None]
    page = write(runs, grid[0].folder.parent / "report.html") if runs else None
    if as_json:
        print_json({"points": [point_facts(result) for result in results], "report": page})
    else:
        print(table(summary(results)))
        if page is not None:
            print(f"report: {page}")
    return max(result.exit_code for result in results)


def replay(
    run: RunFolder,
    client: Annotated[int, typer.Option(min=0, help="Index of the client.", show_default=False)],
    visit: Annotated[int, typer.Option(min=0, help="Which of its visits, from 0.")] = 0,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train one visit again, for a debugger.

    Alone, in this process, from what the run had sent. Says whether the loss is the recorded one: to the
    bit, or to rounding where the other clients of a batch change the last digits.
    """
    from fedsim.cli.printing import print_json, replay_facts, replayed
    from fedsim.runs.replay import replay as again

    from_a_folder(trust=trust)
    found = again(run, client, visit, trust=trust)
    if not as_json:
        print(replayed(found))
        return
    print_json({"client": client, "visit": visit, **replay_facts(found)})


def _simulated(
    plan: Plan,
    folder: Path,
    executor: Executor | None = None,
    *,
    timeline_only: bool = False,
    notes: Sequence[str] = (),
    others: Sequence[Callback] = (),
) -> Run:
    from fedsim.cli.progress import Progress
    from fedsim.runs.simulation import simulate

    with Progress(notes=notes) as progress, tables_named(folder):
        return simulate(
            plan, executor, out=folder, timeline_only=timeline_only, callbacks=[progress, *others]
        )
