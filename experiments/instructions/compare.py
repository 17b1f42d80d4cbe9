"""Chats of natural users on a real backbone: rounds against FedBuff, LoRA, DoRA and a base of four bits.

`python experiments/instructions/compare.py run runs/instructions` makes the runs, one folder a way (more arguments go to every
one of them: `-s seed=1`, `-s task.model=...`); `python experiments/instructions/compare.py table runs/instructions [figure.png]` prints
the tables of README.md and draws its figure. `python experiments/instructions/compare.py schedules [-s ...]` plays the schedules of both servers
without training, five seeds each, and writes schedules.csv and its table in README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

import fedsim
from fedsim import views
from fedsim.cli.app import call
from fedsim.cli.shell import script
from fedsim.config.loading import load
from fedsim.records.studies.command import answered
from fedsim.records.studies.kept import Key, rows_in, runs_of, text_of
from fedsim.records.studies.marks import interval_of
from fedsim.records.studies.pages import between, spread, table, with_interval

HERE = Path(__file__).parent
WAYS = {
    "sync": "rounds, LoRA",
    "fedbuff": "FedBuff, LoRA",
    "fedbuff-dora": "FedBuff, DoRA",
    "fedbuff-nf4": "FedBuff, LoRA, base of four bits",
}
"""File -> what it is called in the tables."""

SCHEDULED = ("sync", "fedbuff")
SEEDS = range(5)
STUDY = "instructions"
ROWS, PAGE = HERE / "schedules.csv", HERE / "README.md"
BEGIN, END = (
    "<!-- schedules: written by `python experiments/instructions/compare.py schedules` -->",
    "<!-- end of schedules -->",
)

Runs = Mapping[str, list[fedsim.Run]]


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
    return runs_of(folder, WAYS)


def last(run: fedsim.Run, metric: str, split: str = "test") -> float:
    """Return the last score of a metric, NaN if there is none."""
    rows = run.scores[(run.scores["metric"] == metric) & (run.scores["split"] == split)]
    return float(rows.sort_values("version")["value"].iloc[-1]) if len(rows) else float("nan")


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
    rows = []
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
        *table(head, rows),
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


# schedules, which need no training -----------------------------------------------------------------


def play(settings: Sequence[str]) -> None:
    """Play the schedules of both servers, and keep what they take."""
    rows = {}
    for way in SCHEDULED:
        for seed in SEEDS:
            asked = load(HERE / f"{way}.yaml", [*settings, f"seed={seed}"])
            rows[Key(STUDY, way, seed)] = figures(fedsim.simulate(asked, timeline_only=True))
    about = "written by experiments/instructions/compare.py schedules: one run a row, without training"
    ROWS.write_text(text_of(rows, list(rows), about), "utf-8")


def figures(run: fedsim.Run) -> dict[str, float]:
    """Return what is kept of a schedule."""
    return {
        "minutes": run.info.end_time_s / 60,
        "commits": float(len(run.commits)),
        "landed": float((run.visits["outcome"] == "landed").sum()),
        "up_bytes": float(run.visits["up_bytes"].sum()),
    }


def sooner() -> list[str]:
    """Return the table of the schedules: minutes that both servers take, and how many times as long rounds take, seed by seed."""
    rows = rows_in(ROWS)
    minutes = [interval_of(rows, STUDY, "minutes", "value", way) for way in SCHEDULED]
    ratio = interval_of(rows, STUDY, "minutes", "ratio", " | ".join(SCHEDULED))
    head = ["virtual minutes of", *(WAYS[way] for way in SCHEDULED), "times as long"]
    return table(head, [[f"seeds 0 to {max(SEEDS)}", *map(with_interval, (*minutes, ratio))]])


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    if arguments[:1] == ["schedules"]:
        play([word for word in arguments[1:] if word != "-s"])
        PAGE.write_text(between(PAGE.read_text("utf-8"), BEGIN, END, sooner()), "utf-8")
        return 0
    return answered(arguments, str(__doc__), run=run, read=read, lines=lines, draw=draw)


if __name__ == "__main__":
    sys.exit(script(main))
