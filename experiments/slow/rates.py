"""Learning rates of every server, and of the local epoch, chosen by the users' validation text: rates.csv.

    python experiments/slow/rates.py RUNS TEXTS [-s KEY=VALUE ...]

Every server is tried with 0.003, 0.01 and 0.03, and with further ones, 0.001, 0.1, ..., where the best is at an end; what is
minimised is the mean loss of all hundred users' text, nobody's before others'. Seed 100 is not among the reported, and the last quarter of
every text, on which the runs are scored, is not in it. What is chosen stands in the YAML files.
"""

from __future__ import annotations

import argparse
import math
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fedsim
from fedsim.cli.shell import script
from fedsim.records.studies.kept import csv_text, finished

HERE = Path(__file__).parent
RATES = HERE / "rates.csv"
COMPARE = runpy.run_path(str(HERE / "compare.py"))
SERVERS: tuple[str, ...] = COMPARE["SERVERS"]
EPOCH_OF, LOCAL_EPOCH = "fedbuff", "one local epoch"
GRID = (3e-3, 1e-2, 3e-2)
SEED = 100


def further(rate: float, *, up: bool) -> float:
    """Return the next of 1, 3, 10, 30, ... above or below a rate.

    >>> [f"{further(rate, up=up):g}" for rate, up in ((0.003, False), (0.01, True), (0.03, True), (0.1, False))]
    ['0.001', '0.03', '0.1', '0.03']
    """
    is_three = f"{rate:e}".startswith("3")
    step = (10 / 3 if is_three else 3.0) if up else (1 / 3 if is_three else 0.3)
    return float(f"{rate * step:.3g}")


@dataclass(frozen=True)
class Tuning:
    """Rates tried so far, by the loss of all users' validation text.

    Attributes:
        out, texts: folders of runs and texts.
        changes: settings of all runs.
        tried: name, rate and loss of each.
    """

    out: Path
    texts: Path
    changes: Sequence[str]
    tried: list[tuple[str, float, float]] = field(default_factory=list)

    def scored(self, way: Any, name: str, settings: Sequence[str], rate: float, column: str) -> float:
        """Return the loss at a rate."""
        folder = self.out / "tuning" / name.replace(" ", "-") / f"{rate:g}"
        if not finished(folder):
            asked = COMPARE["experiment"](way, "tuning", SEED, self.texts, [*settings, *self.changes])
            COMPARE["make"](asked, folder)
            print(folder, flush=True)
        perplexity = fedsim.load(folder).personal[column]
        found = float(np.mean([math.log(value) for value in perplexity]))
        self.tried.append((name, rate, found))
        return found

    def chosen(self, way: Any, name: str, settings: Sequence[str], key: str, column: str) -> float:
        """Return the best rate of the grid, which goes on where the best is at its end."""
        found: dict[float, float] = {}
        ahead = list(GRID)
        while ahead:
            rate = ahead.pop(0)
            found[rate] = self.scored(way, name, [*settings, f"{key}={rate}"], rate, column)
            best = min(found, key=lambda rate: found[rate])
            if not ahead and best in (min(found), max(found)):
                ahead.append(further(best, up=best == max(found)))
        return best


def tune(tuning: Tuning) -> None:
    """Choose every server's rate, and that of the local epoch, and write all that was tried."""
    known = COMPARE["ways"]()
    rates = {
        name: tuning.chosen(known[name], name, ["personal.epochs=0"], "local.lr", "metric_global")
        for name in SERVERS
    }
    settings = [f"local.lr={rates[EPOCH_OF]}"]
    tuning.chosen(known[EPOCH_OF], LOCAL_EPOCH, settings, "personal.lr", "metric_personal")
    order = {name: at for at, name in enumerate((*SERVERS, LOCAL_EPOCH))}
    cells = [
        [name, f"{rate:g}", f"{found:.5f}"]
        for name, rate, found in sorted(tuning.tried, key=lambda row: (order[row[0]], row[1]))
    ]
    about = "written by experiments/slow/rates.py: mean loss of all users' validation text"
    RATES.write_text(csv_text(["server", "lr", "loss"], cells, about), "utf-8", newline="\n")


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("-s", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args(arguments)
    tune(Tuning(asked.runs, asked.texts, asked.changes))
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
