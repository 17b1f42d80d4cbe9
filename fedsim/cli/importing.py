"""The command `fedsim profiles import`: a table of ours from others' data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.shell import say


def import_profiles(
    form: Annotated[
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
        licence=licence,
        source=source,
        direction=direction,
        up=tuple(up or ()),
        bin_s=bin_s,
        last_s=last_s,
        table=table,
        gflop_per_sample=gflop_per_sample,
        when=when,
        period_s=period_s,
        gap_s=gap_s,
        shortest_s=shortest_s,
        longest_s=longest_s,
    )
    imported = import_table(form, files, options)
    imported.write(out)
    print(listing({"table": f"{out} ({imported.kind})", **imported.figures, **imported.facts}))
    if imported.facts["licence"] == "not stated":
        say("no licence is stated: give --licence before you pass this table on")
