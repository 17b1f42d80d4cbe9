"""The command line: results on stdout, progress and errors on stderr, heavy imports only when needed.

Exit codes: 0 done; 1 the run failed; 2 configuration, data or usage; 3 this machine; 130 Ctrl-C, 143
SIGTERM (the tables written so far are kept).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.arguments import File, RunFolder, Set, TimelineOnly
from fedsim.cli.profiles import profiles
from fedsim.cli.shell import (
    answered,
    importable,
    importable_by_workers,
    kept,
    new_folder,
    runs_in,
    say,
    terminate,
    wants_traceback,
)

if TYPE_CHECKING:
    from fedsim.records.run import Run

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(profiles, name="profiles", epilog="Example: fedsim profiles show mixed_edge_2025")


def _version(value: bool) -> None:
    if value:
        from fedsim import __version__

        print(f"fedsim {__version__}")
        raise typer.Exit


@app.callback(epilog="Start with: fedsim demo")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks (also FEDSIM_DEBUG=1); anywhere on the line.")
    ] = False,
) -> None:
    """Federated LoRA fine-tuning on unequal devices: real training under a virtual clock."""


@app.command(epilog="Example: fedsim demo --out runs/demo")
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs [default: runs/demo, runs/demo-images].")
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="Generate images instead of text.")] = False,
    set: Set = None,
) -> None:
    """Compare sync rounds with FedBuff, offline.

    The embedded model and data over unequal devices; some minutes.
    """
    from types import ModuleType

    from fedsim.checks.blocks import check
    from fedsim.cli import demo as demo_text
    from fedsim.cli import demo_images
    from fedsim.clock.plan import prepare
    from fedsim.config import loading as config
    from fedsim.report import write
    from fedsim.runs.simulation import begin, executor_for

    show: ModuleType = demo_images if images else demo_text
    experiments = [config.changed(experiment, set or (), "demo") for experiment in show.experiments()]
    folder = new_folder(out, "demo-images" if images else "demo")
    for experiment in experiments:
        check(experiment, "demo")
    with closing(executor_for(experiments[0])) as executor:
        begin(executor, experiments[0])
        first = prepare(experiments[0])
        plans = [first.alike(experiment) for experiment in experiments]
        runs = [_simulated(plan, folder / plan.experiment.name, executor) for plan in plans]
    page = write(runs, folder / "report.html")
    print(show.verdict(runs))
    print(f"runs: {folder}\nreport: {page}\nnext: fedsim run {runs[0].folder}/experiment.yaml -s seed=1")


@app.command(epilog="Example: fedsim run experiments/ptb/sync.yaml -s seed=1 --out runs/ptb-1")
def run(
    experiment: File,
    set: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder [default: runs/NAME, numbered].", show_default=False)
    ] = None,
    timeline_only: TimelineOnly = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print estimates and stop.")] = False,
) -> None:
    """Run one experiment."""
    from fedsim.checks.blocks import check
    from fedsim.config import loading as config

    importable(experiment.parent)
    read = config.load(experiment, set or ())
    importable_by_workers(read, experiment.parent)
    check(read, str(experiment))
    folder = new_folder(out, read.name)

    from fedsim.clock.plan import prepare

    with config.naming(read, str(experiment)):
        plan = prepare(read)
    if dry_run:
        from fedsim.cli.printing import estimates
        from fedsim.runs.dry_run import dry_run as estimate

        print(estimates(estimate(plan, measure=not timeline_only)))
        return
    done = _simulated(plan, folder, timeline_only=timeline_only)

    from fedsim.cli.progress import verdict

    print(verdict(done))


@app.command(epilog="Example: fedsim sweep my-grid.yaml --out runs/my-grid")
def sweep(
    experiment: File,
    set: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs [default: runs/NAME].", show_default=False)
    ] = None,
    timeline_only: TimelineOnly = False,
) -> int:
    """Run every point of a grid.

    The grid is the file's `sweep:` block; points that are done already are skipped.
    """
    from fedsim.cli.printing import table
    from fedsim.cli.progress import Progress
    from fedsim.report import write
    from fedsim.runs.sweep import points, run_all, summary

    importable(experiment.parent)
    grid = points(experiment, set or (), out)
    for point in grid:
        importable_by_workers(point.experiment, experiment.parent)
    debug = wants_traceback(sys.argv)
    results = run_all(grid, timeline_only=timeline_only, say=say, watch=Progress, debug=debug)
    runs = [result.run for result in results if result.run is not None]
    print(table(summary(results)))
    if runs:
        print(f"report: {write(runs, grid[0].folder.parent / 'report.html')}")
    return max(result.exit_code for result in results)


@app.command(epilog="Example: fedsim report runs/sync runs/fedbuff --out comparison.html")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs.")],
    out: Annotated[
        Path | None, typer.Option(help="The page [default: report.html beside the runs].", show_default=False)
    ] = None,
) -> None:
    """Write an offline page about one run or several."""
    from fedsim.records.run import load
    from fedsim.report import write

    folders = [folder for named in runs for folder in runs_in(named)]
    loaded = [load(folder) for folder in folders]
    if out is None:
        parents = [
            str(folder.absolute() if len(folders) == 1 else folder.absolute().parent) for folder in folders
        ]
        out = Path(os.path.commonpath(parents)) / "report.html"
    print(write(loaded, out))


@app.command(epilog="Example: fedsim timeline runs/demo/demo-sync --out timeline.json")
def timeline(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="The file [default: RUN/timeline.json].", show_default=False)
    ] = None,
) -> None:
    """Write a trace for Perfetto.

    Chrome-trace JSON in virtual microseconds; chrome://tracing opens it too.
    """
    from fedsim.records.run import load
    from fedsim.records.timeline import export

    loaded = load(run)
    out = run / "timeline.json" if out is None else out
    export(loaded, out)
    print(out)


@app.command(epilog="Example: fedsim verify runs/ptb-sync")
def verify(run: RunFolder) -> int:
    """Replay the accounting of a run.

    Bytes, joules, staleness, one ending per visit: prints `ok`, or the problems and exits with 1.
    """
    from fedsim.records.run import load
    from fedsim.records.verify import verify as problems_of

    problems = problems_of(load(run))
    print("\n".join(problems) if problems else "ok")
    return int(bool(problems))


@app.command(epilog="Example: fedsim replay runs/ptb-sync --client 3 --visit 0")
def replay(
    run: RunFolder,
    client: Annotated[int, typer.Option(min=0, help="Index of the client.", show_default=False)],
    visit: Annotated[int, typer.Option(min=0, help="Which of its visits, from 0.")] = 0,
) -> None:
    """Train one visit again, for a debugger.

    Alone, in this process, from what the run had sent. Says whether the loss is the recorded one: to the
    bit, or to rounding where the other clients of a batch change the last digits.
    """
    from fedsim.cli.printing import replayed
    from fedsim.runs.replay import replay as again

    importable(run)
    print(replayed(again(run, client, visit)))


@app.command(epilog="Example: fedsim doctor --ray")
def doctor(
    ray: Annotated[bool, typer.Option("--ray", help="Really start a small local Ray and stop it.")] = False,
) -> int:
    """Say what is installed and what fits here."""
    from fedsim.cli.doctor import examine

    findings = examine(start_ray=ray)
    for finding in findings:
        print(f"{finding.state:<4}  {finding.text}")
        if finding.fix:
            print(f"      fix: {finding.fix}")
    return 3 if any(finding.state == "bad" for finding in findings) else 0


@app.command(epilog="Example: fedsim schema > experiment.schema.json")
def schema() -> None:
    """Print an experiment's JSON schema."""
    import json

    from fedsim.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(call(sys.argv[1:]))


def call(args: Sequence[str]) -> int:
    """Run one command line in this process and return its exit code."""
    return answered(app, args)


def _simulated(plan: Any, folder: Path, executor: Any = None, *, timeline_only: bool = False) -> Run:
    from fedsim.cli.progress import Progress
    from fedsim.runs.simulation import simulate

    with Progress() as progress, kept(folder):
        return simulate(plan, executor, out=folder, timeline_only=timeline_only, on_event=progress)
