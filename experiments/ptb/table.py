"""Print the table of README.md from the run folders: `python experiments/ptb/table.py runs/ptb-*`."""

import math
import sys

import fedsim
from fedsim import views

HOURS = (12, 24, 48)
METRIC = "perplexity"


def within(run: fedsim.Run, **budget: float) -> str:
    """Return the last test perplexity that a budget allows; `–` where nothing was scored within it, or the run ended before."""
    value = views.value_at(run, METRIC, **budget)
    return "–" if math.isnan(value) else f"{value:.2f}"


def row(run: fedsim.Run, equal_bytes: float) -> list[str]:
    """Return one line: what the run reached, at equal virtual time and at equal bytes."""
    scores = views.scored(run, METRIC)
    first, last = scores.value.iloc[0], scores.value.iloc[-1]
    up = run.info.totals.up_bytes
    by_time = [within(run, time_s=h * 3600) for h in HOURS]
    by_bytes = within(run, up_bytes=equal_bytes)
    counts = [str(len(run.commits)), str(len(run.visits)), f"{(run.visits.outcome == 'landed').mean():.0%}"]
    return [
        run.name,
        *counts,
        f"{up / 1e9:.2f}",
        f"{first:.1f}",
        *by_time,
        by_bytes,
        f"{last:.2f}",
    ]


runs = [fedsim.load(folder) for folder in sys.argv[1:]]
federated = [run for run in runs if len(run.clients) > 1]
equal = min(run.info.totals.up_bytes for run in federated if run.info.totals.up_bytes)
head = ["run", "commits", "visits", "landed", "GB up", "version 0", *(f"at {h} h" for h in HOURS)]
head += [f"at {equal / 1e9:.2f} GB", "last"]
print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
for run in runs:
    print("| " + " | ".join(row(run, equal)) + " |")
