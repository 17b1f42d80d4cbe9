"""Full depth, depth by memory, depth by deadline and rank by memory, beside what LEGEND published.

`python experiments/depth/compare.py run runs/depth` makes the runs (three seeds each; more arguments go to every one of them:
`-s task.model=builtin`); `python experiments/depth/compare.py table runs/depth [figure.png]` prints the tables of README.md
and draws its figure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

import fedsim
from fedsim import views
from fedsim.cli.app import call
from fedsim.cli.shell import script
from fedsim.records.studies.command import answered
from fedsim.records.studies.kept import runs_of
from fedsim.records.studies.pages import spread, table

HERE = Path(__file__).parent
WAYS = {
    "full": "all layers",
    "by-memory": "depth by memory",
    "by-deadline": "depth by deadline",
    "rank-by-memory": "rank by memory",
}
"""File -> what it is called in the tables; the first is what the others are compared with."""
METRIC = "perplexity"
SPEED_UP, TRAFFIC = (1.5, 2.8), 0.423
"""LEGEND (arXiv 2412.20004, abstract): so much sooner at a target accuracy, with so much less traffic."""

STYLES = {"rank-by-memory": "--"}
"""Dashed: at this size it is the same as all layers, and lies upon it."""
Runs = Mapping[str, list[fedsim.Run]]


def run(out: Path, arguments: Sequence[str]) -> int:
    """Make the runs, one folder a way; returns the worst exit code."""
    codes = [
        call(
            [
                "sweep",
                str(HERE / f"{way}.yaml"),
                "-s",
                "runtime.executor=inline",
                *arguments,
                "--out",
                str(out / way),
            ]
        )
        for way in WAYS
    ]
    return max(codes)


def read(folder: Path) -> Runs:
    """Return the finished runs of each way, by seed."""
    return runs_of(folder, WAYS)


def target_of(runs: Runs) -> float:
    """Return the perplexity that the runs declared before they ran; else the worst of their last ones."""
    everything = [run for some in runs.values() for run in some]
    declared = everything[0].experiment["evaluate"].get("targets") or []
    return float(declared[0]) if declared else views.common_target(everything, METRIC)


def participants(run: fedsim.Run) -> tuple[int, int]:
    """Return the clients whose memory holds a training, and those with an update in the model."""
    able = int((run.clients["memory_plan"] != "refused").sum())
    committed = run.visits[run.visits["committed_version"] > 0]
    return able, int(committed["client"].nunique())


def depths_of(run: fedsim.Run) -> str:
    """Return how many clients train how many layers."""
    layers = views.depths(run)["depth"].dropna().astype(int).value_counts().sort_index()
    return ", ".join(f"{count} x {depth}" for depth, count in layers.items()) or "all"


def costs(runs: Runs, target: float) -> list[str]:
    """Return what each way costs until it reaches the target, and in all."""
    rows = []
    for way, some in runs.items():
        reached = views.time_to_target(some, METRIC, target)
        done = int(reached["reached"].sum())
        able, heard = zip(*map(participants, some), strict=True)
        last: Callable[[fedsim.Run], float] = lambda run: float(views.scored(run, METRIC)["value"].iloc[-1])  # noqa: E731
        rows.append(
            [
                WAYS[way],
                f"{done} of {len(some)}",
                spread(reached["time_s"] / 3600, 2),
                spread(reached["up_bytes"] / 1e9, 2),
                spread(reached["down_bytes"] / 1e9, 2),
                spread(reached["joules"] / 1e6, 2),
                spread(able, 0),
                spread(heard, 0),
                spread(map(last, some)),
            ]
        )
    head = ["", "reached", "hours", "GB up", "GB down", "MJ", "clients able", "clients heard", "at the end"]
    return table(head, rows)


def beside(runs: Runs, target: float) -> list[str]:
    """Return how much sooner and with how much less traffic than at full depth, seed by seed, beside LEGEND's claim.

    A run at full depth that never gets there would have needed more than all its time: `over` what comes of that.
    """
    rows = [["LEGEND, 80 devices", f"{SPEED_UP[0]} to {SPEED_UP[1]}", f"{100 * TRAFFIC:.1f} % less"]]
    base = needed(runs["full"], target) if "full" in runs else []
    for way, some in runs.items():
        if way == "full" or not base:
            continue
        pairs = list(zip(base, needed(some, target), strict=True))
        rows.append(
            [WAYS[way], ", ".join(sooner(*pair) for pair in pairs), ", ".join(less(*pair) for pair in pairs)]
        )
    return table(["", f"times sooner at {target:g}, by seed", "traffic until then"], rows)


@dataclass(frozen=True)
class Need:
    """What a run took until the target, or in all where it never reached it."""

    reached: bool
    time_s: float
    moved_bytes: float


def needed(runs: Sequence[fedsim.Run], target: float) -> list[Need]:
    """Return what each run took, in both directions of the network together."""
    found = views.time_to_target(runs, METRIC, target)
    moved = found["up_bytes"] + found["down_bytes"]
    rows = zip(runs, found["reached"], found["time_s"], moved, strict=True)
    return [
        Need(True, time_s, moved_bytes)
        if reached
        else Need(False, run.info.end_time_s, float(all_bytes(run)))
        for run, reached, time_s, moved_bytes in rows
    ]


def all_bytes(run: fedsim.Run) -> float:
    """Return the bytes that all visits of a run moved, in both directions."""
    return float(run.visits[["up_bytes", "down_bytes"]].sum().sum())


def sooner(base: Need, own: Need) -> str:
    """Return how many times sooner a run was there; `over` where the base never was."""
    if not own.reached:
        return "–"
    return f"{'' if base.reached else 'over '}{base.time_s / own.time_s:.2f}"


def less(base: Need, own: Need) -> str:
    """Return how much less a run moved until it was there; nothing is known where the base never was."""
    if not own.reached or not base.reached:
        return "–"
    return f"{100 * (1 - own.moved_bytes / base.moved_bytes):.0f} % less"


def draw(runs: Runs, path: Path) -> None:
    """Draw perplexity over virtual time and over uploaded bytes."""
    target = target_of(runs)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels: tuple[tuple[views.X, float, str], ...] = (
        ("time_s", 3600.0, "virtual hours"),
        ("up_bytes", 1e9, "GB uploaded"),
    )
    for ax, (x, unit, label) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for way, some in runs.items():
            curve = views.mean_curve(some, METRIC, x)
            at = curve[x] / unit
            (line,) = ax.plot(
                at,
                curve["mean"],
                label=WAYS[way],
                linewidth=1.6,
                linestyle=STYLES.get(way, "-"),
                drawstyle="steps-post",
            )
            low, high = curve["mean"] - curve["deviation"], curve["mean"] + curve["deviation"]
            ax.fill_between(at, low, high, step="post", alpha=0.15, color=line.get_color())
        ax.axhline(target, color="grey", linewidth=0.8, linestyle=":")
        ax.set_yscale("log")
        ax.set_xlabel(label)
        ax.grid(visible=True, alpha=0.3, which="both")
    figure.axes[0].set_ylabel("perplexity (mean and deviation of seeds)")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def lines(runs: Runs) -> list[str]:
    """Return the tables of README.md."""
    target = target_of(runs)
    first = [[WAYS[way], *(depths_of(run) for run in some)] for way, some in runs.items()]
    seeds = [f"seed {run.info.seed}" for run in next(iter(runs.values()))]
    return [
        f"Until a perplexity of {target:g}:",
        "",
        *costs(runs, target),
        "",
        "Clients by the layers that they train:",
        "",
        *table(["", *seeds], first),
        "",
        *beside(runs, target),
    ]


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    return answered(arguments, str(__doc__), run=run, read=read, lines=lines, draw=draw)


if __name__ == "__main__":
    sys.exit(script(main))
