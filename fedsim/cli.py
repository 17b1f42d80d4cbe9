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

from fedsim.shell import (
    answered,
    error,
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
    from fedsim.run import Run

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
profiles = typer.Typer(no_args_is_help=True, help="Look at device, link and availability tables.")
app.add_typer(profiles, name="profiles", epilog="Example: fedsim profiles show mixed_edge_2025")

File = Annotated[Path, typer.Argument(metavar="EXP.yaml", help="The experiment.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="KEY.PATH=VALUE", help="Change one value (YAML); repeatable."),
]
TimelineOnly = Annotated[bool, typer.Option("--timeline-only", help="The same schedule without training.")]


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

    from fedsim import config, demo_images
    from fedsim import demo as demo_text
    from fedsim.report import write
    from fedsim.simulation import begin, executor_for, prepare

    show: ModuleType = demo_images if images else demo_text
    experiments = [config.changed(experiment, set or (), "demo") for experiment in show.experiments()]
    folder = new_folder(out, "demo-images" if images else "demo")
    for experiment in experiments:
        config.check(experiment, "demo")
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
    from fedsim import config

    importable(experiment.parent)
    read = config.load(experiment, set or ())
    importable_by_workers(read, experiment.parent)
    config.check(read, str(experiment))
    folder = new_folder(out, read.name)

    from fedsim.simulation import prepare

    with config.naming(read, str(experiment)):
        plan = prepare(read)
    if dry_run:
        from fedsim.answers import estimates
        from fedsim.dryrun import dry_run as estimate

        print(estimates(estimate(plan, measure=not timeline_only)))
        return
    done = _simulated(plan, folder, timeline_only=timeline_only)

    from fedsim.progress import verdict

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
    from fedsim.answers import table
    from fedsim.report import write
    from fedsim.sweep import points, run_all, summary

    importable(experiment.parent)
    grid = points(experiment, set or (), out)
    for point in grid:
        importable_by_workers(point.experiment, experiment.parent)
    results = run_all(grid, timeline_only=timeline_only, say=say, debug=wants_traceback(sys.argv))
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
    from fedsim.report import write
    from fedsim.run import load

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
    from fedsim.run import load
    from fedsim.timeline import export

    loaded = load(run)
    out = run / "timeline.json" if out is None else out
    export(loaded, out)
    print(out)


@app.command(epilog="Example: fedsim verify runs/ptb-sync")
def verify(run: RunFolder) -> int:
    """Replay the accounting of a run.

    Bytes, joules, staleness, one ending per visit: prints `ok`, or the problems and exits with 1.
    """
    from fedsim.run import load
    from fedsim.verify import verify as problems_of

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
    from fedsim.answers import replayed
    from fedsim.replay import replay as again

    importable(run)
    print(replayed(again(run, client, visit)))


@app.command(epilog="Example: fedsim doctor --ray")
def doctor(
    ray: Annotated[bool, typer.Option("--ray", help="Really start a small local Ray and stop it.")] = False,
) -> int:
    """Say what is installed and what fits here."""
    from fedsim.doctor import examine

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

    from fedsim.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


@profiles.command("list", epilog="Example: fedsim profiles list")
def profiles_list() -> None:
    """List the population presets."""
    from fedsim.profiles import preset_names

    print("\n".join(preset_names()))


@profiles.command("show", epilog="Example: fedsim profiles show mixed_edge_2025")
def profiles_show(preset: Annotated[str, typer.Argument(metavar="PRESET", show_default=False)]) -> None:
    """Show what a preset draws from."""
    from fedsim.answers import listing
    from fedsim.profiles import show

    print(listing(show(preset)))


@profiles.command("calibrate", epilog="Example: fedsim profiles calibrate --out my-device.csv")
def profiles_calibrate(
    task: Annotated[
        Path | None,
        typer.Option(metavar="EXP.yaml", help="Whose task to train [default: the built-in model and text]."),
    ] = None,
    set: Set = None,
    name: Annotated[str, typer.Option(help="Name of the row.")] = "this-machine",
    like: Annotated[
        str, typer.Option(metavar="DEVICE", help="Class, power and battery, which are not measured.")
    ] = "laptop-mainstream",
    quota: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=1.0, help="The CPU quota that this process runs under.", show_default=False
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Visits to time.")] = 7,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each.")] = 4,
    out: Annotated[Path | None, typer.Option(help="The table to write.", show_default=False)] = None,
) -> None:
    """Measure this machine at the real task.

    Trains on one thread and prints a row of a device table.
    """
    from fedsim import calibrate, config

    if out is not None:
        calibrate.refuse_existing(out)
    if task is not None:
        importable(task.parent)
    read = config.changed(calibrate.default(), set or ()) if task is None else config.load(task, set or ())

    from fedsim.simulation import prepare

    with config.naming(read, str(task or "calibrate")):
        plan = prepare(read)
    measured = calibrate.measure(plan, repeats=repeats, steps=steps, quota=quota is not None)
    rows = [calibrate.row(measured, name, like, quota)]
    print(calibrate.table(rows), end="")
    if measured.overhead_s:
        faster = measured.median_s / (measured.median_s - measured.overhead_s)
        print(f"# or compute.step_overhead_s: {measured.overhead_s:.3g} and the speeds x {faster:.3g}")
    if out is not None:
        calibrate.write(rows, out)


@profiles.command("check", epilog="Example: fedsim profiles check my-devices.csv")
def profiles_check(file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]) -> int:
    """Check a table of your own.

    Devices, networks or availability windows; problems are named by row.
    """
    from fedsim.profiles import check

    problems = check(file)
    for problem in problems:
        error(problem)
    if not problems:
        print("ok")
    return 2 if problems else 0


@profiles.command(
    "import", epilog="Example: fedsim profiles import sabre log.json --direction down --out lte.csv"
)
def profiles_import(
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            show_default=False,
            help="fedscale-capacity, fedscale-behaviour, flash-states, flash-speeds, mahimahi, kbps, pensieve or sabre.",
        ),
    ],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", show_default=False, help="Rates: a trace a file.")
    ],
    out: Annotated[Path, typer.Option(help="The table to write, .csv or .parquet; never replaced.")],
    licence: Annotated[str | None, typer.Option(help="Kept in the header [default: the file's own].")] = None,
    source: Annotated[str | None, typer.Option(help="Where it came from; kept in the header.")] = None,
    direction: Annotated[str | None, typer.Option(help="Rates: whose they are: down, up or both.")] = None,
    up: Annotated[
        list[Path] | None, typer.Option(help="Rates: the uplink's file, one for each FILE.")
    ] = None,
    bin_s: Annotated[float | None, typer.Option(help="mahimahi: width of a step [default: 1].")] = None,
    last_s: Annotated[float | None, typer.Option(help="kbps: how long the last row lasts.")] = None,
    table: Annotated[str | None, typer.Option(help="fedscale-capacity: devices or networks.")] = None,
    gflop_per_sample: Annotated[
        float | None, typer.Option(help="fedscale-capacity: the work that its milliseconds were measured on.")
    ] = None,
    when: Annotated[
        str | None, typer.Option(help="flash-states: all of these: charging, wifi, locked, screen_off.")
    ] = None,
    period_s: Annotated[float | None, typer.Option(help="Windows repeat with this period.")] = None,
    gap_s: Annotated[float | None, typer.Option(help="Windows: join those so near [default: 60].")] = None,
    shortest_s: Annotated[
        float | None, typer.Option(help="Windows: drop shorter ones [default: 60].")
    ] = None,
    longest_s: Annotated[
        float | None, typer.Option(help="Windows: cut longer ones [default: 86400].")
    ] = None,
) -> None:
    """Make a table of others' data.

    Devices, networks, windows of availability or rates over time; prints what was read.
    """
    from fedsim.answers import listing
    from fedsim.importers import import_table
    from fedsim.importers.options import Options

    options = Options(
        licence, source, direction, tuple(up or ()), bin_s, last_s, table, gflop_per_sample, when, period_s,
        gap_s, shortest_s, longest_s,
    )  # fmt: skip
    read = import_table(format, files, options)
    read.write(out)
    print(listing({"table": f"{out} ({read.kind})", **read.figures, **read.facts}))
    if read.facts["licence"] == "not stated":
        say("no licence is stated: give --licence before you pass this table on")


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(call(sys.argv[1:]))


def call(args: Sequence[str]) -> int:
    """Run one command line in this process and return its exit code."""
    return answered(app, args)


def _simulated(plan: Any, folder: Path, executor: Any = None, *, timeline_only: bool = False) -> Run:
    from fedsim.progress import Progress
    from fedsim.simulation import simulate

    with Progress() as progress, kept(folder):
        return simulate(plan, executor, out=folder, timeline_only=timeline_only, on_event=progress)
