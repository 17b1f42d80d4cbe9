"""The command `fedsim profiles import`: a table of ours from others' data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.arguments import AsJson
from fedsim.cli.shell import say

if TYPE_CHECKING:
    from fedsim.importers.options import Options


Form = Annotated[
    str,
    typer.Argument(
        metavar="FORMAT",
        show_default=False,
        help="fedscale-capacity, fedscale-behaviour, flash-states, flash-speeds, g-nettrack, ghent, lumos5g, mahimahi, "
        "kbps, pensieve or sabre.",
    ),
]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", show_default=False, help="Rates: a trace a file.")
]
Out = Annotated[Path, typer.Option(help="The table to write, .csv or .parquet; never replaced.")]
Licence = Annotated[str | None, typer.Option(help="Kept in the header [default: the file's own].")]
Source = Annotated[str | None, typer.Option(help="Where it came from; kept in the header.")]
Whose = Annotated[str | None, typer.Option(help="Rates: whose they are: down, up or both.")]
Uplinks = Annotated[list[Path] | None, typer.Option(help="Rates: the uplink's file, one for each FILE.")]
Bin = Annotated[float | None, typer.Option(help="mahimahi: width of a step [default: 1].")]
Last = Annotated[float | None, typer.Option(help="kbps: how long the last row lasts.")]
Which = Annotated[str | None, typer.Option(help="fedscale-capacity: devices or networks.")]
Work = Annotated[
    float | None, typer.Option(help="fedscale-capacity: the work that its milliseconds were measured on.")
]
When = Annotated[
    str | None, typer.Option(help="flash-states: all of these: charging, wifi, locked, screen_off.")
]
Period = Annotated[float | None, typer.Option(help="Windows repeat with this period.")]
Gap = Annotated[float | None, typer.Option(help="Windows: join those so near [default: 60].")]
Shortest = Annotated[float | None, typer.Option(help="Windows: drop shorter ones [default: 60].")]
Longest = Annotated[float | None, typer.Option(help="Windows: cut longer ones [default: 86400].")]


def import_profiles(
    form: Form,
    files: Files,
    out: Out,
    licence: Licence = None,
    source: Source = None,
    direction: Whose = None,
    up: Uplinks = None,
    bin_s: Bin = None,
    last_s: Last = None,
    table: Which = None,
    gflop_per_sample: Work = None,
    when: When = None,
    period_s: Period = None,
    gap_s: Gap = None,
    shortest_s: Shortest = None,
    longest_s: Longest = None,
    as_json: AsJson = False,
) -> None:
    """Make a table of others' data.

    Devices, networks, windows of availability or rates over time; prints what was read.
    """
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
    _import(form, files, options, out, as_json=as_json)


def _import(form: str, files: list[Path], options: Options, out: Path, *, as_json: bool) -> None:
    from fedsim.cli.printing import listing, print_json
    from fedsim.importers import import_table

    imported = import_table(form, files, options)
    imported.write(out)
    if as_json:
        facts = {"figures": imported.figures, "facts": imported.facts}
        print_json({"table": out, "kind": imported.kind, **facts})
    else:
        print(listing({"table": f"{out} ({imported.kind})", **imported.figures, **imported.facts}))
    if imported.facts["licence"] == "not stated":
        say("no licence is stated: give --licence before you pass this table on")
