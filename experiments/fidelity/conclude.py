"""Print the table of README.md from run folders: `python experiments/fidelity/conclude.py TARGET runs/fidelity-*`.

Runs whose network model is `size-over-rate` are paired with those of the same protocol whose server link is shared.
"""

import sys
from typing import Any

import fedsim
from fedsim import views

METRIC = "perplexity"


def row(run: fedsim.Run, target: float) -> list[str]:
    """Return one line: how much happened in the budget, how stale, and when the target was reached."""
    landed = run.visits[run.visits.outcome == "landed"]
    committed = landed[landed.committed_version > 0]
    budget = float(run.experiment["budget"]["time_s"])
    hours = budget / 3600
    seconds = (landed.landed_s - landed.dispatched_s).median()
    reached = views.time_to_target([run], METRIC, target).iloc[0]
    when = f"{reached.time_s / 60:.0f} min" if reached.reached else f"not in {reached.watched_s / 60:.0f} min"
    cells = [f"{len(run.commits) / hours:.0f}", f"{len(landed) / hours:.0f}"]
    cells += [
        f"{committed.staleness.mean():.1f}",
        f"{seconds:.0f} s",
        f"{reached.up_bytes / 1e9:.1f} GB" if reached.reached else "",
    ]
    return [run.name, network(run), *cells, when]


def network(run: fedsim.Run) -> str:
    """Return the network model in words."""
    asked: dict[str, Any] = run.experiment["network"]
    return "size / bandwidth" if asked["model"] == "size-over-rate" else "TCP, shared"


def main() -> None:
    """Print the table, then the ranking under each network model."""
    target = float(sys.argv[1])
    runs = [fedsim.load(folder) for folder in sys.argv[2:]]
    head = [
        "run",
        "network",
        "commits an hour",
        "updates an hour",
        "staleness",
        "median visit",
        "up by the target",
    ]
    head.append(f"perplexity {target:g} after")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for run in runs:
        print("| " + " | ".join(row(run, target)) + " |")
    for model in sorted({network(run) for run in runs}):
        mine = [run for run in runs if network(run) == model]
        times = {run.name: views.time_to_target([run], METRIC, target).iloc[0].time_s for run in mine}
        ranking = sorted(times, key=lambda name: (times[name] != times[name], times[name]))
        print(f"\n{model}: {' < '.join(ranking)}")


main()
