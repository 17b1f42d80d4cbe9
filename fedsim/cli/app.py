"""The command line: results on stdout, progress and errors on stderr, heavy imports only when needed.

Exit codes: 0 done; 1 the run failed; 2 configuration, data or usage; 3 this machine; 130 Ctrl-C, 143
SIGTERM (the tables written so far are kept).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fedsim.cli import installed, reading, running
from fedsim.cli.comparing import compare
from fedsim.cli.explaining import explain
from fedsim.cli.importing import import_profiles
from fedsim.cli.making import new
from fedsim.cli.profiles import profiles
from fedsim.cli.shell import answered, terminate
from fedsim.cli.tracking.exporting import export
from fedsim.cli.watching.status import status

app = typer.Typer(
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
profiles.command(
    "import", epilog="Example: fedsim profiles import sabre log.json --direction down --out lte.csv"
)(import_profiles)
app.add_typer(profiles, name="profiles", epilog="Example: fedsim profiles show mixed_edge_2026")


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


app.command(epilog="Example: fedsim demo --out runs/demo")(running.demo)
app.command(epilog="Example: fedsim new phones --task language")(new)
app.command(epilog="Example: fedsim run experiments/ptb/sync.yaml -s seed=1 --out runs/ptb-1")(running.run)
app.command(epilog="Example: fedsim resume runs/ptb-1")(running.resume)
app.command(epilog="Example: fedsim sweep my-grid.yaml --out runs/my-grid")(running.sweep)
app.command(epilog="Example: fedsim status runs/ptb-sync --watch")(status)
app.command(epilog="Example: fedsim report runs/sync runs/fedbuff --out comparison.html")(reading.report)
app.command(epilog="Example: fedsim compare runs/sync runs/fedbuff --target perplexity=16")(compare)
app.command(epilog="Example: fedsim export runs/demo --to tensorboard")(export)
app.command(epilog="Example: fedsim timeline runs/demo/demo-sync --out timeline.json")(reading.timeline)
app.command(epilog="Example: fedsim verify runs/ptb-sync")(reading.verify)
app.command(epilog="Example: fedsim replay runs/ptb-sync --client 3 --visit 0")(running.replay)
app.command(epilog="Example: fedsim doctor --ray")(installed.doctor)
app.command(epilog="Example: fedsim explain protocol.buffer")(explain)
app.command(epilog="Example: fedsim schema > experiment.schema.json")(installed.schema)


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(call(sys.argv[1:]))


def call(args: Sequence[str]) -> int:
    """Run one command line in this process and return its exit code."""
    return answered(app, args)
