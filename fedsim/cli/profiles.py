"""The commands of `fedsim profiles`: lists, tables, checks, imports and measurements of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.arguments import Set
from fedsim.cli.shell import error, importable, say

profiles = typer.Typer(no_args_is_help=True, help="Look at device, link and availability tables.")


@profiles.command("list", epilog="Example: fedsim profiles list")
def profiles_list() -> None:
    """List the population presets."""
    from fedsim.devices.presets import preset_names

    print("\n".join(preset_names()))


@profiles.command("show", epilog="Example: fedsim profiles show mixed_edge_2025")
def profiles_show(preset: Annotated[str, typer.Argument(metavar="PRESET", show_default=False)]) -> None:
    """Show what a preset draws from."""
    from fedsim.cli.printing import listing
    from fedsim.devices.population import show

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
    from fedsim.config import loading as config
    from fedsim.runs import calibrate

    if out is not None:
        calibrate.refuse_existing(out)
    if task is not None:
        importable(task.parent)
    read = config.changed(calibrate.default(), set or ()) if task is None else config.load(task, set or ())

    from fedsim.clock.plan import prepare

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
    from fedsim.devices.table_checks import check

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
    from fedsim.cli.printing import listing
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
