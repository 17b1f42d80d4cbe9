"""Print the table of README.md from the run folders: `python experiments/cifar10/table.py runs/cifar10-*`."""

import math
import sys

import fedsim
from fedsim import views

SPLIT = "samples"


def row(run: fedsim.Run, time_s: float, up_bytes: float) -> list[str]:
    """Return the cells of one run: distances at the start, at equal time, at equal bytes, and at the end."""
    landed = float((run.visits.outcome == "landed").mean())
    cells = [
        run.name,
        str(len(run.commits)),
        str(len(run.visits)),
        f"{landed:.0%}",
        f"{run.visits.up_bytes.sum() / 1e9:.2f}",
    ]
    metric = views.headline(run, SPLIT)
    if metric is None:
        loss = views.scored(run, "loss")["value"]
        return [*cells, *(["-"] * 4), f"loss {loss.iloc[0]:.4f} -> {loss.iloc[-1]:.4f}"]
    curve = views.scored(run, metric, SPLIT)
    kernel = views.scored(run, metric.replace("FID", "KID").replace("FD(", "KID("), SPLIT)["value"]

    def last(axis: str, limit: float) -> str:
        within = curve[curve[axis] <= limit]
        return f"{within['value'].iloc[-1]:.0f}" if len(within) else "-"

    return [
        *cells, f"{curve['value'].iloc[0]:.0f}", last("time_s", time_s), last("up_bytes", up_bytes),
        f"{curve['value'].iloc[-1]:.0f}", f"KID {kernel.iloc[0]:.3g} -> {kernel.iloc[-1]:.3g}",
    ]  # fmt: skip


def main(folders: list[str]) -> None:
    """Print one row a run; equal time and equal bytes are the least that any scored run reached."""
    runs = [fedsim.load(folder) for folder in folders]
    drew = [run for run in runs if views.headline(run, SPLIT) is not None]
    time_s = min((float(run.info["end_time_s"]) for run in drew), default=math.inf)
    up_bytes = min((float(run.visits.up_bytes.sum()) for run in drew), default=math.inf)
    header = ["run", "commits", "visits", "landed", "GB up", "version 0", f"at {time_s / 3600:.1f} h"]
    header += [f"at {up_bytes / 1e9:.2f} GB", "last", "beside it"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for run in runs:
        print("| " + " | ".join(row(run, time_s, up_bytes)) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
