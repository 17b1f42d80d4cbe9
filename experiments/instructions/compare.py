"""Chats of natural users on a real backbone: rounds against FedBuff, LoRA, DoRA and a base of four bits.

`python experiments/instructions/compare.py run runs/instructions` makes the runs, one folder a way (more arguments go to every
one of them: `-s seed=1`, `-s task.model=...`); `python experiments/instructions/compare.py table runs/instructions [figure.png]` prints
the tables of README.md and draws its figure.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fedsim
from fedsim import views
from fedsim.cli.app import call

HERE = Path(__file__).parent
WAYS = {
    "sync": "rounds, LoRA",
    "fedbuff": "FedBuff, LoRA",
    "fedbuff-dora": "FedBuff, DoRA",
    "fedbuff-nf4": "FedBuff, LoRA, base of four bits",
}
"""File -> what it is called in the tables."""

Runs = dict[str, list[fedsim.Run]]


def run(out: Path, arguments: Sequence[str]) -> int:
    """Make the runs; returns the worst exit code. What is done already is left alone."""
    codes = []
    for way in WAYS:
        seed = next((text.partition("=")[2] for text in arguments if text.startswith("seed=")), "0")
        folder = out / way / f"seed-{seed}"
        codes.append(call(["run", str(HERE / f"{way}.yaml"), *arguments, "--resume", "--out", str(folder)]))
    return max(codes)


def read(folder: Path) -> Runs:
    """Return the finished runs of each way, by seed."""
    found = {way: sorted(path.parent for path in (folder / way).glob("*/run.json")) for way in WAYS}
    return {way: [fedsim.load(path) for path in paths] for way, paths in found.items() if paths}


def last(run: fedsim.Run, metric: str, split: str = "test") -> float:
    """Return the last score of a metric, NaN if there is none."""
    rows = run.scores[(run.scores["metric"] == metric) & (run.scores["split"] == split)]
    return float(rows.sort_values("version")["value"].iloc[-1]) if len(rows) else float("nan")


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean ± standard deviation of the seeds, or the one value there is."""
    some = np.asarray(values, dtype=float)
    if np.isnan(some).any():
        return "–"
    return f"{some.mean():.{digits}f}" + (f" ± {some.std(ddof=1):.{digits}f}" if some.size > 1 else "")


def lines(runs: Runs) -> list[str]:
    """Return the table of README.md: answers on unseen text, and what they took."""
    head = [
        "",
        "perplexity of answers",
        "token accuracy",
        "ROUGE-L",
        "virtual minutes",
        "MB up",
        "kJ",
        "clients heard",
    ]
    rows = [head, ["---"] * len(head)]
    for way, some in runs.items():
        heard = [r.visits.loc[r.visits["committed_version"] > 0, "client"].nunique() for r in some]
        rows.append(
            [
                WAYS[way],
                spread([last(r, "perplexity") for r in some], 2),
                spread([last(r, "token_accuracy") for r in some], 4),
                spread([last(r, "rouge_l", "answers") for r in some], 3),
                spread([r.info.end_time_s / 60 for r in some], 1),
                spread([r.visits["up_bytes"].sum() / 1e6 for r in some], 0),
                spread([r.visits["joules"].sum() / 1e3 for r in some], 1),
                spread(heard, 0),
            ]
        )
    first = next(iter(runs.values()))[0]
    begin = float(views.scored(first, "perplexity")["value"].iloc[0])
    return [
        f"Perplexity of answers before training: {begin:.2f}.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def draw(runs: Runs, path: Path) -> None:
    """Draw perplexity and ROUGE-L of answers over virtual time and over uploaded bytes."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row", sharex="col")
    for row, (metric, split) in enumerate((("perplexity", "test"), ("rouge_l", "answers"))):
        for column, (x, unit, label) in enumerate(
            (("time_s", 60.0, "virtual minutes"), ("up_bytes", 1e6, "MB uploaded"))
        ):
            ax = panels[row][column]
            for way, some in runs.items():
                curve = views.scored(some[0], metric, split)
                ax.plot(curve[x] / unit, curve["value"], label=WAYS[way], marker="o", markersize=3)
            ax.grid(visible=True, alpha=0.3)
            if row:
                ax.set_xlabel(label)
        panels[row][0].set_ylabel(f"{metric.replace('_', '-')} of answers")
    panels[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    if len(arguments) < 2 or arguments[0] not in ("run", "table"):
        print(__doc__)
        return 2
    folder = Path(arguments[1])
    if arguments[0] == "run":
        return run(folder, arguments[2:])
    found = read(folder)
    if not found:
        print(f"no finished runs in {folder}", file=sys.stderr)
        return 2
    print("\n".join(lines(found)))
    if len(arguments) > 2:
        draw(found, Path(arguments[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
